"""Pages of an answer, and the cursor that leads from one to the next.

Buckets come in the order of time. Groups come most expensive first; but new usage changes that
order while somebody turns pages. So only the first page is chosen by cost. The next ones are chosen
by key, without the keys that the first page had, which the cursor remembers as fingerprints.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from weir.errors import BadRequest
from weir.usage.sums import Totals, by_cost

# How many keys the first page of groups may have if it does not have all, and their fingerprints.
MOST_REMEMBERED, FINGERPRINT_BYTES = 200, 6


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next page begins: behind the key `after`, without the keys in `remembered`."""

    after: str | None
    remembered: bytes = b""


@dataclass(frozen=True, slots=True)
class Cursor:
    """`question` is the digest of the question that it belongs to, `window` that question's window
    in Unix milliseconds. It gives no right: whose usage it is does not come from here.
    """

    question: str
    window: tuple[int, int]
    place: Place

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raise BadRequest if `text` is not a cursor. Its window may still be too long."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            version, question, from_ms, to_ms, after, fingerprints = json.loads(raw)
            remembered = base64.b64decode(fingerprints, validate=True)
        except (ValueError, TypeError, RecursionError):
            raise _bad_cursor() from None
        whole = all(isinstance(ms, int) and not isinstance(ms, bool) for ms in (from_ms, to_ms))
        if version != 1 or not whole or not isinstance(after, str | None):
            raise _bad_cursor()
        if len(remembered) > MOST_REMEMBERED * FINGERPRINT_BYTES:
            raise _bad_cursor()
        return cls(question, (from_ms, to_ms), Place(after, remembered))

    def text(self) -> str:
        fingerprints = base64.b64encode(self.place.remembered).decode()
        parts = [1, self.question, *self.window, self.place.after, fingerprints]
        raw = json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bad_cursor() -> BadRequest:
    return BadRequest("That is no cursor of this gateway's.", param="cursor")


def of_times(
    buckets: Mapping[str, Totals], limit: int, place: Place | None
) -> tuple[list[str], Place | None]:
    """Return a page of keys in the order of time, and where the next page begins."""
    return _by_key(buckets, limit, place or Place(None))


def of_groups(
    groups: Mapping[str, Totals], limit: int, place: Place | None
) -> tuple[list[str], Place | None]:
    """Return a page of keys, most expensive first, and where the next page begins."""
    if place is not None:
        page, more = _by_key(groups, limit, place)
        return [key for key, _ in by_cost({key: groups[key] for key in page})], more
    page = [key for key, _ in by_cost(groups)]
    if len(page) <= limit:
        return page, None
    page = page[: min(limit, MOST_REMEMBERED)]
    return page, Place(None, b"".join(map(_fingerprint, page)))


def _by_key(keys: Iterable[str], limit: int, place: Place) -> tuple[list[str], Place | None]:
    left = sorted(_left(keys, place))
    page = left[:limit]
    return page, Place(page[-1], place.remembered) if len(left) > limit else None


def _left(keys: Iterable[str], place: Place) -> Iterator[str]:
    step, remembered = FINGERPRINT_BYTES, place.remembered
    known = {remembered[at : at + step] for at in range(0, len(remembered), step)}
    for key in keys:
        if (place.after is None or key > place.after) and not (
            known and _fingerprint(key) in known
        ):
            yield key


def _fingerprint(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()[:FINGERPRINT_BYTES]
