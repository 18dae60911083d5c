"""Real processes on the real runtime clients: what Lambda does to a function."""

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from local import sandbox
from local.pool import Busy, Pool
from local.sandbox import InvocationFailed, Sandbox, Stream
from tests.local.harness import NEEDS_ROOT, as_nobody, event, pool_of, program, run, until

BUFFERED = """
import os, time
def handler(event, context):
    if "sleep" in event: time.sleep(event["sleep"])
    if "exit" in event: os._exit(event["exit"])
    if "raise" in event: raise ValueError(event["raise"])
    if "size" in event: return "x" * event["size"]
    return {"pid": os.getpid(), "left_ms": context.get_remaining_time_in_millis(),
            "arn": context.invoked_function_arn, "id": context.aws_request_id}
"""

STREAMING = """
import os, time
def handler(event, context):
    def rest():
        try:
            for number in range(event["chunks"]):
                time.sleep(event["gap_s"])
                if number == event.get("exit_at"): os._exit(3)
                if number == event.get("raise_at"): raise ValueError("midway")
                yield b"chunk %d\\n" % number
        finally:
            open("closed", "w").write("yes")
    return 201, {"X-A": "b"}, b"first\\n", rest()
"""


async def body_of(answer: bytes | Stream) -> list[bytes]:
    assert isinstance(answer, Stream)
    return [piece async for piece in answer.chunks()]


async def called(pool: Pool, **told: object) -> dict[str, object]:
    answer = await pool.invoke(event(**told))
    assert isinstance(answer, bytes)
    returned: dict[str, object] = json.loads(answer)
    return returned


def test_the_stock_runtime_serves_one_request_after_another_in_one_process(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, BUFFERED)) as pool:
            first, second = await called(pool), await called(pool)
        assert first["pid"] == second["pid"]
        assert first["id"] != second["id"]
        assert first["arn"] == "arn:aws:lambda:us-east-1:000000000000:function:test"
        assert 8000 < int(str(first["left_ms"])) <= 10_000

    run(test())


def test_requests_that_come_together_get_processes_of_their_own(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, BUFFERED), most=3) as pool:
            answers = await asyncio.gather(*(called(pool, sleep=1) for _ in range(3)))
            assert len({answer["pid"] for answer in answers}) == 3
            assert (await called(pool))["pid"] in {answer["pid"] for answer in answers}

    run(test())


def test_beyond_the_bound_a_request_waits_and_is_then_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, BUFFERED), most=1, wait_s=0.4) as pool:
            await pool.warm()
            first = asyncio.ensure_future(called(pool, sleep=0.2))
            await asyncio.sleep(0)
            assert (await called(pool))["pid"] == (await first)["pid"]  # it waited
            first = asyncio.ensure_future(called(pool, sleep=1.2))
            await asyncio.sleep(0)
            began = time.monotonic()
            with pytest.raises(Busy):
                await called(pool)
            assert 0.3 < time.monotonic() - began < 1
            await first
            assert (await called(pool))["pid"] == (await first)["pid"]

    run(test())


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"raise": "wrong"}, "ValueError: wrong"),
        ({"exit": 0}, "the process ended \\(exit code 0\\)"),
        ({"sleep": 5}, "Task timed out after 1.00 seconds"),
        ({"size": 6_400_000}, "ResponseSizeTooLarge"),
    ],
    ids=["raises", "exits", "too-slow", "too-large"],
)
def test_a_failed_invocation_fails_alone(tmp_path: Path, told: dict[str, object], why: str) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, BUFFERED, timeout_s=1)) as pool:
            await pool.warm()
            with pytest.raises(InvocationFailed, match=why):
                await called(pool, **told)
            assert (await called(pool))["pid"]

    run(test())


def test_a_function_that_cannot_be_imported_says_why_each_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, "import not_there\n")) as pool:
            for _ in range(2):
                with pytest.raises(InvocationFailed, match="No module named 'not_there'"):
                    await called(pool)

    run(test())


def test_a_streamed_answer_comes_piece_by_piece_with_its_gaps(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, STREAMING, streams=True)) as pool:
            answer = await pool.invoke(event(chunks=5, gap_s=0.1))
            assert isinstance(answer, Stream)
            assert answer.prelude["statusCode"] == 201
            assert answer.prelude["headers"] == {"X-A": "b"}
            pieces, times = [], []
            async for piece in answer.chunks():
                pieces.append(piece)
                times.append(time.monotonic())
        assert b"".join(pieces) == b"first\n" + b"".join(b"chunk %d\n" % n for n in range(5))
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert all(0.06 < gap < 0.3 for gap in gaps), gaps

    run(test())


@pytest.mark.parametrize(
    ("told", "why"),
    [({"raise_at": 2}, "ValueError: midway"), ({"exit_at": 2}, "the response broke off")],
    ids=["raises", "exits"],
)
def test_a_stream_that_fails_midway_never_looks_whole(
    tmp_path: Path, told: dict[str, int], why: str
) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, STREAMING, streams=True)) as pool:
            answer = await pool.invoke(event(chunks=5, gap_s=0, **told))
            with pytest.raises(InvocationFailed, match=why):
                await body_of(answer)
            answer = await pool.invoke(event(chunks=1, gap_s=0))
            assert b"".join(await body_of(answer)) == b"first\nchunk 0\n"

    run(test())


def test_aborting_a_stream_closes_the_functions_generator_and_frees_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, STREAMING, streams=True), most=1, wait_s=5) as pool:
            answer = await pool.invoke(event(chunks=1000, gap_s=0.05))
            assert isinstance(answer, Stream)
            async for _ in answer.chunks():
                answer.abort()
                break
            await until((tmp_path / "closed").exists)
            answer = await pool.invoke(event(chunks=1, gap_s=0))
            assert b"".join(await body_of(answer)) == b"first\nchunk 0\n"

    run(test())


def test_a_stream_over_the_functions_timeout_is_killed(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, STREAMING, streams=True, timeout_s=1)) as pool:
            answer = await pool.invoke(event(chunks=1000, gap_s=0.05))
            with pytest.raises(InvocationFailed):
                await body_of(answer)
            assert not (tmp_path / "closed").exists()  # SIGKILL: no `finally` has run

    run(test())


def test_idle_processes_go_and_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.pool.LOOK_EVERY_S", 0.05)

    async def test() -> None:
        async with pool_of(program(tmp_path, BUFFERED)) as pool:
            await asyncio.gather(*(called(pool, sleep=0.5) for _ in range(3)))
            assert pool.size == 3
            # Only now: on a slow machine the first is idle before the last has begun.
            monkeypatch.setattr("local.pool.IDLE_S", 0.1)
            await until(lambda: pool.size == 1)
            await asyncio.sleep(0.3)
            assert pool.size == 1
            assert (await called(pool))["pid"]

    run(test())


def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool_of(program(tmp_path, BUFFERED)) as pool:
            pid = int(str((await called(pool))["pid"]))
            os.kill(pid, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(test())


# --- the Runtime API itself, with a runtime that does what it should not -----------------------


@asynccontextmanager
async def bare(tmp_path: Path) -> AsyncIterator[tuple[Sandbox, httpx.AsyncClient]]:
    """A sandbox whose process does nothing, and a client that plays the runtime."""
    what = program(tmp_path, "")
    quiet = sandbox.Program(
        what.name, what.arn, ("/bin/sh", "-c", "echo $AWS_LAMBDA_RUNTIME_API >address; sleep 60"),
        what.env, what.cwd, what.log, what.timeout_s,
    )  # fmt: skip
    one = Sandbox(quiet, lambda _: None, lambda *_: None)
    await one.start({})
    address = tmp_path / "address"
    await until(lambda: address.exists() and address.read_text().strip() != "")
    url = f"http://{address.read_text().strip()}/2018-06-01/runtime"
    async with httpx.AsyncClient(base_url=url) as runtime:
        yield one, runtime
    one.kill("over")
    await one.gone()


async def begin(
    one: Sandbox, runtime: httpx.AsyncClient
) -> tuple["asyncio.Future[bytes | Stream]", str, dict[str, str]]:
    waiting = asyncio.ensure_future(runtime.get("/invocation/next"))
    await one.settled()
    answer = asyncio.ensure_future(one.invoke(b'{"a":1}'))
    told = await waiting
    assert told.content == b'{"a":1}'
    nonce = {"Lambda-Runtime-Invocation-Id": told.headers["lambda-runtime-invocation-id"]}
    return answer, told.headers["lambda-runtime-aws-request-id"], nonce


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:5173"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ],
)
def test_a_page_cannot_take_an_event_from_the_runtime(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    """It would get the next caller's token, and the function would wait in vain."""

    async def test() -> None:
        async with bare(tmp_path) as (one, runtime):
            taken = await runtime.get("/invocation/next", headers=headers)
            assert (taken.status_code, one.has_served) == (403, False)
            answer, request_id, nonce = await begin(one, runtime)
            answered = f"/invocation/{request_id}/response"
            forged = await runtime.post(answered, content=b"1", headers=headers)
            assert (forged.status_code, answer.done()) == (403, False)
            await runtime.post(answered, content=b"2", headers=nonce)
            assert await answer == b"2"

    run(test())


@NEEDS_ROOT
def test_nor_can_another_user_of_the_machine(tmp_path: Path) -> None:
    async def test() -> None:
        async with bare(tmp_path) as (_, runtime):
            assert runtime.base_url.port is not None
            assert await asyncio.to_thread(as_nobody, runtime.base_url.port) == b""

    run(test())


def test_an_answer_for_another_invocation_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with bare(tmp_path) as (one, runtime):
            answer, request_id, nonce = await begin(one, runtime)
            refused = await runtime.post("/invocation/other/response", content=b"1")
            assert refused.status_code == 400
            stale = {"Lambda-Runtime-Invocation-Id": "an older one"}
            path = f"/invocation/{request_id}/response"
            assert (await runtime.post(path, content=b"1", headers=stale)).status_code == 410
            assert (await runtime.get("/invocation/next")).status_code == 403
            assert (await runtime.post(path, content=b"2", headers=nonce)).status_code == 202
            assert await answer == b"2"

    run(test())


def test_the_second_answer_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with bare(tmp_path) as (one, runtime):
            answer, request_id, _ = await begin(one, runtime)
            path = f"/invocation/{request_id}"
            assert (await runtime.post(f"{path}/response", content=b"2")).status_code == 202
            assert (await runtime.post(f"{path}/response", content=b"3")).status_code == 403
            assert (await runtime.post(f"{path}/error", content=b"{}")).status_code == 403
            assert await answer == b"2"

    run(test())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"no delimiter", "no prelude"),
        (b"not json" + b"\0" * 8, "not JSON"),
        (b"[]" + b"\0" * 8, "not an object"),
        (b'{"a":"' + b"x" * 17_000 + b'"}' + b"\0" * 8, "in the first 16384 bytes"),
    ],
    ids=["no-delimiter", "no-json", "no-object", "too-long"],
)
def test_a_stream_without_a_prelude_is_refused(tmp_path: Path, body: bytes, why: str) -> None:
    async def test() -> None:
        async with bare(tmp_path) as (one, runtime):
            answer, request_id, _ = await begin(one, runtime)
            with pytest.raises(httpx.HTTPError):
                await runtime.post(
                    f"/invocation/{request_id}/response",
                    content=body,
                    headers={"Lambda-Runtime-Function-Response-Mode": "streaming"},
                )
            with pytest.raises(InvocationFailed, match=why):
                await answer

    run(test())


def test_an_unknown_response_mode_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with bare(tmp_path) as (one, runtime):
            answer, request_id, _ = await begin(one, runtime)
            refused = await runtime.post(
                f"/invocation/{request_id}/response",
                content=b"1",
                headers={"Lambda-Runtime-Function-Response-Mode": "buffered"},
            )
            assert refused.json()["errorType"] == "Runtime.InvalidResponseModeHeader"
            answer.cancel()

    run(test())


def test_the_prelude_may_come_in_any_pieces(tmp_path: Path) -> None:
    whole = b'{"statusCode":200}' + b"\0" * 8 + b"body\0\0\0\0\0\0\0\0 of it"

    async def pieces() -> AsyncIterator[bytes]:
        for index in range(len(whole)):
            yield whole[index : index + 1]

    async def test() -> None:
        async with bare(tmp_path) as (one, runtime):
            answer, request_id, _ = await begin(one, runtime)
            post = runtime.post(
                f"/invocation/{request_id}/response",
                content=pieces(),
                headers={"Lambda-Runtime-Function-Response-Mode": "streaming"},
            )
            sent = asyncio.ensure_future(post)
            stream = await answer
            assert isinstance(stream, Stream)
            assert stream.prelude == {"statusCode": 200}
            assert b"".join(await body_of(stream)) == b"body\0\0\0\0\0\0\0\0 of it"
            assert (await sent).status_code == 202

    run(test())
