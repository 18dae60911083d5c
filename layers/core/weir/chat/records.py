"""What a chat request leaves in the log: one line for itself, with its metrics, and one for each
upstream that failed. No word of what was said.
"""

from collections.abc import Iterator
from typing import Any

from weir.chat.completion import Charge, Running
from weir.errors import LedgerBusy, Refusal, UpstreamRejected
from weir.metrics import COUNT, MILLISECONDS, NO_UNIT, emf
from weir.projects.limits import NANO

SERVICE = "chat"
# What an upstream may be blamed for.
UPSTREAM_ERRORS = {
    "upstream_unavailable",
    "upstream_error",
    "upstream_invalid_response",
    "upstream_credentials_refused",
    "upstream_rate_limited",
    "upstream_quota_exceeded",
    "upstream_timeout",
}


def of_request(
    running: Running, charge: Charge, *, settled: bool, stack: str, at_ms: int
) -> dict[str, Any]:
    """`at_ms` is now: a stream of minutes must not be counted where an alarm has looked already."""
    row = charge.row
    metrics = {
        "Requests": (1, COUNT),
        "Tokens": (row["input_tokens"] + row["output_tokens"], COUNT),
        # What could not be settled is charged, and counted, by the sweeper.
        "CostUsd": (row["nano_usd"] / NANO if settled else 0, NO_UNIT),
        "AboveWorstCase": (int(charge.excess_nano_usd > 0), COUNT),
        "SettlementFailures": (int(not settled), COUNT),
        "Fallbacks": (int(len(running.attempts) > 1), COUNT),
    }
    if row["first_byte_ms"] is not None:
        metrics["FirstByteMs"] = (row["first_byte_ms"], MILLISECONDS)
    return {
        "completion_id": running.chat.completion_id,
        "project": running.chat.claims.pid,
        "chunks": running.outcome.chunks,
        **running.reservation.row,
        **row,
        "stream": running.chat.asked.stream,
        "attempts": running.attempts,
        **emf(SERVICE, stack, at_ms, metrics, {"Model": running.chat.model.name}),
    }


def of_failed_upstreams(running: Running, *, stack: str, at_ms: int) -> Iterator[dict[str, Any]]:
    """For each upstream that failed, before its answer or within it."""
    for attempt in running.attempts:
        name, _, code = attempt.rpartition("=")
        code = running.outcome.outcome if code == "ok" else code
        if code in UPSTREAM_ERRORS:
            yield {
                **running.evidence.get(name, {}),
                "code": code,
                "request_id": running.chat.request.request_id,
                **emf(SERVICE, stack, at_ms, {"UpstreamErrors": (1, COUNT)}, {"Upstream": name}),
            }


def of_refusal(refusal: Refusal, request_id: str, *, stack: str, at_ms: int) -> dict[str, Any]:
    counted = {"Refusals": (1, COUNT), "LedgerBusy": (int(isinstance(refusal, LedgerBusy)), COUNT)}
    # A provider's own code is any word that it likes: a metric of each would have no end.
    code = type(refusal).code if isinstance(refusal, UpstreamRejected) else refusal.code
    return {
        **refusal.log,
        "status": refusal.status,
        "code": refusal.code,
        "details": refusal.details,
        "request_id": request_id,
        **emf(SERVICE, stack, at_ms, counted, {"Code": code}),
    }
