"""What an operator does to a deployment: the verbs behind the admin API and the `weir` command.

Each reads what is there, checks the change against it, and writes it in one transaction together
with its entry in the audit trail. If somebody else has changed the same record meanwhile, it is
done again from what is there then.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from weir import api_keys
from weir.api_keys import ApiKey
from weir.audit import Entry, differing
from weir.aws import items
from weir.aws.items import NO_RECORD, Key, Record
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Change, Stale, Table
from weir.configuration import (
    FILE_FORMAT,
    MAX_CATALOGUE_BYTES,
    ConfigurationFile,
    LimitsDocument,
    ModelDocument,
    NewProject,
    ProjectChange,
    TenantDocument,
    UpstreamDocument,
    check_catalogue,
    check_project,
    parsed,
)
from weir.errors import BadRequest, Conflict, NotFound
from weir.limits import BUILT_IN, MOST_CUSTOM_TIERS, Tiers
from weir.origins import Origins

TRIES = 5
_STATE = ("killed", "created_at", "updated_at")  # of a record; not part of its configuration

Document = dict[str, Any]
T = TypeVar("T")


class Touched(NamedTuple):
    """One record that changes, under the name that the audit trail gives it."""

    key: Key
    before: Record
    after: Document
    action: str
    target: str


class Operator:
    """`actor` is who does it. `provider_keys` is for those who may set them."""

    def __init__(
        self,
        table: Table,
        provider_keys: ProviderKeys,
        *,
        actor: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._provider_keys = provider_keys
        self._actor = actor
        self._clock = clock

    # ------------------------------------------------------------ projects

    def projects(self) -> list[Document]:
        return [_project_view(pid, r.document) for pid, r in sorted(self._table.projects().items())]

    def project(self, pid: str) -> Document:
        return _project_view(pid, self._project(pid).document)

    def create_project(self, new: NewProject) -> Document:
        told = new.stored()
        pid = told.pop("pid")

        def create() -> Document:
            if self._read(items.project(pid)).version:
                raise Conflict(f"There is a project {pid!r} already.")
            document = {n: v for n, v in told.items() if v is not None}
            return self._write_project(pid, NO_RECORD, document, "project.create")

        return self._until_current(create)

    def update_project(self, pid: str, change: ProjectChange) -> Document:
        told = change.stored()

        def update() -> Document:
            before = self._project(pid)
            document = {**before.document, **told}
            # null, where a field has another default, means that default.
            document = {n: v for n, v in document.items() if v is not None or n == "killed"}
            return self._write_project(pid, before, document, "project.update")

        return self._until_current(update)

    def change_origins(
        self,
        pid: str,
        *,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        previews: bool = False,
    ) -> Document:
        """Of a project's list; what is added must have been parsed."""
        field = "preview_origins" if previews else "origins"

        def change() -> Document:
            before = self._project(pid)
            listed = set(before.document.get(field, ()))
            missing = set(remove) - listed
            if missing:
                raise NotFound(f"{', '.join(sorted(missing))} is not listed in project {pid!r}.")
            after = sorted((listed | set(add)) - set(remove))
            told = parsed(ProjectChange, {field: after}).stored()
            document = {**before.document, **told}
            return self._write_project(pid, before, document, "project.update")

        return self._until_current(change)

    # ------------------------------------------------------------ tiers

    def tiers(self, pid: str) -> list[Document]:
        """Resolved, in order of number."""
        return _tiers_view(self._project(pid).document)

    def set_tier(self, pid: str, name: str, limits: LimitsDocument) -> Document:
        """Changes the limits that are named; a name that is not there yet becomes a tier of the
        project's own.
        """
        told = limits.stored()

        def change() -> Document:
            before = self._project(pid)
            tiers = dict(before.document.get("tiers", {}))
            kept = tiers.get(name) or {"number": _tier_number(name, tiers), "limits": {}}
            tiers[name] = {**kept, "limits": {**kept["limits"], **told}}
            document = {**before.document, "tiers": tiers}
            self._write_project(pid, before, document, "tier.set")
            return next(tier for tier in _tiers_view(document) if tier["name"] == name)

        return self._until_current(change)

    def reset_tier(self, pid: str, name: str) -> None:
        """A built-in tier back to its numbers; one of the project's own is removed."""

        def change() -> None:
            before = self._project(pid)
            tiers = dict(before.document.get("tiers", {}))
            if tiers.pop(name, None) is None:
                if name in BUILT_IN:
                    return
                raise NotFound(f"The project {pid!r} has no tier {name!r}.")
            self._write_project(pid, before, {**before.document, "tiers": tiers}, "tier.reset")

        self._until_current(change)

    # ------------------------------------------------------------ API keys

    def keys(self, pid: str) -> list[ApiKey]:
        self._project(pid)
        return self._table.api_keys(pid)

    def create_key(
        self, pid: str, *, name: str, scopes: Iterable[str], role: str
    ) -> tuple[str, ApiKey]:
        """The secret, which nobody can show again, and the key."""
        self._project(pid)
        secret = api_keys.form(secrets.token_hex(16))
        key = api_keys.describe(
            secret, pid=pid, name=name, now=self._now(), scopes=scopes, role=role
        )
        self._table.add_api_key(
            key, self._entry("key.create", f"{pid}/{key.key_id}", None, key.document())
        )
        return secret, key

    def revoke_key(self, pid: str, key_id: str) -> bool:
        """False if it was revoked before."""
        key_hash = self._table.api_key_hash(pid, key_id)
        key = None if key_hash is None else self._table.api_key(key_hash)
        if key_hash is None or key is None or key.pid != pid:
            raise NotFound(f"The project {pid!r} has no API key {key_id!r}.")
        if key.revoked_at is not None:
            return False
        now = self._now()
        entry = self._entry(
            "key.revoke", f"{pid}/{key_id}", {"revoked_at": None}, {"revoked_at": now}
        )
        return self._table.revoke_api_key(key_hash, now, entry)

    # ------------------------------------------------------------ catalogue

    def catalogue(self) -> Document:
        """{"upstreams": {...}, "models": {...}}, as it is kept."""
        document = self._read(items.CATALOGUE).document
        return {"upstreams": document.get("upstreams", {}), "models": document.get("models", {})}

    def model(self, name: str) -> Document:
        return _found(self.catalogue()["models"], name, "model")

    def put_model(self, name: str, model: ModelDocument) -> Document:
        def put(catalogue: Document, before: Document | None) -> Document:
            kept = before or {"created_at": self._now()}
            return {**model.stored(), **{n: kept[n] for n in ("created_at", "killed") if n in kept}}

        return self._change_catalogue("models", name, "model.set", put)

    def remove_model(self, name: str) -> None:
        users = [
            pid
            for pid, record in self._table.projects().items()
            if name in (record.document.get("models") or ())
            or self._names_of(name) & {record.document.get("default_model")}
        ]
        if users:
            raise Conflict(f"The model {name!r} is named by: {', '.join(sorted(users))}.")
        self._change_catalogue("models", name, "model.remove", None)

    def upstream(self, name: str) -> Document:
        return _found(self.catalogue()["upstreams"], name, "upstream")

    def put_upstream(self, name: str, upstream: UpstreamDocument) -> Document:
        def put(catalogue: Document, before: Document | None) -> Document:
            told = upstream.stored()
            if before is not None and before.get("base_url") == told.get("base_url"):
                told.update({n: before[n] for n in ("key_last4",) if n in before})
            return told

        return self._change_catalogue("upstreams", name, "upstream.set", put)

    def remove_upstream(self, name: str) -> None:
        models = self.catalogue()["models"]
        users = [n for n, m in models.items() if name in (c["upstream"] for c in m["candidates"])]
        if users:
            raise Conflict(f"The upstream {name!r} serves: {', '.join(sorted(users))}.")
        self._change_catalogue("upstreams", name, "upstream.remove", None)
        self._provider_keys.remove(name)

    def set_provider_key(self, name: str, key: str) -> Document:
        """Recorded first: a key that is in use was set by somebody."""
        base_url = self.upstream(name).get("base_url")
        if base_url is None:
            raise BadRequest("Bedrock takes no key: the deployment's role is its credential.")

        def put(catalogue: Document, before: Document | None) -> Document:
            if before is None or before.get("base_url") != base_url:
                raise Conflict(f"The upstream {name!r} has been changed meanwhile.")
            return {**before, "key_last4": key[-4:]}

        told = self._change_catalogue("upstreams", name, "upstream.key.set", put, always=True)
        self._provider_keys.set(name, key, base_url)
        return told

    def remove_provider_key(self, name: str) -> None:
        def put(catalogue: Document, before: Document | None) -> Document:
            return {n: v for n, v in (before or {}).items() if n != "key_last4"}

        self.upstream(name)
        self._provider_keys.remove(name)
        self._change_catalogue("upstreams", name, "upstream.key.remove", put)

    # ------------------------------------------------------------ kill switches

    def switches(self) -> list[Document]:
        """Everything that is switched off now."""
        found = []
        tenant = self._read(items.TENANT).document
        if tenant.get("killed"):
            found.append({"scope": "tenant", **tenant["killed"]})
        for name, model in sorted(self.catalogue()["models"].items()):
            if model.get("killed"):
                found.append({"scope": "model", "model": name, **model["killed"]})
        for pid, record in sorted(self._table.projects().items()):
            if record.document.get("killed"):
                found.append({"scope": "project", "project": pid, **record.document["killed"]})
            for subject_key, told in self._table.blocked_subjects(pid):
                user_id = subject_key.removeprefix("u#")
                found.append({"scope": "user", "project": pid, "user_id": user_id, **told})
        return found

    def switch_tenant(self, *, off: bool, reason: str = "") -> None:
        def change() -> None:
            before = self._read(items.TENANT)
            self._write_switch(items.TENANT, before, off, reason, "tenant", "tenant")

        self._until_current(change)

    def switch_project(self, pid: str, *, off: bool, reason: str = "") -> None:
        def change() -> None:
            before = self._project(pid)
            self._write_switch(items.project(pid), before, off, reason, "project", pid)

        self._until_current(change)

    def switch_model(self, name: str, *, off: bool, reason: str = "") -> None:
        self.model(name)

        def put(catalogue: Document, before: Document | None) -> Document:
            return self._switched(before or {}, off, reason)

        self._change_catalogue("models", name, "model.kill" if off else "model.revive", put)

    def switch_user(self, pid: str, user_id: str, *, off: bool, reason: str = "") -> None:
        """Refused on the next request; a user who was never seen may be blocked, too."""
        key = items.user(user_id)

        def change() -> None:
            self._project(pid)
            before = self._read(items.subject(pid, key))
            was = before.document.get("blocked")
            now = {"reason": reason, "at": self._now(), "by": self._actor} if off else None
            if bool(was) == off:
                return
            document = {n: v for n, v in before.document.items() if n != "blocked"}
            if now:
                document["blocked"] = now
            self._table.commit(
                [
                    Change(items.subject(pid, key), document, before.version),
                    Change(items.blocked(pid, key), now, None),
                ],
                [
                    self._entry(
                        "user.kill" if off else "user.revive",
                        f"{pid}/{user_id}",
                        {"blocked": was},
                        {"blocked": now},
                    )
                ],
            )

        self._until_current(change)

    # ------------------------------------------------------------ tenant, audit, origins, erasing

    def tenant(self) -> Document:
        document = self._read(items.TENANT).document
        return {"limits": document.get("limits", {}), "killed": document.get("killed")}

    def update_tenant(self, tenant: TenantDocument) -> Document:
        def change() -> None:
            before = self._read(items.TENANT)
            document = {**before.document, **tenant.stored()}
            self._commit([Touched(items.TENANT, before, document, "tenant.update", "tenant")])

        self._until_current(change)
        return self.tenant()

    def audit_trail(self, limit: int, older_than: str | None = None) -> list[Entry]:
        return self._table.audit_trail(limit, older_than)

    def refused_origins(self, pid: str) -> list[tuple[str, int]]:
        return self._table.refused_origins(pid)

    def origins(self) -> dict[str, Origins]:
        return {
            pid: Origins.from_document(record.document)
            for pid, record in self._table.projects().items()
        }

    def erase_user(self, pid: str, user_id: str) -> dict[str, int]:
        """Removes what the user has said and been told; how many items of each kind there were."""
        self._project(pid)
        removed = self._table.erase_content(pid, items.user(user_id))
        entry = self._entry("user.erase", f"{pid}/{user_id}", {"items": removed}, {"items": {}})
        self._table.commit([], [entry])
        return removed

    # ------------------------------------------------------------ export, import

    def exported(self) -> Document:
        tenant, catalogue = self._read(items.TENANT), self.catalogue()
        return {
            "format": FILE_FORMAT,
            "tenant": _configured(tenant.document),
            "upstreams": {
                name: {n: v for n, v in told.items() if n != "key_last4"}
                for name, told in sorted(catalogue["upstreams"].items())
            },
            "models": {n: _configured(m) for n, m in sorted(catalogue["models"].items())},
            "projects": {
                pid: _configured(record.document)
                for pid, record in sorted(self._table.projects().items())
            },
        }

    def imported(self, file: ConfigurationFile, *, dry_run: bool) -> list[Document]:
        """Makes what the file names equal to the file, all of it or nothing; what it does not name
        stays. Returns what changes, as {"action", "target", "before", "after"}.
        """

        def change() -> list[Document]:
            touched = self._touched_by(file)
            entries = [
                {
                    "action": each.action,
                    "target": each.target,
                    **dict(
                        zip(
                            ("before", "after"),
                            differing(each.before.document or None, each.after),
                            strict=True,
                        )
                    ),
                }
                for each in touched
            ]
            if not dry_run and touched:
                self._commit(touched)
            return entries

        return self._until_current(change)

    def _touched_by(self, file: ConfigurationFile) -> list[Touched]:
        now = self._now()
        tenant, catalogue = self._table.records([items.TENANT, items.CATALOGUE])
        projects = self._table.projects()
        after: Document = {
            "upstreams": dict(catalogue.document.get("upstreams", {})),
            "models": dict(catalogue.document.get("models", {})),
        }
        for name, upstream in file.upstreams.items():
            kept = after["upstreams"].get(name, {})
            same = kept.get("base_url") == upstream.base_url and "key_last4" in kept
            after["upstreams"][name] = {
                **upstream.stored(),
                **({"key_last4": kept["key_last4"]} if same else {}),
            }
        for name, model in file.models.items():
            kept = after["models"].get(name, {"created_at": now})
            after["models"][name] = {**model.stored(), **_state(kept)}
        check_catalogue(after)
        touched = [Touched(items.CATALOGUE, catalogue, after, "catalogue.import", "catalogue")]
        if "tenant" in file.model_fields_set:
            document = {**file.tenant.stored(), **_state(tenant.document)}
            touched.append(Touched(items.TENANT, tenant, document, "tenant.import", "tenant"))
        for pid, project in file.projects.items():
            before = projects.get(pid, NO_RECORD)
            document = {**project.stored(), **_state(before.document or {"created_at": now})}
            check_project(document, after)
            touched.append(
                Touched(items.project(pid), before, document, "project.import", f"project {pid}")
            )
        return [each for each in touched if each.after != each.before.document]

    # ------------------------------------------------------------ reading and writing

    def _now(self) -> int:
        return int(self._clock())

    def _read(self, key: Key) -> Record:
        return self._table.records([key])[0]

    def _project(self, pid: str) -> Record:
        record = self._read(items.project(pid))
        if not record.version:
            raise NotFound(f"There is no project {pid!r}.")
        return record

    def _names_of(self, name: str) -> set[str]:
        return {name, *self.model(name).get("aliases", ())}

    def _until_current(self, change: Callable[[], T]) -> T:
        for _ in range(TRIES):
            try:
                return change()
            except Stale:
                continue
        raise Conflict("Somebody else is changing the same thing. Try again.")

    def _write_project(self, pid: str, before: Record, document: Document, action: str) -> Document:
        check_project(document, self.catalogue())
        after = {**document, "created_at": before.document.get("created_at", self._now())}
        self._commit([Touched(items.project(pid), before, after, action, pid)])
        return _project_view(pid, after)

    def _change_catalogue(
        self,
        part: str,
        name: str,
        action: str,
        put: Callable[[Document, Document | None], Document] | None,
        *,
        always: bool = False,
    ) -> Document:
        """One model or upstream; `put` None removes it. `always`: with an entry in the audit trail
        even if nothing that can be seen has changed.
        """

        def change() -> Document:
            record = self._read(items.CATALOGUE)
            document = {**record.document, part: dict(record.document.get(part, {}))}
            before = document[part].get(name)
            after = put(document, before) if put else None
            if after is None:
                _found(document[part], name, part.removesuffix("s"))
                del document[part][name]
            else:
                document[part][name] = after
            if after != before or always:
                check_catalogue(document)
                entry = self._entry(action, name, *differing(before, after))
                self._commit_catalogue(record, document, entry)
            return after or {}

        return self._until_current(change)

    def _commit_catalogue(self, before: Record, document: Document, entry: Entry) -> None:
        size = len(json.dumps(document).encode())
        if size > MAX_CATALOGUE_BYTES:
            raise Conflict(f"The catalogue would have {size} bytes; {MAX_CATALOGUE_BYTES} fit.")
        self._table.commit([Change(items.CATALOGUE, document, before.version)], [entry])

    def _write_switch(
        self, key: Key, before: Record, off: bool, reason: str, kind: str, target: str
    ) -> None:
        document = self._switched(before.document, off, reason)
        action = f"{kind}.kill" if off else f"{kind}.revive"
        self._commit([Touched(key, before, document, action, target)])

    def _switched(self, document: Document, off: bool, reason: str) -> Document:
        if bool(document.get("killed")) == off:
            return document
        told = {n: v for n, v in document.items() if n != "killed"}
        if off:
            told["killed"] = {"reason": reason, "at": self._now(), "by": self._actor}
        return told

    def _commit(self, touched: list[Touched]) -> None:
        """With the union of all origins, if a project's have changed."""
        changed = [each for each in touched if each.after != each.before.document]
        if not changed:
            return
        changes = [Change(each.key, each.after, each.before.version) for each in changed]
        entries = [
            self._entry(
                each.action, each.target, *differing(each.before.document or None, each.after)
            )
            for each in changed
        ]
        if any(each.key.pk == items.PROJECTS for each in changed):
            changes += self._changed_union(changed)
        self._table.commit(changes, entries)

    def _changed_union(self, changed: list[Touched]) -> list[Change]:
        before = self._read(items.ORIGINS)
        documents: dict[str, Mapping[str, Any]] = {
            pid: record.document for pid, record in self._table.projects().items()
        }
        documents.update({t.key.sk: t.after for t in changed if t.key.pk == items.PROJECTS})
        union = Origins.union(Origins.from_document(d) for d in documents.values()).document()
        # Written even if it is the same: of two projects changed at once, the second to be written
        # must have seen the first.
        return [Change(items.ORIGINS, union, before.version)]

    def _entry(
        self,
        action: str,
        target: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> Entry:
        return Entry(
            at_ms=int(self._clock() * 1000),
            entry_id=secrets.token_hex(4),
            actor=self._actor,
            action=action,
            target=target,
            before=before,
            after=after,
        )


def _found(there: Mapping[str, Document], name: str, kind: str) -> Document:
    if name not in there:
        raise NotFound(f"The catalogue has no {kind} {name!r}.")
    return there[name]


def _state(document: Mapping[str, Any]) -> Document:
    return {n: document[n] for n in _STATE if n in document}


def _configured(document: Mapping[str, Any]) -> Document:
    return {n: v for n, v in document.items() if n not in _STATE}


def _tier_number(name: str, tiers: Mapping[str, Document]) -> int:
    if name in BUILT_IN:
        return BUILT_IN[name]
    taken = {tier["number"] for tier in tiers.values()}
    free = [number for number in range(4, 4 + MOST_CUSTOM_TIERS) if number not in taken]
    if not free:
        raise Conflict(f"A project has at most {MOST_CUSTOM_TIERS} tiers of its own.")
    return free[0]


def _tiers_view(document: Mapping[str, Any]) -> list[Document]:
    changed = document.get("tiers", {})
    return [
        {
            "number": tier.number,
            "name": tier.name,
            "limits": tier.limits.document(),
            "changed": sorted(changed.get(tier.name, {}).get("limits", {})),
        }
        for tier in sorted(Tiers(changed).by_name.values(), key=lambda tier: tier.number)
    ]


def _project_view(pid: str, document: Mapping[str, Any]) -> Document:
    """Everything about a project, with the defaults written out."""
    return {
        "pid": pid,
        "name": document.get("name"),
        "status": document.get("status", "active"),
        "origins": document.get("origins", []),
        "preview_origins": document.get("preview_origins", []),
        "models": document.get("models"),
        "default_model": document.get("default_model"),
        "system_prompt": document.get("system_prompt"),
        "limits": document.get("limits", {}),
        "user_limits": document.get("user_limits", {}),
        "tiers": document.get("tiers", {}),
        "killed": document.get("killed"),
        "created_at": document.get("created_at"),
    }
