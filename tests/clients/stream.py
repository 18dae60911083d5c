"""Takes published Python clients through the scenarios of streams.

What `stream` returns is read by tests/clients/scenarios.py. It runs in the environment of the
clients (tests/clients/newest, older), so it imports nothing of the project.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import openai

# Else LiteLLM fetches a list of models and prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Shown:
    """What a client has shown so far of one scenario."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self.finish: str | None = None
        self.total_tokens: int | None = None
        self.tools: list[tuple[str, str]] = []
        self.errors: list[dict[str, Any]] = []

    def failed(self, error: BaseException) -> None:
        code = _code(error)
        self.errors.append(
            {"type": type(error).__name__, "code": code, "message": str(error)[:200]}
        )


def _code(error: BaseException | None) -> str | None:
    """Return the `error.code` that an exception or one of its causes carries."""
    while error is not None:
        body = getattr(error, "body", None)
        if isinstance(body, dict):
            code = body.get("error", body).get("code")
        else:
            code = getattr(error, "code", None)
        if isinstance(code, str):
            return code
        error = error.__cause__ or error.__context__
    return None


def _request(scenario: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "default",
        "messages": [{"role": "user", "content": scenario["content"]}],
    }
    if scenario["usage"]:
        body["stream_options"] = {"include_usage": True}
    if scenario["tools"]:
        body["tools"] = [TOOL]
    return body


class _Reader:
    """Reads chunks as quickstarts do: they index `choices[0]` unless they requested usage."""

    def __init__(self, shown: Shown, *, guarded: bool) -> None:
        self._shown = shown
        self._guarded = guarded
        self._calls: dict[int, list[str]] = {}

    def take(self, chunk: Any) -> None:
        read = chunk.model_dump()  # openai 1.0 knows neither usage nor tools
        if read.get("usage"):
            self._shown.total_tokens = read["usage"]["total_tokens"]
        if self._guarded and not read["choices"]:
            return
        choice = read["choices"][0]
        self._shown.text += choice["delta"].get("content") or ""
        self._shown.finish = choice["finish_reason"] or self._shown.finish
        for call in choice["delta"].get("tool_calls") or ():
            known = self._calls.setdefault(call["index"], ["", ""])
            known[0] += call["function"]["name"] or ""
            known[1] += call["function"]["arguments"] or ""

    def end(self) -> None:
        self._shown.tools = [(name, arguments) for name, arguments in self._calls.values()]


def _arguments(scenario: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `create`: what openai 1.0 does not know goes into the body."""
    body = _request(scenario)
    known = {name: body.pop(name) for name in ("model", "messages")}
    return {**known, "stream": True, "extra_body": body}


def openai_create(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    reader = _Reader(shown, guarded=scenario["usage"])
    with openai.OpenAI(api_key=token, base_url=base_url, max_retries=0) as client:
        for chunk in client.chat.completions.create(**_arguments(scenario)):
            reader.take(chunk)
    reader.end()


def openai_async(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    async def run() -> None:
        reader = _Reader(shown, guarded=scenario["usage"])
        async with openai.AsyncOpenAI(api_key=token, base_url=base_url, max_retries=0) as client:
            async for chunk in await client.chat.completions.create(**_arguments(scenario)):
                reader.take(chunk)
        reader.end()

    asyncio.run(run())


def openai_stream(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    with (
        openai.OpenAI(api_key=token, base_url=base_url, max_retries=0) as client,
        client.chat.completions.stream(**_request(scenario)) as stream,
    ):
        try:
            for event in stream:
                if event.type == "content.delta":
                    shown.text += event.delta
            whole = stream.get_final_completion()
        except openai.LengthFinishReasonError:  # how it says that the answer is not complete
            shown.finish = "length"
            return
        except openai.ContentFilterFinishReasonError:
            shown.finish = "content_filter"
            return
    shown.finish = whole.choices[0].finish_reason
    shown.total_tokens = whole.usage.total_tokens if whole.usage else None
    for call in whole.choices[0].message.tool_calls or ():
        shown.tools.append((call.function.name, call.function.arguments))


def langchain(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    from langchain_openai import ChatOpenAI

    made: Any = ChatOpenAI(
        model="default",
        api_key=token,
        base_url=base_url,
        max_retries=0,
        stream_usage=scenario["usage"],
    )
    model = made.bind_tools([TOOL]) if scenario["tools"] else made
    whole: Any = None
    for chunk in model.stream(scenario["content"]):
        shown.text += chunk.content
        whole = chunk if whole is None else whole + chunk
    shown.finish = whole.response_metadata.get("finish_reason")
    shown.total_tokens = (whole.usage_metadata or {}).get("total_tokens")
    shown.tools = [(call["name"], _compact(call["args"])) for call in whole.tool_calls]


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def pydantic_ai(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    from pydantic_ai import ModelRequest, ToolDefinition
    from pydantic_ai.direct import model_request_stream
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def run() -> None:
        client = openai.AsyncOpenAI(api_key=token, base_url=base_url, max_retries=0)
        model = OpenAIChatModel("default", provider=OpenAIProvider(openai_client=client))
        tool = ToolDefinition(name="weather", parameters_json_schema=TOOL["function"]["parameters"])
        parameters = ModelRequestParameters(function_tools=[tool] if scenario["tools"] else [])
        async with model_request_stream(
            model,
            [ModelRequest.user_text_prompt(scenario["content"])],
            model_request_parameters=parameters,
        ) as stream:
            try:
                async for _ in stream:
                    pass
            finally:
                answer = stream.get()
                shown.text = answer.text or ""
        finish = answer.finish_reason
        shown.finish = "tool_calls" if finish == "tool_call" else finish
        shown.total_tokens = answer.usage.total_tokens
        shown.tools = [(call.tool_name, str(call.args)) for call in answer.tool_calls]
        await client.close()

    asyncio.run(run())


def openai_agents(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    import agents

    agents.set_tracing_disabled(True)

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key=token, base_url=base_url, max_retries=0) as client:
            model = agents.OpenAIChatCompletionsModel(model="default", openai_client=client)
            settings = agents.ModelSettings(include_usage=scenario["usage"])
            agent = agents.Agent(
                name="test",
                model=model,
                model_settings=settings,
                tools=[_weather(agents, shown)] if scenario["tools"] else [],
                tool_use_behavior="stop_on_first_tool",
            )
            running = agents.Runner.run_streamed(agent, scenario["content"], max_turns=1)
            async for event in running.stream_events():
                data: Any = getattr(event, "data", None)
                if getattr(data, "type", None) == "response.output_text.delta":
                    shown.text += data.delta
            shown.total_tokens = running.context_wrapper.usage.total_tokens

    asyncio.run(run())


def _weather(agents: Any, shown: Shown) -> Any:
    async def called(_context: Any, arguments: str) -> str:
        shown.tools.append(("weather", arguments))
        return "sunny"

    return agents.FunctionTool(
        name="weather",
        description="Tell the weather.",
        params_json_schema=TOOL["function"]["parameters"],
        on_invoke_tool=called,
        strict_json_schema=False,
    )


def litellm(base_url: str, token: str, scenario: dict[str, Any], shown: Shown) -> None:
    from litellm import completion

    reader = _Reader(shown, guarded=scenario["usage"])
    body = _request(scenario)
    body["model"] = "openai/default"
    for chunk in completion(api_base=base_url, api_key=token, stream=True, max_retries=0, **body):
        reader.take(chunk)
    reader.end()


CLIENTS: dict[str, Callable[[str, str, dict[str, Any], Shown], None]] = {
    "openai": openai_create,
    "openai async": openai_async,
    "openai .stream()": openai_stream,
    "langchain-openai": langchain,
    "pydantic-ai": pydantic_ai,
    "openai-agents": openai_agents,
    "litellm": litellm,
}


def stream(task: dict[str, Any]) -> dict[str, Any]:
    """Return what the client shows of one scenario."""
    name, scenario, shown = task["client"], task["scenario"], Shown()
    try:
        CLIENTS[name](task["base_url"], task["token"], scenario, shown)
        shown.ended = True
    except Exception as error:
        shown.failed(error)
    return {"client": name, "scenario": scenario["name"], "outcome": vars(shown)}
