"""The configuration as a request sees it: read in one round trip, kept for a few seconds.

A change by an operator counts within CACHED_FOR_S on every process. Whether a user is blocked is
never kept: it is read with each request, in the same round trip as whatever else is due.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weir.aws import items
from weir.aws.clients import AWS_ERRORS
from weir.aws.items import Record
from weir.aws.table import Table
from weir.catalogue import Catalogue
from weir.errors import Killed, Unauthenticated
from weir.origins import Origins
from weir.projects import Project

CACHED_FOR_S = 5
MOST_PROJECTS = 100  # kept by one process


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`origins` is the union over all projects; the project has its own list."""

    project: Project
    catalogue: Catalogue
    origins: Origins


class Snapshots:
    def __init__(self, table: Table, monotonic: Callable[[], float]) -> None:
        self._table = table
        self._monotonic = monotonic
        self._shared = _Shared()
        self._shared_at = float("-inf")
        self._projects: dict[str, tuple[float, int, Project | None]] = {}

    def of(self, pid: str, uid: str | None = None) -> Snapshot:
        """For a request of this project, by this user. Raises Unauthenticated for a project that
        is not there or suspended, Killed for what an operator has switched off.
        """
        now = self._monotonic()
        keys = []
        if uid is not None:
            keys.append(items.subject(pid, items.user(uid)))
        if now - self._shared_at >= CACHED_FOR_S:
            keys += [items.TENANT, items.CATALOGUE, items.ORIGINS]
        if now - self._read_at(pid) >= CACHED_FOR_S:
            keys.append(items.project(pid))
        found = dict(zip(keys, self._table.records(keys), strict=True)) if keys else {}
        if items.TENANT in found:
            self._keep_shared(found, now)
        if items.project(pid) in found:
            self._keep_project(pid, found[items.project(pid)], now)
        _, _, project = self._projects[pid]
        if project is None:
            raise Unauthenticated("The token belongs to another project.", reason="bad_pid")
        project.require_open()
        if self._shared.killed:
            raise Killed("tenant")
        if uid is not None and found[keys[0]].version:
            raise Killed("user")
        return Snapshot(project, self._shared.catalogue, self._shared.origins)

    def readable_by(self) -> Origins:
        """Pages that may read an answer whose caller is not believed (yet): those of any project.
        None, if the table cannot be read.
        """
        now = self._monotonic()
        try:
            if now - self._shared_at >= CACHED_FOR_S:
                keys = [items.TENANT, items.CATALOGUE, items.ORIGINS]
                self._keep_shared(dict(zip(keys, self._table.records(keys), strict=True)), now)
        except AWS_ERRORS:
            return Origins()
        return self._shared.origins

    def _read_at(self, pid: str) -> float:
        return self._projects[pid][0] if pid in self._projects else float("-inf")

    def _keep_shared(self, found: dict[items.Key, Record], now: float) -> None:
        self._shared = self._shared.renewed(
            found[items.TENANT].document, found[items.CATALOGUE], found[items.ORIGINS].document
        )
        self._shared_at = now

    def _keep_project(self, pid: str, record: Record, now: float) -> None:
        _, version, project = self._projects.pop(pid, (now, -1, None))
        if record.version != version:
            project = Project.from_document(pid, record.document) if record.version else None
        if len(self._projects) >= MOST_PROJECTS:
            del self._projects[next(iter(self._projects))]
        self._projects[pid] = (now, record.version, project)


class _Shared:
    """What all projects have in common."""

    def __init__(self) -> None:
        self.killed = False
        self.catalogue = Catalogue({})
        self.catalogue_version = 0
        self.origins = Origins()

    def renewed(
        self, tenant: dict[str, Any], catalogue: Record, origins: dict[str, Any]
    ) -> "_Shared":
        new = _Shared()
        new.killed = tenant.get("killed") is not None
        new.origins = Origins.from_document(origins)
        # Reading a long catalogue takes a millisecond: only when it has changed.
        unchanged = catalogue.version == self.catalogue_version
        new.catalogue = self.catalogue if unchanged else Catalogue(catalogue.document)
        new.catalogue_version = catalogue.version
        return new
