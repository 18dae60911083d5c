"""Webhook endpoints: where a project's server wants to be told of events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weir import identifiers
from weir.errors import BadRequest
from weir.web.public_addresses import parse_public_url
from weir.webhooks.events import SUBSCRIPTIONS, TEST

MOST_ENDPOINTS = 10  # of a project
MAX_DESCRIPTION = 200  # characters
OLD_SECRET_S = 86_400  # for which a replaced secret signs beside the new one


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A stored endpoint. Its secrets are sealed (weir/aws/webhooks/seal.py): `old_secret` signs,
    too, before `old_secret_until`. Times are Unix seconds.
    """

    id: str
    url: str
    events: tuple[str, ...]
    description: str
    enabled: bool
    created_at: int
    secret: str
    secret_created_at: int
    old_secret: str | None = None
    old_secret_until: int = 0

    @classmethod
    def from_document(cls, endpoint_id: str, told: Mapping[str, Any]) -> "Endpoint":
        return cls(id=endpoint_id, **{**told, "events": tuple(told["events"])})

    def document(self) -> dict[str, Any]:
        """As it is kept, under its id."""
        told = {name: getattr(self, name) for name in _KEPT}
        if self.old_secret is not None:
            told |= {"old_secret": self.old_secret, "old_secret_until": self.old_secret_until}
        return {**told, "events": list(self.events)}

    def view(self) -> dict[str, Any]:
        """As it may be shown, and kept in the audit trail: without its secrets."""
        return {
            "id": self.id,
            "object": "webhook_endpoint",
            **{name: getattr(self, name) for name in _SHOWN},
            "events": list(self.events),
            "old_secret_until": self.old_secret_until if self.old_secret else None,
        }

    def wants(self, event_type: str) -> bool:
        """Whether it is to be told of events of this type; of a test always."""
        if not self.enabled:
            return False
        return event_type == TEST or any(SUBSCRIPTIONS[each] == event_type for each in self.events)

    def sealed_secrets(self, now: int) -> list[str]:
        """Return those that sign now, the newest first."""
        old = self.old_secret if now < self.old_secret_until else None
        return [self.secret] if old is None else [self.secret, old]


_SHOWN = ("url", "description", "enabled", "created_at", "secret_created_at")
_KEPT = (*_SHOWN, "secret")


def parse_new(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return url, events and description of an endpoint to be made. Raise BadRequest. Members that
    are not known are ignored (contracts/ringside.md, section 2.1).
    """
    if "url" not in told:
        raise BadRequest("url is missing: where to send events, https://….", param="url")
    if "events" not in told:
        raise _bad_events("events is missing")
    return {"description": "", "enabled": True, **parse_change(told)}


def parse_change(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be changed of an endpoint. Raise BadRequest."""
    parsed: dict[str, Any] = {}
    if "url" in told:
        parsed["url"] = parse_url(told["url"])
    if "events" in told:
        parsed["events"] = parse_events(told["events"])
    if "description" in told:
        parsed["description"] = _description(told["description"])
    if "enabled" in told:
        if not isinstance(told["enabled"], bool):
            raise BadRequest("enabled must be true or false.", param="enabled")
        parsed["enabled"] = told["enabled"]
    return parsed


def parse_url(told: object) -> str:
    """What the name resolves to is judged at each delivery (weir/upstreams/guarded.py)."""
    try:
        return parse_public_url(told if isinstance(told, str) else "")
    except ValueError as error:
        raise BadRequest(f"url: {error}.", code="invalid_url", param="url") from None


def parse_events(told: object) -> tuple[str, ...]:
    if not isinstance(told, list) or not told:
        raise _bad_events("events must be a list of at least one name")
    unknown = [each for each in told if not isinstance(each, str) or each not in SUBSCRIPTIONS]
    if unknown:
        raise _bad_events(f"There is no event {str(unknown[0])[:100]!r}")
    return tuple(dict.fromkeys(told))


def _bad_events(what: str) -> BadRequest:
    known = list(SUBSCRIPTIONS)
    return BadRequest(
        f"{what}. Events: {', '.join(known)}.", param="events", details={"allowed": known}
    )


def _description(told: object) -> str:
    if told is None:
        return ""
    if not isinstance(told, str) or len(told) > MAX_DESCRIPTION or not identifiers.is_plain(told):
        raise BadRequest(
            f"description must be a text of one line, of at most {MAX_DESCRIPTION} characters.",
            param="description",
        )
    return told


def page(ids: Sequence[str], limit: int, after: str | None) -> tuple[Sequence[str], str | None]:
    """Return the ids of one page of a list in order, and the last of them if there are more."""
    rest = [each for each in ids if after is None or each > after]
    return rest[:limit], rest[limit - 1] if len(rest) > limit else None
