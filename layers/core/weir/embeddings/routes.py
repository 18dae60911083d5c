"""The two routes, and the way of a request through them: as a chat's (weir/chat/completion.py), but
for what is understood and for what is read of the provider's answer.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from weir.chat.customers import ForCustomer

# A provider's answer is held in memory: 2,048 vectors of 4,096 numbers in base64 fit.
MOST_READ_BYTES = 48_000_000
# Ours is made piece by piece. Lambda streams 200 MB, the first 6 at once and then 2 in a second.
MOST_SENT_BYTES = 180_000_000
BASE_BYTES = 256_000
BYTES_OF_A_JUDGEMENT = 16_000
# Of a number, as providers write it: four bytes in base64; about 22 as text, and rarely more.
BYTES_IN_BASE64, BYTES_AS_TEXT = 16 / 3, 24
_BLANK = b" \t\r\n\xef\xbb\xbf"


class Route(NamedTuple):
    """`name` is the log's word for a request, and the scope of tokens that have scopes. `read`
    takes the provider's `results`, a member of its document, and refuses what cannot be read;
    `write` makes the answer of what it returns and of `model` and `usage`, in pieces. `most_bytes`:
    of a result.
    """

    name: str
    kind: str  # of its models
    id_prefix: str
    understand: Callable[[Mapping[str, Any], Target], InputRequest]
    results: str
    read: Callable[[object, InputRequest], Any]
    write: Callable[[Any, Chat, dict[str, Any], Mask], Iterator[bytes]]
    most_bytes: Callable[[InputRequest], int]


def _of_a_vector(asked: InputRequest) -> int:
    return BYTES_AS_TEXT * (asked.dimensions or inputs.MOST_DIMENSIONS)


def _write_vectors(
    vectors: list[answers.Vector], chat: Chat, members: dict[str, Any], mask: Mask
) -> Iterator[bytes]:
    return answers.of_vectors(vectors, _asked(chat).encoding, _encode(members)[1:])


def _write_judgements(
    judged: list[dict[str, Any]], chat: Chat, members: dict[str, Any], mask: Mask
) -> Iterator[bytes]:
    answer = {"id": chat.completion_id, "results": judged, **members}
    line = _encode(answer).encode()
    yield _encode(mask.value(answer)).encode() if mask.is_needed(line) else line


ROUTES = {
    "/v1/embeddings": Route(
        name="embeddings",
        kind=EMBEDDING,
        id_prefix="embd-",
        understand=inputs.embeddings,
        results="data",
        read=answers.embeddings,
        write=_write_vectors,
        most_bytes=_of_a_vector,
    ),
    "/v1/moderations": Route(
        name="moderations",
        kind=MODERATION,
        id_prefix="modr-",
        understand=inputs.moderations,
        results="results",
        read=answers.moderations,
        write=_write_judgements,
        most_bytes=lambda _: BYTES_OF_A_JUDGEMENT,
    ),
}


def understood(
    route: Route,
    request: Request,
    claims: Claims,
    snapshot: Snapshot,
    body: Mapping[str, Any],
    *,
    at_ms: int,
    random_hex: str,
    whom: "ForCustomer | None" = None,
) -> Chat:
    """Raises the refusal of a request that cannot be answered, before anything is held for it."""
    project = snapshot.project
    if whom is None:
        model = project.choose(body.get("model"), snapshot.catalogue, route.kind)
    else:
        from weir.chat.customers import model_for

        model = model_for(snapshot, whom, body.get("model"), kind=route.kind)
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
    return Chat(request, claims, snapshot, bounded, asked, named, at_ms, whom=whom)


def _check_size(asked: InputRequest, dimensions: int | None) -> None:
    """Refuse what cannot be read or answered for its size, where that can be known before."""
    if dimensions is None:
        return
    sent = BYTES_IN_BASE64 if asked.encoding == BASE64 else BYTES_AS_TEXT
    numbers = min((MOST_READ_BYTES - BASE_BYTES) / BYTES_IN_BASE64, MOST_SENT_BYTES / sent)
    fit = int(numbers / dimensions)
    if asked.inputs > fit:
        raise BadRequest(
            f"The answer would be too large: send at most {fit:,} inputs of {dimensions:,} "
            "dimensions at once.",
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
    """Yield the answer of the first upstream that gives one. Whatever happens, the request is
    settled. What fails is raised by the first `next`.
    """

    def complete(
        _: relay.Answering, upstream: relay.Upstream, timing: relay.Timing, outcome: Outcome
    ) -> Iterator[bytes]:
        yield from _complete(route, running, upstream, timing, outcome)

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
    upstream: relay.Upstream,
    timing: relay.Timing,
    outcome: Outcome,
) -> Iterator[bytes]:
    """Return the whole answer, in pieces that are still to be made."""
    chat, mask = running.chat, upstream.mask
    asked = _asked(chat)
    watch = relay.Watch(
        replace(timing, deadline=min(timing.deadline, timing.monotonic() + relay.WHOLE_ANSWER_S))
    )
    watch.sign_of_life_at = float("inf")  # nobody waits for heartbeats
    most = min(MOST_READ_BYTES, BASE_BYTES + asked.inputs * route.most_bytes(asked))
    try:
        document = _document(upstream, watch, most, outcome)
        outcome.usage = answers.usage(document)
        outcome.usage_is_final = outcome.usage is not None
        found = _read(route, document, asked, outcome, mask)
        outcome.state = State.FINISHED
        outcome.complete()
    except Refusal as refusal:
        outcome.fail(refusal)
        raise
    finally:
        outcome.total_s = outcome.first_byte_s = timing.monotonic() - watch.started
        upstream.close()
    name = answers.model_of(document, mask) or chat.model.name
    if chat.whom is not None:
        name = chat.whom.model
    members = {"model": name, "usage": _receipt(running, outcome)}
    return route.write(found, chat, members, mask)


def _asked(chat: Chat) -> InputRequest:
    assert isinstance(chat.asked, InputRequest)
    return chat.asked


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
            if most_bytes < MOST_READ_BYTES:
                raise unreadable("it is too large")
            raise TooLarge(
                f"The provider's answer has more than {MOST_READ_BYTES // 1_000_000} MB. Send "
                "fewer inputs at once."
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


def _read(
    route: Route, document: dict[str, Any], asked: InputRequest, outcome: Outcome, mask: Mask
) -> Any:
    results = document.get(route.results)
    if not results and outcome.usage is None:
        outcome.state = State.REFUSED  # it says itself that it has done nothing
    failure = failure_in(document)
    if failure is None:
        return route.read(results, asked)
    from weir.chat.failures import refusal_in_answer  # few processes need it

    raise refusal_in_answer(failure, mask, before_any_word=True)


def _receipt(running: Running, outcome: Outcome) -> dict[str, Any]:
    told = completion.receipt(running, outcome)
    shown = ("prompt_tokens", "total_tokens", "estimated", "cost_usd")
    return {name: told[name] for name in shown if name in told}


_encode = json.JSONEncoder(separators=(",", ":")).encode
