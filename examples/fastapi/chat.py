"""Chat from the server: for background jobs, or where only the server may add to a prompt."""

from collections.abc import AsyncIterator
from typing import Any

from weir_client import AsyncWeir as Behest

behest = Behest()  # reads BEHEST_KEY and BEHEST_BASE_URL (or WEIR_KEY and WEIR_BASE_URL)


async def chat_for_user(user_id: str, messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    # With user_id on the call, the client mints a token for this user, and keeps it.
    stream = await behest.chat.completions.create(
        messages=messages,
        stream=True,
        user_id=user_id,
        # model is optional: the project's default when omitted
    )
    async for chunk in stream:
        yield chunk.choices[0].delta.content or ""
