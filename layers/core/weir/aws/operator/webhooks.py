"""Webhook endpoints of a project: what its own servers may do under /v1/webhook_endpoints."""

from weir.aws.operator.projects import Projects
from weir.aws.webhooks.endpoints import Endpoints


class Webhooks(Projects):
    def webhooks(self, pid: str) -> Endpoints:
        """Return what there is to do with them, each change with its entry in the audit trail.
        Raise NotFound if there is no such project.
        """
        self._project(pid)
        if self._sealer is None:
            raise ValueError("an operator without a sealer cannot change webhooks")
        return Endpoints(self._table, self._sealer, pid, actor=self._actor, clock=self._clock)
