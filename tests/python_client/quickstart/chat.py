# chat.py
from weir_client import AsyncWeir as Behest

behest = Behest()  # reads BEHEST_KEY + BEHEST_BASE_URL from env

async def chat_for_user(user_id: str, messages: list):
    # Pass user_id on the chat call — the SDK auto-mints a per-user JWT for this request.
    stream = await behest.chat.completions.create(
        messages=messages,
        stream=True,
        user_id=user_id,
        # model is optional — Behest uses your project default when omitted
    )
    async for chunk in stream:
        yield chunk.choices[0].delta.content or ""
