"""The configuration as a request sees it: read in one round trip, kept for a few seconds.

A change by an operator counts within CACHED_FOR_S on every process. Whether a user is blocked, and
which of their tokens are revoked, is never kept: it is read with each request, in the same round
trip as whatever else is due.
"""

import logging

from weir.aws import items
from weir.aws.items import Key, Record
from weir.aws.table import Table
from weir.errors import Killed, Unauthenticated
from weir.freshness import Clock, is_due
from weir.identity.tokens import Claims
from weir.projects.catalogue import Catalogue
from weir.projects.limits import Limits, Pool
from weir.projects.project import Project
from weir.projects.snapshot import Shared, Snapshot
from weir.revocation import Revocations
from weir.web.origins import Origins

log = logging.getLogger(__name__)

CACHED_FOR_S = 5
MOST_PROJECTS = 100  # kept by one process

_SHARED = [items.TENANT, items.CATALOGUE, items.ORIGINS, items.OVERRUNS]
_NEVER = (float("-inf"), 0, None)


class Snapshots:
    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._shared = Shared(False, Pool(Limits()), Origins(), Catalogue({}))
        self._catalogue_version = 0
        self._shared_at = float("-inf")
        self._projects: dict[str, tuple[float, int, Project | None]] = {}

    def of_caller(self, claims: Claims) -> Snapshot:
        """For a request with these claims; raises also if its token has been revoked."""
        snapshot = self.of(claims.pid, claims.uid, client_id=claims.client_id)
        snapshot.revocations.judge(claims.issued)
        return snapshot

    def of_token(self, claims: Claims) -> Snapshot:
        """The same, but its user is not looked at: the ledger does that when it admits."""
        return self.of(claims.pid, client_id=claims.client_id)

    def of(self, pid: str, uid: str | None = None, *, client_id: str | None = None) -> Snapshot:
        """For a request of this project, by this user, whom no operator has blocked, with a token
        that the API key `client_id` has made. Raises Unauthenticated for a project that is not
        there or suspended and for a revoked key, Killed for what an operator has switched off.
        """
        now = self._clock()
        keys = []
        if uid is not None:
            keys.append(items.subject(pid, items.user(uid)))
        if is_due(self._shared_at, CACHED_FOR_S, now):
            keys += _SHARED
        if is_due(self._projects.get(pid, _NEVER)[0], CACHED_FOR_S, now):
            keys.append(items.project(pid))
        found = dict(zip(keys, self._table.records(keys), strict=True)) if keys else {}
        if items.TENANT in found:
            self._keep_shared(found, now)
        if items.project(pid) in found:
            self._keep_project(pid, found[items.project(pid)], now)
        _, _, project = self._projects[pid]
        if project is None:
            raise Unauthenticated(f"There is no project {pid!r}.", reason="unknown_project")
        project.require_open()
        project.require_live_key(client_id)
        if self._shared.killed:
            raise Killed("tenant")
        if uid is None:
            return Snapshot(project, self._shared)
        revocations = Revocations(found[keys[0]].document)
        revocations.judge(None)
        return Snapshot(project, self._shared, revocations)

    def forget(self, pid: str) -> None:
        """What is known is older than what somebody has counted by: the next request reads anew
        what the project and the deployment may.
        """
        self._shared_at = float("-inf")
        if pid in self._projects:
            _, version, project = self._projects[pid]
            self._projects[pid] = (float("-inf"), version, project)

    def readable_by(self) -> Origins:
        """Pages that may read an answer whose caller is not believed (yet): those of any project.
        Never fails: if they cannot be read, what was last known, and at first no page.
        """
        now = self._clock()
        if is_due(self._shared_at, CACHED_FOR_S, now):
            try:
                self._keep_shared(
                    dict(zip(_SHARED, self._table.records(_SHARED), strict=True)), now
                )
            except Exception:
                log.exception("the configuration cannot be read")
        return self._shared.origins

    def _keep_shared(self, found: dict[Key, Record], now: float) -> None:
        self._shared = self._renewed(*(found[key] for key in _SHARED))
        self._shared_at = now

    def _keep_project(self, pid: str, record: Record, now: float) -> None:
        _, version, project = self._projects.pop(pid, (now, -1, None))
        if record.version != version:
            project = Project.from_document(pid, record.document) if record.version else None
        if len(self._projects) >= MOST_PROJECTS:
            del self._projects[next(iter(self._projects))]
        self._projects[pid] = (now, record.version, project)

    def _renewed(
        self, tenant: Record, catalogue: Record, origins: Record, overruns: Record
    ) -> Shared:
        return Shared(
            tenant.document.get("killed") is not None,
            Pool(
                Limits().overridden(tenant.document.get("limits", {})),
                tenant.document.get("ledger_shards", 1),
                tenant.document.get("ledger_generation", 0),
            ),
            Origins.from_document(origins.document),
            self._catalogue(catalogue),
            overruns.document,
        )

    def _catalogue(self, record: Record) -> Catalogue | None:
        """Parse it only when it has changed: a long one takes a millisecond."""
        if record.version == self._catalogue_version:
            return self._shared.catalogue
        try:
            catalogue: Catalogue | None = Catalogue(record.document)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.exception("the catalogue cannot be read")
            catalogue = None
        self._catalogue_version = record.version
        return catalogue
