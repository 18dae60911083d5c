"""Uses published Python clients as people do, with the clients' own defaults.

What `use` returns is judged by tests/clients/capabilities.py. It runs in the environment of the
clients (tests/clients/newest, older), so it imports nothing of the project but its neighbour. The
statements that make a client or a model are those that docs/clients.md shows.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Protocol

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.clients.stream import TOOL, Shown

HANGS_AFTER_S = 60


class Weather(BaseModel):
    city: str
    degrees: int


Messages = list[dict[str, Any]]
Heard = Callable[[str], bool]  # of each piece of a stream; False to read no more
Tool = Callable[[str], str]


def _user(content: str) -> Messages:
    return [{"role": "user", "content": content}]


def _results(calls: Any, weather: Tool) -> Messages:
    return [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": weather(json.loads(call.function.arguments)["city"]),
        }
        for call in calls
    ]


class Client(Protocol):
    def whole(self, content: str) -> str:
        """Return the text of an answer that does not stream."""

    def tools(self, content: str, weather: Tool) -> str:
        """Return the answer after the model has called `weather` and has got its result."""

    def structured(self, content: str) -> dict[str, Any]:
        """Return an answer that the client has parsed into a `Weather`."""

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        """Read a stream until it ends, or until `heard` returns False."""


class Openai:
    def __init__(self, url: str, token: str) -> None:
        self.client: Any = OpenAI(base_url=url + "/v1", api_key=token)

    def _create(self, messages: Any, **more: Any) -> Any:
        return self.client.chat.completions.create(model="default", messages=messages, **more)

    def whole(self, content: str) -> str:
        return str(self._create(_user(content)).choices[0].message.content)

    def tools(self, content: str, weather: Tool) -> str:
        messages: list[Any] = list(_user(content))
        message = self._create(messages, tools=[TOOL]).choices[0].message
        messages += [message, *_results(message.tool_calls, weather)]
        return str(self._create(messages, tools=[TOOL]).choices[0].message.content)

    def structured(self, content: str) -> dict[str, Any]:
        answer = self.client.chat.completions.parse(
            model="default", messages=_user(content), response_format=Weather
        )
        return dict(answer.choices[0].message.parsed.model_dump())

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        with self._create(_user(content), stream=True, extra_headers=headers) as chunks:
            for chunk in chunks:
                if not heard(chunk.choices[0].delta.content or ""):
                    break


class RenewedOpenai(Openai):
    def __init__(self, url: str, token: str) -> None:
        def current_token() -> str:
            return token

        self.client = OpenAI(base_url=url + "/v1", api_key=current_token)


class FirstOpenai(Openai):
    """openai 1.0, whose streams are no context managers."""

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        chunks = self._create(_user(content), stream=True, extra_headers=headers)
        for chunk in chunks:
            if not heard(chunk.choices[0].delta.content or ""):
                chunks.response.close()
                break


class Langchain:
    def __init__(self, url: str, token: str) -> None:
        from langchain_openai import ChatOpenAI

        self.model: Any = ChatOpenAI(model="default", base_url=url + "/v1", api_key=token)

    def whole(self, content: str) -> str:
        return str(self.model.invoke(content).content)

    def tools(self, content: str, weather: Tool) -> str:
        from langchain_core.messages import HumanMessage, ToolMessage

        bound = self.model.bind_tools([TOOL])
        messages: list[Any] = [HumanMessage(content)]
        called = bound.invoke(messages)
        messages.append(called)
        for call in called.tool_calls:
            messages.append(ToolMessage(weather(call["args"]["city"]), tool_call_id=call["id"]))
        return str(bound.invoke(messages).content)

    def structured(self, content: str) -> dict[str, Any]:
        return dict(self.model.with_structured_output(Weather).invoke(content).model_dump())

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        chunks = self.model.stream(content, extra_headers=headers)
        for chunk in chunks:
            if chunk.content and not heard(chunk.content):
                chunks.close()
                break


class PydanticAi:
    def __init__(self, url: str, token: str) -> None:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        self.model = OpenAIChatModel(
            "default", provider=OpenAIProvider(base_url=url + "/v1", api_key=token)
        )

    def _agent(self, **more: Any) -> Any:
        from pydantic_ai import Agent

        return Agent(self.model, **more)

    def whole(self, content: str) -> str:
        return str(asyncio.run(self._agent().run(content)).output)

    def tools(self, content: str, weather: Tool) -> str:
        def called(city: str) -> str:
            return weather(city)

        called.__name__ = "weather"
        return str(asyncio.run(self._agent(tools=[called]).run(content)).output)

    def structured(self, content: str) -> dict[str, Any]:
        from pydantic_ai import NativeOutput

        agent = self._agent(output_type=NativeOutput(Weather))
        return dict(asyncio.run(agent.run(content)).output.model_dump())

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        async def run() -> None:
            settings = {"extra_headers": headers}
            async with self._agent().run_stream(content, model_settings=settings) as answer:
                async for text in answer.stream_text(delta=True, debounce_by=None):
                    if not heard(text):
                        break

        asyncio.run(run())


class OpenaiAgents:
    def __init__(self, url: str, token: str) -> None:
        import agents

        agents.set_tracing_disabled(True)
        self.agents: Any = agents
        client = AsyncOpenAI(base_url=url + "/v1", api_key=token)
        self.model = agents.OpenAIChatCompletionsModel(model="default", openai_client=client)

    def _run(self, content: str, **more: Any) -> Any:
        agent = self.agents.Agent(name="test", model=self.model, **more)
        return asyncio.run(self.agents.Runner.run(agent, content)).final_output

    def whole(self, content: str) -> str:
        return str(self._run(content))

    def tools(self, content: str, weather: Tool) -> str:
        def called(city: str) -> str:
            """Tell the weather."""
            return weather(city)

        tool = self.agents.function_tool(called, name_override="weather")
        return str(self._run(content, tools=[tool]))

    def structured(self, content: str) -> dict[str, Any]:
        return dict(self._run(content, output_type=Weather).model_dump())

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        settings = self.agents.ModelSettings(extra_headers=headers)
        agent = self.agents.Agent(name="test", model=self.model, model_settings=settings)

        async def run() -> None:
            running = self.agents.Runner.run_streamed(agent, content)
            events: AsyncIterator[Any] = running.stream_events()
            async for event in events:
                data = getattr(event, "data", None)
                if getattr(data, "type", None) != "response.output_text.delta":
                    continue
                if not heard(getattr(data, "delta", "")):
                    running.cancel()

        asyncio.run(run())


class Litellm:
    def __init__(self, url: str, token: str) -> None:
        import litellm

        self.litellm, self.url, self.token = litellm, url, token

    def _complete(self, messages: Any, **more: Any) -> Any:
        litellm, url, token = self.litellm, self.url, self.token
        return litellm.completion(
            model="openai/default", api_base=url + "/v1", api_key=token, messages=messages, **more
        )

    def whole(self, content: str) -> str:
        return str(self._complete(_user(content)).choices[0].message.content)

    def tools(self, content: str, weather: Tool) -> str:
        messages: list[Any] = list(_user(content))
        message = self._complete(messages, tools=[TOOL]).choices[0].message
        messages += [message, *_results(message.tool_calls, weather)]
        return str(self._complete(messages, tools=[TOOL]).choices[0].message.content)

    def structured(self, content: str) -> dict[str, Any]:
        answer = self._complete(_user(content), response_format=Weather)
        return Weather.model_validate_json(answer.choices[0].message.content).model_dump()

    def stream(self, content: str, headers: dict[str, str], heard: Heard) -> None:
        chunks = self._complete(_user(content), stream=True, extra_headers=headers)
        for chunk in chunks:
            text = chunk.choices[0].delta.content
            if text and not heard(text):
                chunks.close()
                break


CLIENTS: dict[str, Callable[[str, str], Client]] = {
    "openai": Openai,
    "openai, a function as key": RenewedOpenai,
    "openai 1.0": FirstOpenai,
    "langchain-openai": Langchain,
    "pydantic-ai": PydanticAi,
    "openai-agents": OpenaiAgents,
    "litellm": Litellm,
}


def prepare(names: Iterable[str]) -> None:
    """Import what the clients need: modules that import each other do not bear two threads."""
    for name in names:
        if name in CLIENTS:
            CLIENTS[name]("http://127.0.0.1", "none")


def _cancel(task: dict[str, str]) -> None:
    cancel = urllib.request.Request(
        f"{task['url']}/v1/chat/completions/{task['id']}/cancel",
        method="POST",
        headers={"Authorization": f"Bearer {task['token']}"},
    )
    urllib.request.urlopen(cancel, timeout=20).close()


def _do(client: Client, task: dict[str, str], shown: dict[str, Any]) -> None:
    content = task["content"]

    def weather(city: str) -> str:
        shown["calls"].append(city)
        return f"sunny in {city}"

    def stop(text: str) -> bool:
        shown["text"] += text
        if text:
            shown["stopped_at"] = time.time()
        return not text

    def cancel(text: str) -> bool:
        if text and not shown["text"]:
            shown["stopped_at"] = time.time()
            _cancel(task)
        shown["text"] += text
        return True

    match task["capability"]:
        case "tools":
            shown["text"] = client.tools(content, weather)
        case "structured":
            shown["object"] = client.structured(content)
        case "stop":
            client.stream(content, {}, stop)
        case "cancel":
            client.stream(content, {"X-Client-Request-Id": task["id"]}, cancel)
        case _:
            shown["text"] = client.whole(content)


def use(task: dict[str, str]) -> dict[str, Any]:
    """Return what the client shows of one capability."""
    shown: dict[str, Any] = {
        "text": "",
        "calls": [],
        "object": None,
        "stopped_at": None,
    }
    failures = Shown()

    def run() -> None:
        try:
            _do(CLIENTS[task["client"]](task["url"], task["token"]), task, shown)
        except Exception as error:
            failures.failed(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANGS_AFTER_S)
    if thread.is_alive():
        failures.failed(TimeoutError("it does not end"))
    shown["errors"] = failures.errors
    return {"client": task["client"], "capability": task["capability"], "shown": shown}
