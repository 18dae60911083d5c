"""The mock provider on the running stack is charged, cancelled and refused like any other."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.stack.conftest import Stack, operator_of
from weir.operator.documents import ModelDocument, NewProject, UpstreamDocument, parsed
from weir.projects.upstream_kinds import MOCK_MODELS

NANO_USD = {"input_nano_usd": 1_000, "cached_input_nano_usd": 1_000, "output_nano_usd": 1_000_000}
FREE = dict.fromkeys(NANO_USD, 0)
SIZES = {"context_tokens": 10_000, "max_output_tokens": 1_000, "overhead_tokens": 0}


def model(*names: str, price: dict[str, int] = FREE) -> ModelDocument:
    candidates = [{"upstream": f"try-{name}", "model": name, **price} for name in names]
    told = {"candidates": candidates, "hidden_reasoning": False, **SIZES}
    return parsed(ModelDocument, told)


CATALOGUE_COUNTS_WITHIN_S = 15  # 5 s, on a machine that has other things to do


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[OpenAI]:
    """Of a user whose project may spend a cent."""
    operator = operator_of(stack)
    models = {name: model(name) for name in MOCK_MODELS}
    models["priced"] = model("echo", price=NANO_USD)
    models["fallback"] = model("error-500", "echo")
    for name in MOCK_MODELS:
        operator.put_upstream(f"try-{name}", parsed(UpstreamDocument, {"kind": "mock"}))
    for name, entry in models.items():
        operator.put_model(f"try-{name}", entry)
    limits = {"usd_per_month": 0.01, "rpm": None}
    project = {"pid": "mocked", "name": "Mocked", "limits": limits, "user_limits": {"rpm": None}}
    operator.create_project(parsed(NewProject, project))
    key, _ = operator.create_key("mocked", name="", scopes=["mint"], role="user")
    minted = stack.http.post(
        "/v1/auth/mint", headers={"Authorization": f"Bearer {key}"}, json={"user_id": "u_1"}
    )
    url = stack.env["BEHEST_BASE_URL"] + "/v1"
    with OpenAI(api_key=minted.json()["token"], base_url=url, max_retries=0) as sdk:
        give_up = time.monotonic() + CATALOGUE_COUNTS_WITHIN_S
        while not offered(sdk, list(models)[-1]):
            assert time.monotonic() < give_up, "the models do not count"
            time.sleep(0.2)
        yield sdk
    for name in models:  # the catalogue is all tests'
        operator.remove_model(f"try-{name}")
    for name in MOCK_MODELS:
        operator.remove_upstream(f"try-{name}")


def offered(client: OpenAI, name: str) -> bool:
    try:
        say(client, name)
    except openai.BadRequestError:
        return False
    return True


def say(client: OpenAI, name: str, text: str = "Hello there, world", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=f"try-{name}", messages=messages, **more)


def words(stream: Any) -> str:
    return "".join(each.choices[0].delta.content or "" for each in stream)


def test_first_project_offers_the_mock_beside_its_model(stack: Stack, token: str) -> None:
    listed = stack.http.get("/v1/models", headers={"Authorization": f"Bearer {token}"}).json()
    assert {each["id"]: each["owned_by"] for each in listed["data"]}["mock-echo"] == "mock"


def test_echo_answers_for_nothing_streamed_or_not(client: OpenAI) -> None:
    answer = say(client, "echo")
    assert answer.choices[0].message.content == "Hello there, world"
    assert answer.usage.model_dump() | {"cost_usd": 0.0, "total_tokens": 9} == (
        answer.usage.model_dump()
    )
    assert words(say(client, "echo", stream=True)) == "Hello there, world"
    assert say(client, "echo", max_tokens=2).choices[0].finish_reason == "length"


def test_tool_is_called_and_its_result_is_answered(client: OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "get_time", "parameters": {}}}]
    asked: list[Any] = [{"role": "user", "content": 'get_time {"zone": "UTC"}'}]
    create: Any = client.chat.completions.create
    message = create(model="try-echo", messages=asked, tools=tools).choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_time", '{"zone": "UTC"}')
    asked += [message, {"role": "tool", "tool_call_id": call.id, "content": "noon"}]
    again = create(model="try-echo", messages=asked, tools=tools).choices[0].message
    assert (again.content, again.tool_calls) == ("noon", None)


def test_slow_answer_comes_word_by_word_and_can_be_stopped(client: OpenAI, stack: Stack) -> None:
    stream = say(client, "slow", "word " * 100, stream=True)
    arrivals, ids = [], set()
    for chunk in itertools.islice(stream, 4):
        arrivals.append(time.monotonic())
        ids.add(chunk.id)
    (completion_id,) = ids
    cancel = f"/v1/chat/completions/{completion_id}/cancel"
    bearer = {"Authorization": f"Bearer {client.api_key}"}
    assert stack.http.post(cancel, headers=bearer).status_code == 200
    with pytest.raises(openai.APIError) as stopped:
        arrivals.extend(time.monotonic() for _ in stream)
    assert stopped.value.code == "cancelled"
    assert arrivals[3] - arrivals[0] > 0.2
    assert len(arrivals) < 90


def test_errors_are_told_as_a_providers(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as busy:
        say(client, "error-429")
    assert (busy.value.status_code, busy.value.code) == (503, "upstream_rate_limited")
    assert busy.value.response.headers["retry-after"] == "2"
    with pytest.raises(openai.InternalServerError) as failed:
        say(client, "error-500", stream=True)
    assert (failed.value.status_code, failed.value.code) == (502, "upstream_error")
    with pytest.raises(openai.BadRequestError):
        say(client, "error-400")
    with pytest.raises(openai.APIError, match="The mock has failed") as broken:
        words(say(client, "error-mid-stream", stream=True))
    assert broken.value.code == "upstream_error"


def test_one_mock_stands_in_for_another(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="try-fallback", messages=[{"role": "user", "content": "hi"}]
    )
    told = raw.headers["x-weir-upstreams"]
    assert told == "try-error-500=upstream_error, try-echo=ok"


def test_priced_mock_spends_a_budget_and_is_refused_after_it(client: OpenAI) -> None:
    """A word is a tenth of a cent, the budget a cent. What is free is answered all the same."""
    for _ in range(3):
        answer = say(client, "priced", "one two three", max_tokens=3)
        assert answer.usage.cost_usd == pytest.approx(0.003, rel=0.01)
    with pytest.raises(openai.APIStatusError) as refused:
        say(client, "priced", "one two three", max_tokens=3)
    assert (refused.value.status_code, refused.value.code) == (402, "quota_exceeded")
    assert say(client, "echo").choices[0].finish_reason == "stop"
