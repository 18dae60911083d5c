"""The two routes, and the way of a request through them: as a chat's (weir/chat/completion.py), but
for what is understood and for what is read of the provider's answer.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from weir.chat import completion, relay
from weir.chat.completion import Chat, Running
from weir.chat.detection import failure_in
from weir.chat.masking import Mask
from weir.chat.normaliser import unreadable
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.request import Target, completion_id
from weir.embeddings import answers, inputs
from weir.embeddings.inputs import BASE64, InputRequest
from weir.errors import BadRequest, Refusal, TooLarge
from weir.identity.tokens import Claims
from weir.projects.model_kinds import EMBEDDING, MODERATION
from weir.projects.snapshot import Snapshot
from weir.web.request import Request, refuse_constant

# An answer is held in memory, several times over. As base64, 2,048 vectors of 3,072 numbers fit.
MOST_ANSWER_BYTES = 40_000_000
BASE_BYTES = 256_000
BYTES_OF_A_JUDGEMENT = 16_000
# Of a number, as providers write it: four bytes in base64; about 22 as text, and rarely more.
BYTES_IN_BASE64, BYTES_AS_TEXT = 16 / 3, 24
_BLANK = b" \t\r\n\xef\xbb\xbf"


class Route(NamedTuple):
    """`name` is also the scope that a token must have whose scopes are limited. `answer` makes the
    answer of the provider's `results`, a member of its document. `most_bytes`, of one result.
    """

    name: str
    kind: str  # of its models
    id_prefix: str
    understand: Callable[[Mapping[str, Any], Target], InputRequest]
    results: str
    answer: Callable[[object, InputRequest], dict[str, Any]]
    most_bytes: Callable[[InputRequest], int]


def _of_a_vector(asked: InputRequest) -> int:
    return BYTES_AS_TEXT * (asked.dimensions or inputs.MOST_DIMENSIONS)


ROUTES = {
    "/v1/embeddings": Route(
        "embeddings",
        EMBEDDING,
        "embd-",
        inputs.embeddings,
        "data",
        answers.embeddings,
        _of_a_vector,
    ),
    "/v1/moderations": Route(
        "moderations",
        MODERATION,
        "modr-",
        inputs.moderations,
        "results",
        answers.moderations,
        lambda _: BYTES_OF_A_JUDGEMENT,
    ),
}


def understood(
    route: Route,
    request: Request,
    claims: Claims,
    snapshot: Snapshot,
    body: Mapping[str, Any],
    *,
    subject: str,
    at_ms: int,
    random_hex: str,
) -> Chat:
    """Raises the refusal of a request that cannot be answered, before anything is held for it."""
    project = snapshot.project
    model = project.choose(body.get("model"), snapshot.catalogue, route.kind)
    target = Target(
        max_output_tokens=0,
        upstreams=tuple(candidate.upstream for candidate in model.candidates),
        allowed_fields=project.allowed_fields | model.allowed_fields,
    )
    asked = route.understand(body, target)
    _check_size(asked, asked.dimensions or model.dimensions)
    chosen = request.headers.get("x-client-request-id")
    named = completion_id(chosen, random_hex) if chosen else route.id_prefix + random_hex
    bounded = inputs.for_inputs(model, asked.inputs)
    return Chat(request, claims, snapshot, bounded, asked, named, subject, at_ms)


def _check_size(asked: InputRequest, dimensions: int | None) -> None:
    """Refuse what would be answered with more than can be held, where that can be known."""
    if dimensions is None:
        return
    each = BYTES_IN_BASE64 if asked.encoding == BASE64 else BYTES_AS_TEXT
    fit = int((MOST_ANSWER_BYTES - BASE_BYTES) / (dimensions * each))
    if asked.inputs > fit:
        other = "" if asked.encoding == BASE64 else ", or ask for encoding_format base64"
        raise BadRequest(
            f"The answer would be too large: send at most {fit:,} inputs of {dimensions:,} "
            f"dimensions at once{other}.",
            code="invalid_input",
            param="input",
        )


def relayed(
    route: Route,
    running: Running,
    timing: relay.Timing,
    *,
    open_upstream: completion.Open,
    settle: Callable[[Running], None],
) -> Iterator[bytes]:
    """Yield the answer of the first upstream that gives one, in one piece. Whatever happens, the
    request is settled.
    """

    def complete(
        answering: relay.Answering, upstream: relay.Upstream, timing: relay.Timing, out: Outcome
    ) -> bytes:
        return _complete(route, running, answering, upstream, timing, out)

    return completion.relayed(
        running,
        timing,
        open_upstream=open_upstream,
        settle=settle,
        cancelled=relay.never,  # over before anybody could want that
        complete=complete,
    )


def _complete(
    route: Route,
    running: Running,
    answering: relay.Answering,
    upstream: relay.Upstream,
    timing: relay.Timing,
    outcome: Outcome,
) -> bytes:
    chat, mask = running.chat, upstream.mask
    asked = chat.asked
    assert isinstance(asked, InputRequest)
    watch = relay.Watch(
        replace(timing, deadline=min(timing.deadline, timing.monotonic() + relay.WHOLE_ANSWER_S))
    )
    watch.sign_of_life_at = float("inf")  # nobody waits for heartbeats
    most = min(MOST_ANSWER_BYTES, BASE_BYTES + asked.inputs * route.most_bytes(asked))
    try:
        document = _document(upstream, watch, most, outcome)
        outcome.usage = answers.usage(document)
        outcome.usage_is_final = outcome.usage is not None
        made = _made(route, document, asked, outcome, mask)
        outcome.state = State.FINISHED
        outcome.complete()
        name = answers.model_of(document, mask) or chat.model.name
        if route.kind == MODERATION:
            made = {"id": answering.completion_id, "model": name, **made}
        else:
            made["model"] = name
        made["usage"] = _receipt(answering, outcome)
        return _written(made, mask)
    except Refusal as refusal:
        outcome.fail(refusal)
        raise
    finally:
        outcome.total_s = outcome.first_byte_s = timing.monotonic() - watch.started
        upstream.close()


def _document(
    upstream: relay.Upstream, watch: relay.Watch, most_bytes: int, outcome: Outcome
) -> dict[str, Any]:
    pieces: list[bytes] = []
    size = 0
    for data in relay.arrivals(upstream, watch, outcome, relay.never, lambda _: None):
        if data is None:
            continue
        size += len(data)
        pieces.append(data)
        if outcome.state is State.BEGUN and (head := b"".join(pieces).lstrip(_BLANK)):
            if head[:1] != b"{":
                outcome.ending = Ending.BROKEN
                raise unreadable("it is no JSON object")
            outcome.state = State.SPEAKING  # how much of it is done cannot be known
        if size > most_bytes:
            outcome.state, outcome.ending = State.SPEAKING, Ending.BROKEN
            if most_bytes < MOST_ANSWER_BYTES:
                raise unreadable("it is too large")
            raise TooLarge(
                f"The provider's answer has more than {MOST_ANSWER_BYTES // 1_000_000} MB. Send "
                "fewer inputs at once, or ask for encoding_format base64."
            )
    outcome.chunks = 1
    # From here on it has ended by itself: what is wrong with it is the provider's fault.
    outcome.ending = Ending.BROKEN
    try:
        document = json.loads(b"".join(pieces), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise unreadable("it is not JSON") from None
    if not isinstance(document, dict):
        raise unreadable("it is no JSON object")
    return document


def _made(
    route: Route, document: dict[str, Any], asked: InputRequest, outcome: Outcome, mask: Mask
) -> dict[str, Any]:
    results = document.get(route.results)
    if not results and outcome.usage is None:
        outcome.state = State.REFUSED  # it says itself that it has done nothing
    failure = failure_in(document)
    if failure is None:
        return route.answer(results, asked)
    from weir.chat.failures import refusal_in_answer  # few processes need it

    raise refusal_in_answer(failure, mask, before_any_word=True)


def _receipt(answering: relay.Answering, outcome: Outcome) -> dict[str, Any]:
    told = answering.receipt(outcome) or {}
    shown = ("prompt_tokens", "total_tokens", "estimated", "cost_usd")
    return {name: told[name] for name in shown if name in told}


def _written(answer: dict[str, Any], mask: Mask) -> bytes:
    line = _encode(answer).encode()
    return _encode(mask.value(answer)).encode() if mask.is_needed(line) else line


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
