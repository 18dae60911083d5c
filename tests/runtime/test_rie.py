"""The runtime against AWS's own emulator of the Runtime API."""

import json
import textwrap
from pathlib import Path

from tests.runtime.rie import Rie

APP = """
    import json
    def ping(n):
        return pong(n - 1) if n else 1 / 0
    def pong(n):
        return ping(n - 1) if n else 1 / 0
    def handler(event, context):
        if event.get("raise") == "first":
            raise ValueError("before")
        def rest():
            yield json.dumps(len(event.get("pad", ""))).encode()
            yield "é".encode()
            if event.get("raise") == "later":
                ping(60)
        return 201, {"x-a": "1", "set-cookie": ["a=1", "b=2"]}, b"first ", rest()
"""


def task(folder: Path, source: str = APP) -> Path:
    (folder / "app.py").write_text(textwrap.dedent(source))
    return folder


def test_emulator_gets_prelude_delimiter_and_body_raw(rie_binary: Path, tmp_path: Path) -> None:
    with Rie(rie_binary, task(tmp_path)) as rie:
        prelude, body = rie.invoke({}).split(b"\0" * 8, 1)
    assert json.loads(prelude) == {
        "statusCode": 201,
        "headers": {"x-a": "1"},
        "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]},
    }
    assert body == "first 0é".encode()


def test_large_event_and_failures_are_survived(rie_binary: Path, tmp_path: Path) -> None:
    with Rie(rie_binary, task(tmp_path)) as rie:
        assert rie.invoke({"pad": "x" * 5_900_000}).endswith("first 5900000é".encode())
        assert json.loads(rie.invoke({"raise": "first"}))["errorType"] == "ValueError"
        # Trailers longer than Go's read buffer would make the emulator panic here.
        assert rie.invoke({"raise": "later"}).endswith("first 0é".encode())
        assert rie.invoke({}).endswith("first 0é".encode())
        assert rie.log.count("INIT START") == 1, "one process served all of them"


def test_init_error_reaches_the_caller_with_its_type(rie_binary: Path, tmp_path: Path) -> None:
    with Rie(rie_binary, task(tmp_path, "import nowhere_to_be_found")) as rie:
        status, body = rie.request({})
    assert status == 502
    assert json.loads(body)["errorType"] == "Runtime.ImportModuleError"
