"""What is revoked of users: a token, a session, or all tokens issued until now."""

from weir.aws import revoking
from weir.aws.operator.records import Records
from weir.revocation import Revocation

_ACTIONS = {"token": "token.revoke", "session": "session.revoke", "user": "user.sign-out"}


class Revocations(Records):
    def revoke(self, pid: str, what: Revocation) -> None:
        """Refuse it from the next request on. The user may get new tokens, unless they are blocked.

        Raises NotFound for a project that is not there, Conflict if the user has no room for it.
        """
        self._project(pid)
        now = self._now()
        named = {"session_id": what.session_id, "jti": what.jti, "at": now}
        after = {name: value for name, value in named.items() if value is not None}
        entry = self._entry(_ACTIONS[what.kind], f"{pid}/{what.user_id}", None, after)
        revoking.revoke(self._table, pid, what, now, [entry])
