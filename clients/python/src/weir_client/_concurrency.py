"""Name the parts that differ between the two clients, so that one is generated from the other."""

from __future__ import annotations

import contextlib
import threading
import time

import anyio

AsyncLock = anyio.Lock
Lock = threading.Lock
async_sleep = anyio.sleep
sleep = time.sleep


def async_shield() -> anyio.CancelScope:
    """Return a scope that runs to its end although its task is being cancelled."""
    return anyio.CancelScope(shield=True)


def shield() -> contextlib.AbstractContextManager[None]:
    """Return a scope that does nothing: threads are not cancelled."""
    return contextlib.nullcontext()
