"""The running stack's store from outside: its ledger's books, and a proxy before it.

The proxy stands between the chat function's processes and the embedded AWS's DynamoDB. It sees
every call, and can lose it, let another be in the way, or let something happen around it.
"""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.stack.conftest import ROOT, Stack, start

# The runner asks local.functions how a process is started. Its processes get no environment of
# ours, and no endpoint but the embedded AWS's: so this is told where the runner itself starts.
_AT_START = """
import sys
sys.path.append({root!r})
from local import functions
as_it_is = functions.program
def behind_a_proxy(function, *more):
    program = as_it_is(function, *more)
    if function.logical_id == "ChatFunction":
        program.env["AWS_ENDPOINT_URL_DYNAMODB"] = {url!r}
    return program
functions.program = behind_a_proxy
"""

Happening = Callable[[], None]


@dataclass
class Call:
    """One call of the chat function. Times are of time.monotonic."""

    operation: str
    asked: dict[str, Any]
    came_at: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> str:
        """`admit`, `settle`, or the operation's name."""
        for part in self.asked.get("TransactItems", ()):
            for verb, told in part.items():
                key = told.get("Item") or told.get("Key") or {}
                if key.get("pk", {}).get("S", "").startswith("OPEN#"):
                    return {"Put": "admit", "Delete": "settle"}[verb]
        return self.operation


class StoreProxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.target = ""
        self.calls: list[Call] = []
        self.busy = 0  # calls that are under way
        self.in_the_way = False  # another transaction, of half of those of a process
        self._conflicts: set[str] = set()
        self._before: dict[str, Callable[[], bool]] = {}
        self._after: dict[str, Happening] = {}
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A process that is killed hangs up."""

    def before(self, kind: str, happens: Happening, *, lost: bool = False) -> None:
        """Once, before the next call of this kind goes on. `lost`: it never does."""

        def then() -> bool:
            happens()
            return not lost

        self._before[kind] = then

    def after(self, kind: str, happens: Happening) -> None:
        """Once, when the next call of this kind has been carried out and is not yet answered."""
        self._after[kind] = happens

    def forget(self) -> None:
        """What was to happen before or after a call and has not."""
        self._before.clear()
        self._after.clear()

    def conflict(self, kind: str) -> None:
        """Once: another transaction is in the way of the next one of this kind."""
        self._conflicts.add(kind)

    def is_in_the_way(self, call: Call, number: int) -> bool:
        """`number` counts the transactions of a process."""
        if call.kind in self._conflicts:
            self._conflicts.remove(call.kind)
            return True
        return self.in_the_way and number % 4 < 2  # not every other one: what comes in turns passes

    def passes(self, call: Call) -> bool:
        return self._before.pop(call.kind, lambda: True)()

    def has_passed(self, call: Call) -> None:
        self._after.pop(call.kind, lambda: None)()

    def quiet(self) -> None:
        """On return no call is under way: what a process sent before it died has arrived, too."""
        give_up = time.monotonic() + 10
        while self.busy:
            assert time.monotonic() < give_up, "a call to the store does not end"
            time.sleep(0.005)

    def kinds(self) -> list[str]:
        return [call.kind for call in self.calls]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StoreProxy
    transactions = 0

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = Call(self.headers["X-Amz-Target"].rpartition(".")[2], json.loads(body))
        self.server.calls.append(call)
        self.server.busy += 1
        try:
            self._answer(call, body)
        finally:
            self.server.busy -= 1

    def _answer(self, call: Call, body: bytes) -> None:
        if not self.server.passes(call):
            self.close_connection = True
            return
        status, answer = self._conflict(call) or self._carried_out(body)
        self.server.has_passed(call)
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _conflict(self, call: Call) -> tuple[int, bytes] | None:
        """AWS: DynamoDB API Reference, TransactWriteItems, cancellation reasons."""
        if call.operation != "TransactWriteItems":
            return None
        self.transactions += self.server.in_the_way
        if not self.server.is_in_the_way(call, self.transactions):
            return None
        reasons = [{"Code": "None"} for _ in call.asked["TransactItems"]]
        reasons[-1] = {"Code": "TransactionConflict"}
        name = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException"
        return 400, json.dumps({"__type": name, "CancellationReasons": reasons}).encode()

    def _carried_out(self, body: bytes) -> tuple[int, bytes]:
        far = http.client.HTTPConnection(self.server.target, timeout=30)
        with contextlib.closing(far):
            far.request("POST", "/", body, dict(self.headers))
            answer = far.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def start_behind(proxy: StoreProxy, directory: Path, provider_url: str) -> Iterator[Stack]:
    """A running stack with its limits, whose chat function's store is behind `proxy`."""
    settings = {
        "UPSTREAM_BASE_URL": provider_url,
        "UPSTREAM_MODEL": "fake-large",
        "UPSTREAM_API_KEY": "provider-secret-key",
        "UPSTREAM_PRICE_INPUT": "1",
        "UPSTREAM_PRICE_OUTPUT": "2",
        "WEIR_PARAM_MaxStreamSeconds": "10",
    }
    hooks = directory / "at-start"
    hooks.mkdir()
    told = _AT_START.format(root=str(ROOT), url=proxy.url)
    (hooks / "sitecustomize.py").write_text(told)
    stack_directory = directory / "stack"
    with start(stack_directory, limited=True, PYTHONPATH=str(hooks), **settings) as stack:
        proxy.target = urlsplit(stack.env["COGNITO_ENDPOINT"]).netloc
        yield stack


# ---------------------------------------------------------------- the function's processes


def chat_processes(stack: Stack) -> list[int]:
    """Their ids. A process is told by its environment, which names this stack's own folder."""
    image = f"LAMBDA_RUNTIME_DIR={stack.directory.resolve() / 'image'}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            told = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if image in told and any(
                each.startswith(b"LAMBDA_TASK_ROOT=") and each.endswith(b"/functions/chat")
                for each in told
            ):
                found.append(int(entry.name))
    return found


def kill_chat(stack: Stack) -> None:
    """kill -9, and on return they are gone."""
    killed = chat_processes(stack)
    assert killed, "the chat function has no process"
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + 5
    while set(killed) & set(chat_processes(stack)):
        assert time.monotonic() < give_up, "kill -9 did not end it"
        time.sleep(0.005)


# ---------------------------------------------------------------- the books


_tables: dict[str, tuple[Any, str]] = {}  # by endpoint: making a client takes longer than its calls


def table(stack: Stack) -> tuple[Any, str]:
    """A client as the embedded AWS's root, and the table's name."""
    endpoint = stack.env["COGNITO_ENDPOINT"]
    if endpoint not in _tables:
        _tables[endpoint] = stack.aws("dynamodb"), stack.outputs()["TableName"]
    return _tables[endpoint]


def _is_the_ledgers(item: dict[str, Any]) -> bool:
    return str(item["pk"]["S"]).startswith(("LEDGER#", "OPEN#", "USAGE#"))


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, typed in item.items():
        ((kind, value),) = typed.items()
        plain[name] = int(value) if kind == "N" else set(value) if kind == "SS" else value
    return plain


class Books:
    """All of the ledger as it lies in the table at one moment."""

    def __init__(self, stack: Stack) -> None:
        self.items: list[dict[str, Any]] = []
        client, name = table(stack)
        for page in client.get_paginator("scan").paginate(TableName=name, ConsistentRead=True):
            self.items += [_plain(item) for item in page["Items"] if _is_the_ledgers(item)]

    def of(self, prefix: str, sk: str = "") -> list[dict[str, Any]]:
        found = [i for i in self.items if i["pk"].startswith(prefix) and i["sk"].startswith(sk)]
        return sorted(found, key=lambda item: (item["pk"], item["sk"]))

    def rows(self, pid: str, uid: str) -> list[dict[str, Any]]:
        return [row for row in self.of("USAGE#") if row["pk"] == f"USAGE#{pid}#u#{uid}"]

    def row(self, pid: str, uid: str) -> dict[str, Any]:
        (row,) = self.rows(pid, uid)
        return row

    def reservations(self, pid: str) -> list[dict[str, Any]]:
        told = [json.loads(item["doc"]) for item in self.of("OPEN#") if "doc" in item]
        return [each for each in told if each["pid"] == pid]

    def counter(self, pid: str, uid: str, name: str) -> int:
        """Of this month; `q` and `t` are this day's requests and tokens."""
        if name in ("q", "t"):
            name = f"d{time.gmtime().tm_mday:02d}{name}"
        month = time.strftime("MONTH#%Y%m", time.gmtime())
        found = [i for i in self.of("LEDGER#", month) if i["pk"] == f"LEDGER#{pid}#u#{uid}"]
        return sum(item.get(name, 0) for item in found)

    def open_ids(self, pid: str, uid: str) -> set[str]:
        found = [i for i in self.of("LEDGER#", "NOW") if i["pk"] == f"LEDGER#{pid}#u#{uid}"]
        return set().union(*(item.get("open", set()) for item in found))

    def unbalanced(self) -> list[str]:
        """What is not as it must be when nothing runs: nothing is held, and every counter of a
        month or a day is what the usage rows of its user, its project or the deployment add up to.
        """
        wrong = [f"held: {item}" for item in self.of("OPEN#")]
        streams: Counter[str] = Counter()
        for item in self.of("LEDGER#", "NOW"):
            wrong += [f"{n} in {item}" for n in ("open", "cancelled") if n in item]
            streams[_owner(item["pk"])] += item.get("streams", 0)
        wrong += [f"{count} streams of {owner}" for owner, count in streams.items() if count]

        spent: Counter[tuple[str, str, str]] = Counter()
        for row in self.of("USAGE#"):
            at = time.gmtime(row["at_ms"] / 1000)
            tokens = row["input_tokens"] + row["output_tokens"]
            pid = row["pid"]
            for owner in (f"LEDGER#{pid}#{row['subject']}", f"LEDGER#{pid}#", "LEDGER##"):
                month = owner, time.strftime("MONTH#%Y%m", at)
                spent[(*month, "nano_usd")] += row["nano_usd"]
                spent[(*month, "tokens")] += tokens
                spent[(*month, f"d{at.tm_mday:02d}t")] += tokens
        used: Counter[tuple[str, str, str]] = Counter()
        for item in self.of("LEDGER#", "MONTH#"):
            for name in item.keys() - {"pk", "sk", "ttl", "g"}:
                if not name.endswith("q"):
                    used[_owner(item["pk"]), item["sk"], name] += item[name]
        for place, count in used.items():
            if count != spent[place]:
                wrong.append(f"{place}: {count}, and the rows say {spent[place]}")
        return wrong


def _owner(pk: str) -> str:
    """All shards of a pool have one."""
    _, pid, part = pk.split("#", 2)
    return f"LEDGER#{pid}#" if part.isdigit() else pk


def balanced(stack: Stack, within_s: float = 5.0) -> Books:
    """The books, once nothing is held any more and they balance."""
    give_up = time.monotonic() + within_s
    while wrong := (books := Books(stack)).unbalanced():
        assert time.monotonic() < give_up, "\n".join(wrong)
        time.sleep(0.05)
    return books
