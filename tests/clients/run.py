"""Runs published Python clients, in the environment that has them (tests/clients/newest, older).

    python -m tests.clients.run < {"tasks": [...]}

A task with a `scenario` is one for stream.py, others are for use.py. Prints what they return, as
one JSON object a line.
"""

import json
import logging
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.clients.stream import stream
from tests.clients.use import prepare, use

AT_ONCE = 8


def _run(task: dict[str, Any]) -> dict[str, Any]:
    return stream(task) if "scenario" in task else use(task)


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    # What a client prints is no result: LiteLLM does so when it fails.
    results, sys.stdout = sys.stdout, sys.stderr
    tasks = json.load(sys.stdin)["tasks"]
    prepare({task["client"] for task in tasks})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for shown in pool.map(_run, tasks):
            results.write(json.dumps(shown) + "\n")
    results.flush()
    os._exit(0)  # some clients leave threads behind that would keep the process for a while


if __name__ == "__main__":
    main()
