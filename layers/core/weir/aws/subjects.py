"""A subject's record as an item of the table: what is revoked of one user (weir/revocation.py).

Moments are attributes of their own, which the condition of an admission looks at; `doc` is there as
long as the subject is blocked, and says by whom and why. Once nothing is left to refuse, DynamoDB
may tidy the item up.
"""

import json
from collections.abc import Mapping
from typing import Any

from weir.aws.expressions import Expression
from weir.aws.items import Record
from weir.revocation import BLOCKED, KEPT_S, NOT_BEFORE, Issued


def update_of(before: Record, document: Mapping[str, Any], now: int) -> Expression:
    """Return the update that makes `document` of what was read, if that is still there. `now` is
    Unix seconds.
    """
    update = Expression()
    update.require_equal("version", before.version or None)
    update.set("version", before.version + 1)
    for name in sorted({**before.document, **document}):
        value = document.get(name)
        if value == before.document.get(name):
            continue
        attribute = "doc" if name == BLOCKED else name
        if value is None:
            update.remove_named(attribute)
        elif name == BLOCKED:
            update.set(attribute, json.dumps({name: value}, separators=(",", ":")))
        else:
            update.set(attribute, value)
    if BLOCKED in document:
        update.remove_named("ttl")
    else:
        update.set("ttl", now + KEPT_S)
    return update


def condition_for(token: Issued | None, etag: str | None = None) -> Expression:
    """Return the condition under which `Revocations.judge` lets a token pass; of a customer, whose
    record is of the version `etag`.
    """
    condition = Expression()
    condition.require_absent("doc")
    if etag is not None:
        condition.require_equal("etag", etag)
    if token is not None:
        for name in (NOT_BEFORE, token.session):
            if name is not None:
                condition.require_below(name, token.at)
        if token.token is not None:
            condition.require_absent(token.token)
    return condition
