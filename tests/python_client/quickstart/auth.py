"""The application's own sessions, which the quickstart takes for granted."""

from dataclasses import dataclass

from fastapi import HTTPException, Request


@dataclass(frozen=True)
class User:
    id: str
    plan: int | None


SESSIONS = {"session-of-jo": User("jo", 2), "session-of-al": User("al", None)}


def require_user(request: Request) -> User:
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        raise HTTPException(401, "Sign in.")
    return user
