"""Binds a request to its project's origins, and notes the pages that were refused, for `weir cors
refused`.
"""

import logging

from weir.aws.table import Table
from weir.errors import OriginNotAllowed
from weir.freshness import is_due
from weir.projects.project import Project
from weir.web.request import Request

NOTED_EVERY_S = 5  # at most, by one process: whoever floods us does not thereby write

log = logging.getLogger(__name__)


class RefusedOrigins:
    def __init__(self, table: Table) -> None:
        self._table = table
        self._noted_at = float("-inf")

    def check(self, request: Request, project: Project, now: int) -> None:
        """Raises OriginNotAllowed for a page that the project does not list; no Origin at all is a
        server. `now` is Unix seconds.
        """
        try:
            request.require_origin(project.origins)
        except OriginNotAllowed:
            self._note(project.pid, request.origin or "", now)
            raise

    def _note(self, pid: str, origin: str, now: int) -> None:
        if not is_due(self._noted_at, NOTED_EVERY_S, now):
            return
        self._noted_at = now
        try:
            self._table.remember_refused_origin(pid, origin, now)
        except Exception:  # a note only: the request is refused all the same
            log.exception("a refused origin was not noted")
