# ruff: noqa: B008 (as FastAPI is written)
"""The quickstart's application, with routes that send its answers to a browser."""

from collections.abc import AsyncIterator

from fastapi import Body, Depends
from fastapi.responses import StreamingResponse

from .app import app
from .auth import User, require_user
from .chat import behest, chat_for_user


@app.post("/chat")
async def chat(
    user: User = Depends(require_user), messages: list = Body(embed=True)
) -> StreamingResponse:
    return StreamingResponse(chat_for_user(user.id, messages), media_type="text/plain")


@app.post("/slow")
async def slow(user: User = Depends(require_user)) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        stream = await behest.chat.completions.create(
            user_id=user.id,
            messages=[{"role": "user", "content": "word " * 300}],
            model="slow",
            stream=True,
        )
        async for chunk in stream:
            yield chunk.choices[0].delta.content or ""

    return StreamingResponse(words(), media_type="text/plain")
