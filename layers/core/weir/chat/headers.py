"""The headers of an answer: whose it is, who was asked for it, and which limits its caller has."""

from weir.chat import fields
from weir.chat.completion import Running
from weir.ledger import rules
from weir.web.request import answer_headers


def of_answer(running: Running) -> dict[str, str]:
    chat = running.chat
    project = chat.snapshot.project
    extra = {
        "X-Completion-Id": chat.completion_id,
        "X-Weir-Upstreams": ", ".join(running.attempts),
        **rules.policy_headers(chat.snapshot.limits_of(chat.claims.tier), running.reservation.at),
    }
    if chat.whom is not None:
        extra["X-Ringside-Model-Used"] = f"fc:{running.candidate.name}"
        if chat.snapshot.limits_of(chat.claims.tier).nano_usd_per_month is not None:
            reset = rules.resets_at(rules.BY_CODE["n"], running.reservation.at)
            extra["X-Ringside-Budget-Reset"] = str(reset)
    for name, value in (("X-Session-Id", chat.session_id), ("X-Thread-Id", chat.thread_id)):
        if value and value.isascii() and value.isprintable():  # what a header can carry
            extra[name] = value
    if chat.asked.dropped:
        extra["X-Weir-Dropped"] = fields.listed(chat.asked.dropped)
    if chat.asked.stream:
        extra["Content-Type"] = "text/event-stream; charset=utf-8"
        extra["Cache-Control"] = "no-store, no-transform"
        extra["X-Accel-Buffering"] = "no"
    return answer_headers(chat.request, project.origins, extra)
