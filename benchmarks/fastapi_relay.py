"""The relay that people write: FastAPI, httpx, PyJWT and boto3, run by uvicorn.

It does what a small team's first version does: check the user's token against the published keys,
look the user up in a table, and pass the provider's stream on as it comes. It counts nothing,
limits nothing, and trusts the provider to be well behaved. Nothing in it is slower than it has to
be: one HTTP client for all requests, bytes passed on unparsed, the store asked outside of the event
loop.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import boto3
import httpx
import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict

users = boto3.resource("dynamodb").Table(os.environ["TABLE_NAME"])
keys = jwt.PyJWKClient(os.environ["JWKS_URL"])
bearer = HTTPBearer()


class Message(BaseModel):
    role: str
    content: str


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="allow")

    messages: list[Message]
    stream: bool = True


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    secrets = boto3.client("secretsmanager")
    secret = secrets.get_secret_value(SecretId=os.environ["PROVIDER_KEYS_SECRET"])
    app.state.provider_key = json.loads(secret["SecretString"])[os.environ["PROVIDER"]]["key"]
    async with httpx.AsyncClient(timeout=300) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict[str, Any]:
    token = credentials.credentials
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=["RS256"],
            audience=os.environ["TOKEN_AUDIENCE"],
            issuer=os.environ["TOKEN_ISSUER"],
        )
    except jwt.PyJWTError as error:
        raise HTTPException(401, "invalid token") from error
    found = users.get_item(Key={"pk": f"USER#{claims['uid']}", "sk": "USER"})
    if "Item" not in found:
        raise HTTPException(403, "unknown user")
    return claims


@app.post("/v1/chat/completions")  # type: ignore[untyped-decorator]
async def chat(
    asked: ChatRequest, _user: Annotated[dict[str, Any], Depends(user)]
) -> StreamingResponse:
    request = app.state.client.build_request(
        "POST",
        os.environ["UPSTREAM_BASE_URL"] + "/chat/completions",
        headers={"Authorization": f"Bearer {app.state.provider_key}"},
        json=asked.model_dump(),
    )
    answer = await app.state.client.send(request, stream=True)
    if answer.status_code != 200:
        await answer.aclose()
        raise HTTPException(502, "the provider failed")

    async def relay() -> AsyncIterator[bytes]:
        try:
            async for data in answer.aiter_bytes():
                yield data
        finally:
            await answer.aclose()

    return StreamingResponse(relay(), media_type="text/event-stream")
