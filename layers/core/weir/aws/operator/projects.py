"""Projects: what they are, which pages may call them, their tiers, their API keys, their users."""

import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from weir.aws import items
from weir.aws.items import NO_RECORD, Record
from weir.aws.operator.records import Document, Records, Touched, merged_limits
from weir.aws.table import Change
from weir.errors import Conflict, NotFound
from weir.identity import api_keys
from weir.identity.api_keys import ApiKey
from weir.operator.documents import LimitsDocument, NewProject, ProjectChange, check_project, parsed
from weir.projects.limits import BUILT_IN, MOST_CUSTOM_TIERS, Tiers
from weir.projects.project import MEMORY_WINDOW, NEW_CUSTOMERS_PER_HOUR
from weir.web.origins import Origins


class Projects(Records):
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

    def update_project(
        self, pid: str, change: ProjectChange, unset: Mapping[str, Collection[str]] | None = None
    ) -> Document:
        """`unset` are limits that go back to their defaults, by field: limits, user_limits,
        customer_limits.
        """
        told = change.stored()

        def update() -> Document:
            before = self._project(pid)
            document = {**before.document, **told}
            for field in ("limits", "user_limits", "customer_limits"):
                document[field] = merged_limits(before.document, told, field, unset)
            # null, where a field has another default, means that default.
            document = {n: v for n, v in document.items() if v is not None and v != {}}
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

    def tier(self, pid: str, tier: str) -> Document:
        """Return one, resolved, by its name or number. Raises NotFound."""
        return _tier_view(pid, self._project(pid).document, tier)

    def set_tier(self, pid: str, name: str, limits: LimitsDocument) -> Document:
        """Changes the limits that are named; a name that is not there yet becomes a tier of the
        project's own.
        """
        told = limits.stored()

        def change() -> Document:
            before = self._project(pid)
            kept = before.document.get("tiers", {}).get(name, {}).get("limits", {})
            return self._write_tier(pid, before, name, {**kept, **told})

        return self._until_current(change)

    def create_tier(self, pid: str, name: str, limits: LimitsDocument) -> Document:
        """Make a tier of the project's own. Raises Conflict if there is one of this name, or if the
        project has as many as it may.
        """

        def create() -> Document:
            before = self._project(pid)
            if Tiers(before.document.get("tiers", {})).find(name) is not None:
                raise Conflict(f"The project {pid!r} has a tier {name!r} already.")
            return self._write_tier(pid, before, name, limits.stored())

        return self._until_current(create)

    def replace_tier(self, pid: str, tier: str, limits: LimitsDocument) -> Document:
        """Set exactly these limits of a tier, found by its name or number; the others go back to
        their defaults. Raises NotFound.
        """

        def replace() -> Document:
            before = self._project(pid)
            name = _tier_view(pid, before.document, tier)["name"]
            return self._write_tier(pid, before, name, limits.stored())

        return self._until_current(replace)

    def _write_tier(self, pid: str, before: Record, name: str, limits: Document) -> Document:
        tiers = dict(before.document.get("tiers", {}))
        number = tiers[name]["number"] if name in tiers else _tier_number(name, tiers)
        tiers[name] = {"number": number, "limits": limits}
        document = {**before.document, "tiers": tiers}
        self._write_project(pid, before, document, "tier.set")
        return _tier_view(pid, document, name)

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
        self,
        pid: str,
        *,
        name: str,
        scopes: Iterable[str],
        role: str,
        contract: str = api_keys.BEHEST,
    ) -> tuple[str, ApiKey]:
        """The secret, which nobody can show again, and the key."""
        self._project(pid)
        secret = api_keys.form(secrets.token_hex(16), api_keys.PREFIXES[contract])
        key = api_keys.describe(
            secret, pid=pid, name=name, now=self._now(), scopes=scopes, role=role
        )
        self._table.add_api_key(
            key, self._entry("key.create", f"{pid}/{key.key_id}", None, key.document())
        )
        return secret, key

    def revoke_key(self, pid: str, key_id: str) -> bool:
        """Refuse the key at once, and within 5 s the tokens that it has made. Returns False if it
        was revoked before.
        """

        def revoke() -> bool:
            return self._revoke(pid, key_id)

        return self._until_current(revoke)

    def _revoke(self, pid: str, key_id: str) -> bool:
        project = self._project(pid)
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
        revoked = {
            **api_keys.still_to_refuse(project.document.get("revoked_keys", {}), now),
            key_id: now,
        }
        document = {**project.document, "revoked_keys": revoked}
        change = Change(items.project(pid), document, project.version)
        self._table.revoke_api_key(key_hash, now, change, entry)
        return True

    # ------------------------------------------------------------ origins, users

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

    def _write_project(self, pid: str, before: Record, document: Document, action: str) -> Document:
        catalogue = self._read(items.CATALOGUE)
        check_project(document, catalogue.document)
        after = {**document, "created_at": before.document.get("created_at", self._now())}
        # The models that it names stay for as long as this takes.
        leans_on = [(items.CATALOGUE, catalogue.version)]
        self._commit([Touched(items.project(pid), before, after, action, pid)], leans_on)
        return _project_view(pid, after)


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


def _tier_view(pid: str, document: Mapping[str, Any], tier: str) -> Document:
    found = Tiers(document.get("tiers", {})).find(tier)
    if found is None:
        raise NotFound(f"The project {pid!r} has no tier {tier!r}.")
    return next(each for each in _tiers_view(document) if each["name"] == found.name)


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
        "allowed_fields": document.get("allowed_fields") or [],
        "memory_enabled": document.get("memory_enabled", False),
        "memory_window": document.get("memory_window", MEMORY_WINDOW),
        "retention_days": document.get("retention_days"),
        "store_tool_calls": document.get("store_tool_calls", True),
        "limits": document.get("limits", {}),
        "user_limits": document.get("user_limits", {}),
        "customer_limits": document.get("customer_limits", {}),
        "new_customers_per_hour": document.get("new_customers_per_hour", NEW_CUSTOMERS_PER_HOUR),
        "prompts": document.get("prompts", {}),
        "rpm_per_address": document.get("rpm_per_address"),
        "ledger_shards": document.get("ledger_shards", 1),
        "tiers": document.get("tiers", {}),
        "issuers": document.get("issuers", {}),
        "killed": document.get("killed"),
        "created_at": document.get("created_at"),
    }
