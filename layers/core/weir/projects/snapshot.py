"""The configuration that one request is judged by: its project, and what all projects share. Read
and kept by `weir/aws/snapshots.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from weir.projects.catalogue import Catalogue
from weir.projects.limits import Limits, Pool
from weir.projects.project import Project
from weir.revocation import NOTHING_REVOKED, Revocations
from weir.web.origins import Origins


@dataclass(frozen=True, slots=True)
class Shared:
    """What all projects have in common. `origins` is the union over them; `catalogue` is None if
    the stored one cannot be read. `overruns`: weir/ledger/costs.py, by the name of a candidate.
    """

    killed: bool
    pool: Pool
    origins: Origins
    catalogue: Catalogue | None
    overruns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`revocations` are those of the user, if one was named. `own_limits` are those of a caller for
    whom no tier speaks, a customer; of these `counted` are counted, limited or not.
    """

    project: Project
    shared: Shared
    revocations: Revocations = NOTHING_REVOKED
    own_limits: Limits | None = None
    counted: frozenset[str] = frozenset()

    @property
    def catalogue(self) -> Catalogue:
        """Raises ValueError if it cannot be read: then no model answers, but mint still does."""
        if self.shared.catalogue is None:
            raise ValueError("the catalogue cannot be read")
        return self.shared.catalogue

    @property
    def overruns(self) -> Mapping[str, int]:
        return self.shared.overruns

    @property
    def tenant_pool(self) -> Pool:
        return self.shared.pool

    def limits_of(self, tier: object) -> Limits:
        """Return the limits of the one caller."""
        return self.project.limits_of(tier) if self.own_limits is None else self.own_limits

    @property
    def limited_fields(self) -> frozenset[str]:
        """Return the names of the limits by which callers of this kind are counted."""
        return self.project.limited_fields if self.own_limits is None else self.counted

    def limits(self, tier: object) -> tuple[Limits, Limits, Limits]:
        """Return the limits of the user, the project and the deployment."""
        return self.limits_of(tier), self.project.limits, self.shared.pool.limits

    def most_output_tokens(self, tier: object) -> int | None:
        """Return the most that one request may ask for: the least of what user, project and
        deployment allow. None: no limit.
        """
        return min(
            (n.max_output_tokens for n in self.limits(tier) if n.max_output_tokens is not None),
            default=None,
        )
