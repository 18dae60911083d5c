"""The runtime against a scripted Runtime API: what goes over the wire, byte by byte."""

import base64
import json
import os
import shutil
import socket
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import pytest

import stream_runtime
from tests.runtime.scripted import WRAPPER, Invocation, play

SIMPLE = """
    def handler(event, context):
        return 200, {"content-type": "text/plain"}, b"first", iter([b"second"])
"""

#: Writes to a file next to it when its generator is closed, once for each time.
CLOSING = """
    import pathlib, time
    closed = pathlib.Path(__file__).with_name("closed")
    class Rest:
        def __init__(self, pieces): self.pieces = iter(pieces)
        def __iter__(self): return self
        def __next__(self): return next(self.pieces)
        def close(self):
            with closed.open("a") as file: file.write("x")
    def forever():
        while True:
            time.sleep(0.02)
            yield b"more"
    def failing():
        yield b"one"
        raise LookupError("half-way")
    def handler(event, context):
        status, kind = event.get("status", 200), event.get("kind")
        rest = forever() if kind == "forever" else failing() if kind == "failing" else iter([b"x"])
        return status, {}, b"first", Rest(rest)
"""


def times_closed(task: Path) -> int:
    marks = task / "closed"
    return len(marks.read_text()) if marks.exists() else 0


# --- the response ---------------------------------------------------------------------------------


def test_request_head_is_what_streaming_asks_for(tmp_path: Path) -> None:
    sent = play(tmp_path, SIMPLE, Invocation(request_id="id-7")).response("id-7")
    assert sent.raw.startswith(
        b"POST /2018-06-01/runtime/invocation/id-7/response HTTP/1.1\r\nHost: 127.0.0.1:"
    )
    assert {name: value for name, value in sent.headers.items() if name != "host"} == {
        "connection": "close",
        "lambda-runtime-function-response-mode": "streaming",
        "content-type": "application/vnd.awslambda.http-integration-response",
        "transfer-encoding": "chunked",
        "trailer": "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
    }


def test_head_prelude_delimiter_and_first_chunk_leave_in_one_write(tmp_path: Path) -> None:
    source = """
        import time
        def rest():
            time.sleep(0.1)
            yield b"second"
        def handler(event, context):
            return 200, {"content-type": "text/plain"}, b"first", rest()
    """
    sent = play(tmp_path, source, Invocation()).response()
    opening = b'{"statusCode":200,"headers":{"content-type":"text/plain"}}\0\0\0\0\0\0\0\0first'
    framed = b"%x\r\n%b\r\n" % (len(opening), opening)
    assert sent.arrivals[0][1].partition(b"\r\n\r\n")[2] == framed
    assert sent.body == framed + b"6\r\nsecond\r\n0\r\n\r\n"


def test_chunks_arrive_spaced_like_the_yields(tmp_path: Path) -> None:
    source = """
        import time
        def rest():
            for n in range(6):
                time.sleep(0.06)
                yield b"chunk %d" % n
        def handler(event, context):
            return 200, {}, b"", rest()
    """
    arrivals = play(tmp_path, source, Invocation()).response().arrivals
    pieces = [data.removesuffix(b"0\r\n\r\n") for _, data in arrivals[1:7]]
    assert pieces == [b"7\r\nchunk %d\r\n" % n for n in range(6)]
    times = [when for when, _ in arrivals[:7]]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    # Above half a sleep: nothing was held back and sent with its successor (Nagle, buffers).
    assert min(gaps) > 0.03, gaps


def test_small_chunks_are_not_held_back_by_nagle() -> None:
    # On loopback the acknowledgements come too soon for the delay to be seen in any gap.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = stream_runtime.RuntimeApi(f"127.0.0.1:{listener.getsockname()[1]}")
        with api.connect() as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_two_cookies_keep_their_own_header_values(tmp_path: Path) -> None:
    source = """
        def handler(event, context):
            return 200, {"a": "b", "set-cookie": ["x=1; Path=/", "y=2"]}, b"", iter(())
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert sent.prelude == {
        "statusCode": 200,
        "headers": {"a": "b"},
        "multiValueHeaders": {"set-cookie": ["x=1; Path=/", "y=2"]},
    }


def test_nul_and_umlauts_in_a_header_cannot_end_the_prelude(tmp_path: Path) -> None:
    source = """
        def handler(event, context):
            return 200, {"x": "\\0" * 8 + "é"}, b"\\0body", iter(())
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert sent.prelude["headers"] == {"x": "\0" * 8 + "é"}
    assert sent.stream == b"\0body"


def test_empty_chunks_are_skipped_and_multibyte_ones_pass_unchanged(tmp_path: Path) -> None:
    source = """
        def handler(event, context):
            return 200, {}, b"", iter([b"", b"\\xc3", b"", b"\\xa9" + "🌊".encode()])
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert sent.stream.decode() == "é🌊"
    assert len(sent.chunks) == 3


def test_large_chunk_arrives_whole(tmp_path: Path) -> None:
    source = """
        def handler(event, context):
            return 200, {}, b"a" * 3_000_000, iter([bytes(range(256)) * 8000])
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert sent.stream == b"a" * 3_000_000 + bytes(range(256)) * 8000


@pytest.mark.parametrize(("over", "line"), [(0, "response"), (1, "error")])
def test_prelude_and_delimiter_may_fill_16_kb_and_no_more(
    tmp_path: Path, over: int, line: str
) -> None:
    empty = len('{"statusCode":200,"headers":{"x":""}}') + 8
    source = f"""
        def handler(event, context):
            return 200, {{"x": "a" * {16384 - empty + over}}}, b"first", iter(())
    """
    played = play(tmp_path, source, Invocation())
    assert played.lines[1] == f"POST /invocation/request-1/{line}"
    if line == "response":
        assert played.response().chunks[0].index(b"\0" * 8) + 8 == 16384


# --- failures -------------------------------------------------------------------------------------


def test_failure_before_the_response_is_posted_as_error_and_the_next_is_served(
    tmp_path: Path,
) -> None:
    source = """
        class Poor(Exception): pass
        def handler(event, context):
            if event: raise Poor("no\\nmoney")
            return 200, {}, b"ok", iter(())
    """
    script = [Invocation(b'{"a":1}', "r1"), Invocation(b"{}", "r2")]
    played = play(tmp_path, source, *script)
    error = played.error("r1")
    assert error.headers["lambda-runtime-function-error-type"] == "Function.Poor"
    told = error.json
    assert (told["errorType"], told["errorMessage"], told["requestId"]) == (
        "Poor",
        "no\nmoney",
        "r1",
    )
    assert "app.py" in told["stackTrace"][0]
    assert not any("stream_runtime.py" in frame for frame in told["stackTrace"])
    cause = json.loads(error.headers["lambda-runtime-function-xray-error-cause"])
    assert cause["exceptions"][0]["message"] == "no\nmoney"
    assert cause["exceptions"][0]["stack"][0]["label"] == "handler"
    assert cause["paths"] == [str(tmp_path / "app.py")]
    assert cause["working_directory"] == str(tmp_path)
    assert played.response("r2").stream == b"ok"


@pytest.mark.parametrize(
    "returned",
    [
        "{'statusCode': 200, 'body': 'plain proxy answer'}",
        "None",
        "(200, {}, b'')",
        "(200, {}, 'text', iter(()))",
        "(200, {}, b'', [b'a list'])",
        "(200, {}, b'', b'bytes')",
        "('200', {}, b'', iter(()))",
        "(True, {}, b'', iter(()))",
        "(99, {}, b'', iter(()))",
        "(200, {'x': 1}, b'', iter(()))",
        "(200, {'x': ['a', 1]}, b'', iter(()))",
        "(200, {1: 'x'}, b'', iter(()))",
        "(200, None, b'', iter(()))",
    ],
)
def test_anything_but_the_contract_is_an_error_before_the_response(
    tmp_path: Path, returned: str
) -> None:
    source = f"""
        def handler(event, context):
            return {returned}
    """
    played = play(tmp_path, source, Invocation())
    assert played.error().json["errorType"] in ("TypeError", "AttributeError")
    assert played.lines[-1] == "GET /invocation/next"


def test_failure_mid_stream_is_told_in_the_trailers_and_logged(tmp_path: Path) -> None:
    script = [Invocation(b'{"kind":"failing"}', "r1"), Invocation(request_id="r2")]
    played = play(tmp_path, CLOSING, *script)
    sent = played.response("r1")
    assert sent.stream == b"firstone", "the trailer is not part of the body"
    assert sent.trailers["Lambda-Runtime-Function-Error-Type"] == "LookupError"
    told = json.loads(base64.b64decode(sent.trailers["Lambda-Runtime-Function-Error-Body"]))
    assert set(told) == {"errorType", "errorMessage", "stackTrace"}
    assert (told["errorType"], told["errorMessage"]) == ("LookupError", "half-way")
    assert "in failing" in told["stackTrace"][-1]
    [line] = [line for line in played.logs if line.get("errorType") == "LookupError"]
    assert line["requestId"] == "r1"
    assert "in failing" in line["stackTrace"][-1]
    assert "POST /invocation/r1/error" not in played.lines
    assert played.response("r2").trailers == {}


def test_trailers_fit_the_4_kb_that_the_runtime_api_reads(tmp_path: Path) -> None:
    source = """
        def rest():
            yield b"one"
            raise type("E" * 5000, (Exception,), {})("é" * 9000)
        def handler(event, context):
            return 200, {}, b"", rest()
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert len(sent.body.partition(b"0\r\n")[2]) < 4096
    told = json.loads(base64.b64decode(sent.trailers["Lambda-Runtime-Function-Error-Body"]))
    assert told["errorMessage"].startswith("éé")


def test_yielding_text_is_a_failure_mid_stream(tmp_path: Path) -> None:
    source = """
        def handler(event, context):
            return 200, {}, b"first", iter(["text"])
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert sent.trailers["Lambda-Runtime-Function-Error-Type"] == "TypeError"


def test_broken_connection_of_the_function_itself_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    source = """
        def rest():
            yield b"one"
            raise ConnectionResetError("the upstream went away")
        def handler(event, context):
            return 200, {}, b"first", rest()
    """
    sent = play(tmp_path, source, Invocation()).response()
    assert sent.trailers["Lambda-Runtime-Function-Error-Type"] == "ConnectionResetError"


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "leave", "status"),
    [
        ({}, "", 202),
        ({"kind": "failing"}, "", 202),
        ({"status": "wrong"}, "", 202),
        ({"kind": "forever"}, "answer", 410),
        ({"kind": "forever"}, "answer", 202),
        ({"kind": "forever"}, "answer", 400),
        ({"kind": "forever"}, "reset", 0),
    ],
)
def test_rest_is_closed_exactly_once_and_the_next_invocation_served(
    tmp_path: Path, event: dict[str, object], leave: str, status: int
) -> None:
    script = [
        Invocation(json.dumps(event).encode(), "r1", leave=leave, status=status or 202),
        Invocation(request_id="r2"),
    ]
    played = play(tmp_path, CLOSING, *script)
    assert played.response("r2").stream == b"firstx"
    assert times_closed(tmp_path) == 2, "once for each invocation"
    assert played.seconds < 3, "noticed at the next chunk, not at the end of the world"


@pytest.mark.parametrize("reader", ["deaf", "drip"])
@pytest.mark.parametrize("limit", ["the invocation's deadline", "the handler's own"])
def test_reader_that_does_not_read_is_waited_for_until_the_deadline_only(
    tmp_path: Path, reader: str, limit: str
) -> None:
    own = limit == "the handler's own"
    source = textwrap.dedent(CLOSING) + textwrap.dedent(f"""
        def torrent():
            while True: yield bytes(65536)
        def handler(event, context):
            if {own}: context.end_response_within(700)
            return 200, {{}}, b"first", Rest(torrent() if event else iter([b"x"]))
    """)
    deadline = {} if own else {"Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 3_000)}
    script = [
        Invocation(b'{"much": 1}', "r1", leave=reader, headers=deadline),
        Invocation(request_id="r2"),
    ]
    played = play(tmp_path, source, *script)
    assert played.response("r2").stream == b"firstx"
    assert times_closed(tmp_path) == 2, "once for each invocation"
    (told,) = [line for line in played.logs if line["level"] == "WARNING"]
    assert "has not read" in told["message"]


def test_deadline_does_not_cut_what_a_reader_takes(tmp_path: Path) -> None:
    source = """
        import time
        def rest():
            time.sleep(0.3)
            yield b"after the deadline"
        def handler(event, context):
            context.end_response_within(100)
            return 200, {}, b"first ", rest()
    """
    played = play(tmp_path, source, Invocation())
    assert played.response().stream == b"first after the deadline"


def test_failing_close_does_not_end_the_process(tmp_path: Path) -> None:
    source = """
        class Rest:
            def __iter__(self): return self
            def __next__(self): raise StopIteration
            def close(self): raise RuntimeError("stuck")
        def handler(event, context):
            return 200, {}, b"ok", Rest()
    """
    played = play(tmp_path, source, Invocation(request_id="r1"), Invocation(request_id="r2"))
    assert played.response("r1").stream == played.response("r2").stream == b"ok"
    assert [line["errorMessage"] for line in played.logs if "errorType" in line] == ["stuck"] * 2


# --- statuses and identity ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [410, 413, 400])
@pytest.mark.parametrize("event", [b"{}", b"not json"])
def test_refused_answer_is_logged_and_survived(tmp_path: Path, status: int, event: bytes) -> None:
    script = [Invocation(event, "r1", status=status), Invocation(request_id="r2")]
    played = play(tmp_path, SIMPLE, *script)
    assert played.response("r2").stream == b"firstsecond"
    assert any(str(status) in str(line["message"]) for line in played.logs)


def test_container_error_ends_the_process(tmp_path: Path) -> None:
    played = play(tmp_path, SIMPLE, Invocation(status=500), Invocation(request_id="r2"))
    assert played.exit_code == 1
    assert played.lines == ["GET /invocation/next", "POST /invocation/request-1/response"]


@pytest.mark.parametrize(("event", "line"), [(b"{}", "response"), (b"not json", "error")])
def test_invocation_id_is_echoed_only_when_it_was_given(
    tmp_path: Path, event: bytes, line: str
) -> None:
    nonce = {"Lambda-Runtime-Invocation-Id": "nonce-42"}
    script = [Invocation(event, "r1", headers=nonce), Invocation(event, "r2")]
    played = play(tmp_path, SIMPLE, *script)
    given = played.one(f"POST /invocation/r1/{line}").headers
    absent = played.one(f"POST /invocation/r2/{line}").headers
    assert given["lambda-runtime-invocation-id"] == "nonce-42"
    assert "lambda-runtime-invocation-id" not in absent


def test_trace_id_is_set_for_its_invocation_and_removed_for_the_next(tmp_path: Path) -> None:
    source = """
        import os
        def handler(event, context):
            return 200, {}, os.environ.get("_X_AMZN_TRACE_ID", "none").encode(), iter(())
    """
    traced = {"Lambda-Runtime-Trace-Id": "Root=1-a;Sampled=1"}
    played = play(tmp_path, source, Invocation(b"{}", "r1", traced), Invocation(b"{}", "r2"))
    assert played.response("r1").stream == b"Root=1-a;Sampled=1"
    assert played.response("r2").stream == b"none"


def test_context_has_the_standard_attributes(tmp_path: Path) -> None:
    source = """
        import json
        def handler(event, context):
            names = ("aws_request_id invoked_function_arn function_name function_version tenant_id "
                     "memory_limit_in_mb log_group_name log_stream_name").split()
            told = {name: getattr(context, name) for name in names}
            told["identity"] = vars(context.identity)
            client = context.client_context
            told["client"] = client and [client.client.app_title, client.custom, client.env]
            told["remaining"] = context.get_remaining_time_in_millis()
            return 200, {}, json.dumps(told).encode(), iter(())
    """
    headers = {
        "Lambda-Runtime-Client-Context": '{"client":{"app_title":"é"},"custom":{"k":1},"env":{}}',
        "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
        "Lambda-Runtime-Aws-Tenant-Id": "t",
    }
    late = {"Lambda-Runtime-Deadline-Ms": "1"}
    env = {
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "3",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/g",
        "AWS_LAMBDA_LOG_STREAM_NAME": "s",
    }
    script = [Invocation(b"{}", "r1", headers), Invocation(b"{}", "r2", late)]
    played = play(tmp_path, source, *script, env=env)
    told = json.loads(played.response("r1").stream)
    assert 0 < told.pop("remaining") <= 60_000
    assert told == {
        "aws_request_id": "r1",
        "invoked_function_arn": "arn:aws:lambda:eu-west-1:1:function:f",
        "function_name": "f",
        "function_version": "3",
        "memory_limit_in_mb": "512",
        "log_group_name": "/g",
        "log_stream_name": "s",
        "tenant_id": "t",
        "identity": {"cognito_identity_id": "i", "cognito_identity_pool_id": "p"},
        "client": ["é", {"k": 1}, {}],
    }
    bare = json.loads(played.response("r2").stream)
    assert (bare["remaining"], bare["tenant_id"], bare["client"]) == (0, None, None)
    assert bare["identity"] == {"cognito_identity_id": None, "cognito_identity_pool_id": None}


# --- events ---------------------------------------------------------------------------------------

LENGTH = """
    def handler(event, context):
        return 200, {}, str(len(event["pad"])).encode(), iter(())
"""


@pytest.mark.parametrize("chunked", [False, True])
def test_event_of_6_mb_is_read_whole(tmp_path: Path, chunked: bool) -> None:
    event = json.dumps({"pad": "x" * 6_000_000}).encode()
    played = play(tmp_path, LENGTH, Invocation(event, chunked_next=chunked))
    assert played.response().stream == b"6000000"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: r1\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: r1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: r1\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_event_cut_short_is_never_handled_and_ends_the_process(tmp_path: Path, raw: bytes) -> None:
    closing = Invocation(raw_next=raw or b" ")
    played = play(tmp_path, SIMPLE, closing, Invocation(request_id="r2"))
    assert played.exit_code == 1
    assert played.lines == ["GET /invocation/next"]
    assert "Runtime API is gone" in played.logs[-1]["message"]


def test_event_that_is_not_json_is_an_unmarshal_error(tmp_path: Path) -> None:
    error = play(tmp_path, SIMPLE, Invocation(b"{")).error()
    assert error.headers["lambda-runtime-function-error-type"] == "Runtime.UnmarshalError"
    assert error.json["errorType"] == "Runtime.UnmarshalError"


def test_process_ends_when_nobody_listens(tmp_path: Path) -> None:
    played = play(tmp_path, SIMPLE, env={"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"})
    assert played.exit_code == 1
    assert "127.0.0.1:1" in played.logs[-1]["message"]
    assert played.seconds < 3


def test_process_ends_when_the_listener_leaves_while_it_waits(tmp_path: Path) -> None:
    played = play(tmp_path, SIMPLE, Invocation())
    assert played.exit_code == 1
    assert "Runtime API is gone" in played.logs[-1]["message"]
    assert played.lines.count("GET /invocation/next") == 2, "no busy loop"


# --- start ----------------------------------------------------------------------------------------


def test_wrapper_is_executable() -> None:
    assert os.access(WRAPPER, os.X_OK)


def test_module_is_found_below_the_wrapper_as_in_a_layer_and_from_its_pyc(tmp_path: Path) -> None:
    import py_compile

    layer, task = tmp_path / "opt", tmp_path / "task"
    (layer / "python").mkdir(parents=True)
    task.mkdir()
    # A stray module of the same name in the function's folder must not win.
    (task / "stream_runtime.py").write_text("raise SystemExit(9)")
    wrapper = Path(shutil.copy2(WRAPPER, layer))
    source = WRAPPER.with_name("stream_runtime.py")
    py_compile.compile(str(source), cfile=str(layer / "python" / "stream_runtime.pyc"))
    assert play(task, SIMPLE, Invocation(), wrapper=wrapper).response().stream == b"firstsecond"


def test_function_code_comes_before_the_layer(tmp_path: Path) -> None:
    source = """
        import json, sys
        def handler(event, context):
            return 200, {}, json.dumps(sys.path).encode(), iter(())
    """
    path = json.loads(play(tmp_path, source, Invocation()).response().stream)
    assert path[0] == str(tmp_path)
    assert path[1].startswith(str(WRAPPER.parent) + "/lib/python3.")
    assert path[2] == str(WRAPPER.parent)
    assert len(path) == len(set(path))


@pytest.mark.parametrize(
    ("source", "handler", "error_type", "named"),
    [
        ("import nowhere_to_be_found", "app.handler", "Runtime.ImportModuleError", "nowhere"),
        ("", "elsewhere.handler", "Runtime.ImportModuleError", "elsewhere"),
        ("def handler(:", "app.handler", "Runtime.UserCodeSyntaxError", "app.py"),
        ("", "app.handler", "Runtime.HandlerNotFound", "handler"),
        ("handler = 3", "app.handler", "Runtime.HandlerNotFound", "handler"),
        ("", "app", "Runtime.MalformedHandlerName", "app"),
        ("", "", "Runtime.MalformedHandlerName", "module.function"),
        ("raise ValueError('at import')", "app.handler", "Function.ValueError", "at import"),
        ("class E_2(Exception): pass\nraise E_2('odd')", "app.handler", "Function.Unknown", "odd"),
    ],
)
def test_init_error_is_typed_and_ends_the_process(
    tmp_path: Path, source: str, handler: str, error_type: str, named: str
) -> None:
    played = play(tmp_path, source, Invocation(), env={"_HANDLER": handler})
    assert played.lines == ["POST /init/error"]
    error = played.one("POST /init/error")
    assert error.headers["lambda-runtime-function-error-type"] == error_type
    assert set(error.json) == {"errorType", "errorMessage", "requestId", "stackTrace"}
    assert named in error.json["errorMessage"]
    assert played.exit_code == 1
    assert named in played.logs[-1]["errorMessage"]


# --- SnapStart ------------------------------------------------------------------------------------

HOOKS = """
    import sys
    before, after = [], []
    def get_before_snapshot(): return before
    def get_after_restore(): return after
"""
SNAPPED = """
    import os, snapshot_restore_py as hooks
    called = []
    def call(name, fail=False):
        called.append(name)
        if fail: raise OSError(name)
    fail = os.environ.get("FAIL")
    hooks.before += [(call, ["b1"], {}), (call, ["b2"], {"fail": fail == "before"})]
    hooks.after += [(call, ["a1"], {}), (call, ["a2"], {"fail": fail == "after"})]
    def handler(event, context):
        return 200, {}, " ".join(called).encode(), iter(())
"""


def snap(task: Path, statuses: dict[str, int] | None = None, **env: str):  # type: ignore[no-untyped-def]
    import textwrap

    (task / "snapshot_restore_py.py").write_text(textwrap.dedent(HOOKS))
    env = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", **env}
    return play(task, SNAPPED, Invocation(), statuses=statuses, env=env)


def test_snapshot_hooks_run_around_restore_next(tmp_path: Path) -> None:
    played = snap(tmp_path)
    assert played.lines[:2] == ["GET /restore/next", "GET /invocation/next"]
    assert played.response().stream == b"b2 b1 a1 a2"


def test_hooks_do_not_run_without_snapstart(tmp_path: Path) -> None:
    played = snap(tmp_path, AWS_LAMBDA_INITIALIZATION_TYPE="on-demand")
    assert played.lines[0] == "GET /invocation/next"
    assert played.response().stream == b""


def test_snapstart_works_without_the_hooks_library(tmp_path: Path) -> None:
    env = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    played = play(tmp_path, SIMPLE, Invocation(), env=env)
    assert played.lines[:2] == ["GET /restore/next", "GET /invocation/next"]


@pytest.mark.parametrize(
    ("env", "statuses", "lines", "error_type", "exit_code"),
    [
        ({"FAIL": "before"}, {}, ["POST /init/error"], "BeforeSnapshotError", 64),
        (
            {},
            {"GET /restore/next": 500},
            ["GET /restore/next", "POST /init/error"],
            "BeforeSnapshotError",
            64,
        ),
        (
            {"FAIL": "after"},
            {},
            ["GET /restore/next", "POST /restore/error"],
            "AfterRestoreError",
            65,
        ),
    ],
)
def test_failing_snapstart_is_told_and_ends_the_process(
    tmp_path: Path,
    env: dict[str, str],
    statuses: dict[str, int],
    lines: list[str],
    error_type: str,
    exit_code: int,
) -> None:
    played = snap(tmp_path, statuses, **env)
    assert played.lines == lines
    told = played.exchanges[-1]
    assert told.headers["lambda-runtime-function-error-type"] == f"Runtime.{error_type}"
    assert told.json["errorType"] in ("OSError", "RuntimeApiError")
    assert played.exit_code == exit_code


# --- logs -----------------------------------------------------------------------------------------

LOGGING = """
    import logging
    def handler(event, context):
        log = logging.getLogger("door")
        log.debug("quiet")
        log.info("two\\nlines %s", "é", extra={"pid": "p_1", "what": object})
        try: 1 / 0
        except ZeroDivisionError: log.exception("bad")
        return 200, {}, b"", iter(())
"""


def test_one_record_is_one_json_line_with_the_request_id(tmp_path: Path) -> None:
    played = play(tmp_path, LOGGING, Invocation(request_id="r1"), Invocation(request_id="r2"))
    info, error = [line for line in played.logs if line.get("requestId") == "r1"]
    assert [line["requestId"] for line in played.logs[:4]] == ["r1", "r1", "r2", "r2"]
    timestamp = info.pop("timestamp")
    assert timestamp.endswith("Z")
    assert timestamp[10] == "T"
    assert info == {
        "level": "INFO",
        "message": "two\nlines é",
        "logger": "door",
        "requestId": "r1",
        "pid": "p_1",
        "what": "<class 'object'>",
    }
    assert (error["errorType"], error["errorMessage"]) == ("ZeroDivisionError", "division by zero")
    assert "in handler" in error["stackTrace"][0]


@pytest.mark.parametrize(
    ("level", "seen"),
    [("TRACE", 3), ("DEBUG", 3), ("INFO", 2), ("WARN", 1), ("ERROR", 1), ("FATAL", 0), ("odd", 2)],
)
def test_level_is_lambdas(tmp_path: Path, level: str, seen: int) -> None:
    played = play(tmp_path, LOGGING, Invocation(), env={"AWS_LAMBDA_LOG_LEVEL": level})
    assert sum(line["logger"] == "door" for line in played.logs) == seen


def test_text_format_is_one_plain_line_a_record(tmp_path: Path) -> None:
    env = {"AWS_LAMBDA_LOG_FORMAT": "Text"}
    played = play(tmp_path, LOGGING, Invocation(request_id="r1"), env=env)
    info, error = [line for line in played.output.split("\n") if "\tr1\t" in line][:2]
    assert info.startswith("[INFO]\t20")
    assert "\tr1\ttwo" in info
    assert "ZeroDivisionError: division by zero" in error
