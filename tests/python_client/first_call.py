"""A first use of the installed package, in both of its forms. Run by test_wheel.py."""

import asyncio
from importlib.metadata import version

import openai

import weir_client
from weir_client import AsyncWeir, BadRequest, Weir

HELLO = [{"role": "user", "content": "Hello there"}]


def blocking() -> None:
    with Weir() as weir:
        answer = weir.chat.completions.create(user_id="u_wheel", messages=HELLO)
        assert answer.choices[0].message.content == "Hello there"
        chunks = weir.chat.completions.create(user_id="u_wheel", messages=HELLO, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello there"
        assert weir.me(user_id="u_wheel").user_id == "u_wheel"
        reason = None
        try:
            weir.chat.completions.create(user_id="u_wheel", messages=HELLO, model="none")
        except BadRequest as error:
            reason = error.reason
        assert reason == "model_not_found"
        stream = weir.chat.completions.create(
            user_id="u_wheel", messages=HELLO, model="slow", stream=True
        )
        with stream:
            next(stream)


async def awaited() -> None:
    async with AsyncWeir() as weir:
        answer = await weir.chat.completions.create(user_id="u_wheel", messages=HELLO)
        assert answer.choices[0].message.content == "Hello there"
        chunks = await weir.chat.completions.create(user_id="u_wheel", messages=HELLO, stream=True)
        assert [c.choices[0].delta.content async for c in chunks]
        assert [thread async for thread in weir.threads.list(user_id="u_wheel")] == []


blocking()
asyncio.run(awaited())
assert version("weir-client") == weir_client.__version__
print(openai.__version__)  # noqa: T201
