"""Who is signed in: one demo account, kept in a signed, HttpOnly cookie.

This file stands for what your app has already: Auth0, Clerk, Django's sessions, anything that
verifies on the server who is asking. The rest of the example needs `require_user` only.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware


@dataclass(frozen=True)
class User:
    id: str
    email: str
    plan: int | None = None


class SignIn(BaseModel):
    email: str
    password: str


def require_same_origin(request: Request) -> None:
    """Refuse what another site's page sends with this site's cookie.

    SameSite=Lax is not enough on localhost, where every port belongs to the same site.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "Only this site's own pages may do that.")


def require_user(request: Request) -> User:
    """Return the user of the session. Raise 401 if there is none."""
    email = request.session.get("email")
    if not email:
        raise HTTPException(401, "Sign in first.")
    return User(id=user_id(email), email=email)


SignedIn = Annotated[User, Depends(require_user)]


def user_id(email: str) -> str:
    """Return the id that the gateway knows this user by: stable, and without the address in it."""
    return "u_" + hashlib.sha256(email.encode()).hexdigest()[:24]


def add_to(app: FastAPI) -> None:
    app.add_middleware(
        SessionMiddleware,
        secret_key=os.environ.get("SESSION_SECRET") or secrets.token_hex(32),
        session_cookie="session",
        same_site="lax",
        max_age=12 * 3600,  # seconds
        https_only=os.environ.get("SESSION_HTTPS_ONLY") == "1",
    )

    @app.post("/api/sign-in", dependencies=[Depends(require_same_origin)])
    def sign_in(form: SignIn, request: Request) -> dict[str, str]:
        expected = os.environ["DEMO_EMAIL"], os.environ["DEMO_PASSWORD"]
        given = form.email.strip().lower(), form.password
        if not all(
            secrets.compare_digest(a.encode(), b.encode())
            for a, b in zip(given, expected, strict=True)
        ):
            raise HTTPException(401, "The e-mail address or the password is wrong.")
        request.session["email"] = given[0]
        return {"email": given[0]}

    @app.post("/api/sign-out", dependencies=[Depends(require_same_origin)])
    def sign_out(request: Request) -> dict[str, bool]:
        request.session.clear()
        return {"signed_out": True}

    @app.get("/api/session")
    def session(user: SignedIn) -> dict[str, str]:
        return {"email": user.email}
