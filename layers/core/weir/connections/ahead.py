"""A connection that is made ready while something else is waited for."""

import threading

from weir.connections.http1 import Connection

# For a thread that has been interrupted. Only a look-up of a name may take longer.
STOP_S = 0.05


class Ahead:
    """Dials, speaks TLS or probes in a thread of its own, from now on. It asks for nothing: what it
    leaves is a connection that has not been used.
    """

    def __init__(self, connection: Connection) -> None:
        """Nobody else may use `connection` until `result` or `stop` has returned."""
        self._connection = connection
        self._is_kept = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> bool:
        """Wait, and return or raise as `Connection.make_ready` does."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._is_kept

    def stop(self) -> bool:
        """End it where it is; a connection that is ready stays. Return False if the thread may
        still use the connection, so that no other may.
        """
        if self._thread.is_alive():
            self._connection.interrupt()
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                return False
            self._connection.recover()
        return True

    def _run(self) -> None:
        try:
            self._is_kept = self._connection.make_ready()
        except Exception as failure:
            self._failure = failure
