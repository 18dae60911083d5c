"""Kill switches, and what holds for the deployment as a whole."""

from collections.abc import Collection, Mapping

from weir.aws import items
from weir.aws.items import Key, Record
from weir.aws.operator.records import Document, Records, Touched, existing, merged_limits
from weir.aws.table import Change, SubjectChange
from weir.errors import NotFound
from weir.identity.cognito import ADMINS
from weir.operator.documents import TenantDocument
from weir.revocation import BLOCKED


class Switches(Records):
    def switches(self) -> list[Document]:
        """Everything that is switched off now."""
        off: list[Document] = []
        tenant = self._read(items.TENANT).document
        if tenant.get("killed"):
            off.append({"scope": "tenant", **tenant["killed"]})
        for name, model in sorted(self.catalogue()["models"].items()):
            if model.get("killed"):
                off.append({"scope": "model", "model": name, **model["killed"]})
        for pid, record in sorted(self._table.projects().items()):
            if record.document.get("killed"):
                off.append({"scope": "project", "project": pid, **record.document["killed"]})
            for told in self._table.blocked_subjects(pid):
                off.append({"scope": "user", "project": pid, **told})
        return off

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
        def put(before: Document | None) -> Document:
            return self._switched(existing(before, name, "model"), off, reason)

        self._change_catalogue("models", name, "model.kill" if off else "model.revive", put)

    def switch_user(self, pid: str, user_id: str, *, off: bool, reason: str = "") -> None:
        """Refused on the next request; a user who was never seen may be blocked, too."""
        key = items.user(user_id)

        def change() -> None:
            self._project(pid)
            before = self._read(items.subject(pid, key))
            was = before.document.get(BLOCKED)
            if (was is not None) == off:
                return
            now = {"reason": reason, "at": self._now(), "by": self._actor} if off else None
            document = {n: v for n, v in before.document.items() if n != BLOCKED}
            if now:
                document[BLOCKED] = now
            listed = {"user_id": user_id, **now} if now else None
            self._table.commit(
                [
                    SubjectChange(items.subject(pid, key), before, document, self._now()),
                    Change(items.blocked(pid, key), listed, None),
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

    def tenant(self) -> Document:
        document = self._read(items.TENANT).document
        return {
            "limits": document.get("limits", {}),
            "ledger_shards": document.get("ledger_shards", 1),
            "killed": document.get("killed"),
        }

    def overruns(self) -> list[Document]:
        """Return the candidates for which more than the output cap is reserved, since they have
        cost more than their worst case: [{"candidate": "openai/gpt-5", "percent": 320}].
        """
        noted = sorted(self._read(items.OVERRUNS).document.items())
        return [{"candidate": name, "percent": percent} for name, percent in noted]

    def reset_overrun(self, candidate: str) -> None:
        """Reserve no more than the output cap for a candidate again. Counts within 5 s."""

        def change() -> None:
            percent = self._read(items.OVERRUNS).document.get(candidate)
            if percent is None:
                raise NotFound(f"No more than the output cap is reserved for {candidate!r}.")
            entry = self._entry("overrun.reset", candidate, {"percent": percent}, None)
            self._table.reset_overrun(candidate, percent, entry)

        self._until_current(change)

    def admin_is_added(self, email: str) -> None:
        """Leaves its entry: Cognito, where that happens, keeps none."""
        entry = self._entry("admin.add", email, None, {"group": ADMINS})
        self._table.commit([], [entry])

    def admin_is_removed(self, email: str) -> None:
        entry = self._entry("admin.remove", email, {"group": ADMINS}, None)
        self._table.commit([], [entry])

    def update_tenant(
        self, tenant: TenantDocument, unset: Mapping[str, Collection[str]] | None = None
    ) -> Document:
        """`unset` are limits that are lifted: {"limits": names}."""
        told = tenant.stored()

        def change() -> None:
            before = self._read(items.TENANT)
            limits = merged_limits(before.document, told, "limits", unset)
            document = {**before.document, **told, "limits": limits}
            document = {name: value for name, value in document.items() if value != {}}
            self._commit([Touched(items.TENANT, before, document, "tenant.update", "tenant")])

        self._until_current(change)
        return self.tenant()

    def _write_switch(
        self, key: Key, before: Record, off: bool, reason: str, kind: str, target: str
    ) -> None:
        document = self._switched(before.document, off, reason)
        action = f"{kind}.kill" if off else f"{kind}.revive"
        self._commit([Touched(key, before, document, action, target)])
