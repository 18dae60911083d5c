"""Weir on one machine: the real template, the real functions, an embedded AWS and a small real
model.

`python3 -m local` is what `make run` starts. Nothing here decides what a request means: this
package installs, starts, connects and ends processes, and turns HTTP into Lambda events and back as
API Gateway would.
"""


class CannotRun(Exception):
    """One sentence for the person at the terminal; the only kind of failure that is shown without a
    traceback.
    """
