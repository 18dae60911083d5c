"""A FastAPI backend that mints tokens for its users' pages, and can chat for them itself."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import auth
from chat import behest, chat_for_user
from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import Request

from weir_client import WeirError

STATIC = Path(__file__).parent / "static"
GATEWAY = os.environ.get("WEIR_BASE_URL") or os.environ["BEHEST_BASE_URL"]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    f" img-src data:; connect-src 'self' {GATEWAY};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

app = FastAPI(openapi_url=None)
auth.add_to(app)


@app.post("/api/behest/token", dependencies=[Depends(auth.require_same_origin)])
async def mint_token(user: auth.SignedIn) -> JSONResponse:
    # user.id and user.plan come from your verified session, never from the request's body.
    result = await behest.auth.mint(user_id=user.id, tier=user.plan or 1, ttl=900)
    return JSONResponse(
        {
            "token": result.token,
            "ttl": result.ttl,
            "sessionId": result.session_id,
            "expiresAt": result.expires_at,
        },
        headers={"Cache-Control": "no-store"},
    )


@app.post("/api/chat", dependencies=[Depends(auth.require_same_origin)])
async def chat(
    user: auth.SignedIn, messages: Annotated[list[dict[str, Any]], Body(embed=True)]
) -> StreamingResponse:
    """Answer through this server, as plain text in pieces."""
    pieces = chat_for_user(user.id, messages)
    first = await anext(pieces, "")  # an error before the first word is still an HTTP error

    async def all_pieces() -> AsyncIterator[str]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(all_pieces(), media_type="text/plain; charset=utf-8")


@app.exception_handler(WeirError)
async def explain(request: Request, error: WeirError) -> JSONResponse:
    """Pass on what is about the user; keep to the server what is about its own settings."""
    theirs = error.status in (400, 402, 429)
    status = error.status if theirs and error.status else 503
    message = str(error) if theirs else "The chat is not available now. Try again later."
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    return JSONResponse({"code": error.code, "message": message}, status, headers)


@app.exception_handler(HTTPException)
async def say(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"message": error.detail}, error.status_code)


@app.get("/config.json")
def config() -> dict[str, str]:
    return {"gateway": GATEWAY}


@app.get("/")
def page() -> FileResponse:
    return FileResponse(STATIC / "index.html", headers=HEADERS)


app.mount("/", StaticFiles(directory=STATIC))
