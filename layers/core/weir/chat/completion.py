"""The rules of a chat request: what it may cost, who answers it, and what is billed for it.

A request goes through here in this order: `understood`, then `asked_of_the_ledger`, then `relayed`,
which opens one upstream after the other until one answers, and settles the request whatever
happens. Pure: the ledger, the upstreams and the clock are passed in.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from weir.chat import relay
from weir.chat.outcome import Ending, Outcome, State
from weir.chat.request import ChatRequest, Target, check_length, completion_id, understand
from weir.errors import BadRequest, Refusal
from weir.identity.tokens import Claims
from weir.ledger import costs
from weir.ledger.admission import Ask, Reservation, TokenUse
from weir.ledger.rules import Amounts, Field, Settlement
from weir.projects.catalogue import Candidate, Model
from weir.projects.project import Project
from weir.projects.snapshot import Snapshot
from weir.settings import MAX_CHAT_BODY_BYTES
from weir.web.addresses import counted_as
from weir.web.request import Request

if TYPE_CHECKING:  # hardly any request needs them at run time: see `_continued`
    from weir.chat.customers import ForCustomer
    from weir.chat.replies import Reply
    from weir.chat.threads import Addition, Conversation

# After the longest answer its process is given up, and the sweeper settles for it.
SWEPT_AFTER_S = 60
MAX_LABEL = 128  # characters of a session or thread that are kept with the usage
MAX_TAG = 64


# ---------------------------------------------------------------- before it is admitted


@dataclass(frozen=True, slots=True)
class Chat:
    """One request that has been understood. `addition` is what it adds to a thread or session; None
    if it names none. `whom`: for which customer it is, by the Ringside contract; None: it is of the
    other.
    """

    request: Request
    claims: Claims
    snapshot: Snapshot
    model: Model
    asked: ChatRequest
    completion_id: str
    at_ms: int
    addition: "Addition | None" = None
    whom: "ForCustomer | None" = None

    @property
    def subject(self) -> str:
        """Return who spends, as the ledger knows them."""
        return self.claims.subject

    @property
    def session_id(self) -> str | None:
        return self.request.label("X-Session-Id") or self.claims.sid

    @property
    def thread_id(self) -> str | None:
        return self.request.label("X-Thread-Id")

    @property
    def input_bound(self) -> int:
        return costs.input_bound(self.model, self.asked.text_bytes, self.asked.images)

    @property
    def input_estimate(self) -> int:
        return costs.input_estimate(self.model, self.asked.text_bytes, self.asked.images)


def understood(
    request: Request,
    claims: Claims,
    snapshot: Snapshot,
    body: Mapping[str, Any],
    *,
    at_ms: int,
    random_hex: str,
    conversation: "Conversation | None" = None,
    whom: "ForCustomer | None" = None,
) -> Chat:
    """Raises the refusal of a request that cannot be answered, before anything is held for it.

    What is kept of `conversation` becomes a part of the request, which is priced as a whole.
    """
    project = snapshot.project
    left_out: tuple[str, ...] = ()
    if whom is None:
        model = project.choose(body.get("model"), snapshot.catalogue)
    else:
        model, body, left_out = _for_customer(snapshot, whom, body)
    cap = snapshot.most_output_tokens(claims.tier)
    target = Target(
        model.max_output_tokens if cap is None else min(cap, model.max_output_tokens),
        images=model.image_max_tokens is not None,
        system_prompt=project.system_prompt,
        upstreams=tuple(candidate.upstream for candidate in model.candidates),
        allowed_fields=project.allowed_fields | model.allowed_fields,
        safety_identifier=safety_identifier(claims),
    )
    asked = understand(body, target)
    if left_out:
        asked = replace(asked, dropped=(*left_out, *asked.dropped))
    chosen = completion_id(request.headers.get("x-client-request-id"), random_hex)
    chat = Chat(request, claims, snapshot, model, asked, chosen, at_ms, whom=whom)
    if conversation is not None:
        chat = _continued(chat, conversation, body, target)
    check_length(model, chat.asked)
    return chat


def _for_customer(
    snapshot: Snapshot, whom: "ForCustomer", body: Mapping[str, Any]
) -> tuple[Model, Mapping[str, Any], tuple[str, ...]]:
    """Return the model, and what is left of the body, with what was left out."""
    from weir.chat import customers

    model = customers.model_for(snapshot, whom, body.get("model"), stream=bool(body.get("stream")))
    bindings = whom.claims.bindings
    if bindings is None:
        return model, body, ()
    return model, *customers.narrowed(body, bindings, snapshot.project)


def conversation_of(request: Request, claims: Claims, project: Project) -> tuple[str, str] | None:
    """Return the kind and the name of what this request continues: the thread that it names; else
    its session, if the project remembers sessions. None: nothing is kept.
    """
    if project.retention_days == 0:
        return None
    thread_id = request.label("X-Thread-Id")
    if thread_id is not None:
        return "thread", thread_id
    session_id = request.label("X-Session-Id") or claims.sid
    return ("session", session_id) if project.memory_enabled and session_id else None


def _continued(
    chat: Chat, conversation: "Conversation", body: Mapping[str, Any], target: Target
) -> Chat:
    """Return the chat with the history before its own messages."""
    from weir.chat import history, threads

    project, messages = chat.snapshot.project, body["messages"]
    headers = chat.request.headers
    merge = threads.merge(
        conversation,
        messages,
        at_ms=chat.at_ms,
        completion_id=headers.get("x-client-request-id"),
        is_retry=headers.get("x-stainless-retry-count", "0") != "0",
        tool_calls=project.store_tool_calls,
    )
    together = history.with_history(
        messages,
        merge,
        project.memory_window,
        images=target.images,
        fits=lambda text_bytes, images: _fits(chat, text_bytes, images),
    )
    kept_ms = threads.kept_ms(project, conversation.kind)
    addition = threads.Addition(
        conversation, merge, chat.session_id, project.store_tool_calls, kept_ms
    )
    asked = chat.asked if together is None else understand({**body, "messages": together}, target)
    return replace(chat, asked=asked, addition=addition)


def _fits(chat: Chat, text_bytes: int, images: int) -> bool:
    """Return whether so much history leaves the request one that can be admitted: within the
    model's context, its prices and the body's limit, and no larger than a whole limit of tokens or
    money.
    """
    asked, model, snapshot = chat.asked, chat.model, chat.snapshot
    size = asked.text_bytes + text_bytes, asked.images + images
    if size[0] > MAX_CHAT_BODY_BYTES:
        return False
    most = model.max_input_tokens
    if most is not None and costs.most_input(model, *size) > most:
        return False
    output = asked.output_tokens(asked.output_cap)
    likely = costs.likely_input(model, *size)
    if likely + output > model.context_tokens:
        return False
    tokens = likely + output + asked.choices * max(c.thinking_tokens for c in model.candidates)
    worst = costs.worst_case(
        model.candidates,
        costs.input_bound(model, *size),
        output,
        snapshot.overruns,
        choices=asked.choices,
    )
    return Amounts(tokens, worst).fit(*snapshot.limits(chat.claims.tier))


def safety_identifier(claims: Claims) -> str:
    """Return what stands for the user at a provider that wants to tell users apart: 64 hexadecimal
    digits, always the same for a user of a project, and another one in every project.
    """
    named = "\0".join(("weir safety identifier", claims.tid, claims.pid, claims.uid))
    return sha256(named.encode("utf-8", "surrogatepass")).hexdigest()


def asked_of_the_ledger(chat: Chat, max_stream_s: int) -> Ask:
    """What a request wants to be admitted with: its worst case, at every limit that it has."""
    claims, project, model = chat.claims, chat.snapshot.project, chat.model
    bound, estimate = chat.input_bound, chat.input_estimate
    overruns, choices = chat.snapshot.overruns, chat.asked.choices
    thinking = choices * max(each.thinking_tokens for each in model.candidates)

    def price(output_tokens: int) -> Amounts:
        return Amounts(
            estimate + output_tokens + thinking,
            costs.worst_case(model.candidates, bound, output_tokens, overruns, choices=choices),
        )

    def afford(limit: Field, left: int) -> int:
        if limit.unit == "nano_usd":
            return costs.affordable_output(model.candidates, bound, left, overruns, choices=choices)
        return left - estimate - thinking if limit.unit == "tokens" else 0

    return Ask(
        pid=claims.pid,
        subject=chat.subject,
        tier=claims.tier,
        completion_id=chat.completion_id,
        limits=chat.snapshot.limits_of(claims.tier),
        limited=chat.snapshot.limited_fields,
        project=project.pool,
        tenant=chat.snapshot.tenant_pool,
        price=price,
        afford=afford,
        output_tokens=chat.asked.output_tokens(chat.asked.output_cap),
        choices=chat.asked.choices,
        shrinkable=not chat.asked.cap_asked,
        due=chat.at_ms // 1000 + max_stream_s + SWEPT_AFTER_S,
        row={
            "uid": claims.uid,
            "session_id": _kept(chat.session_id),
            "thread_id": _kept(chat.thread_id),
            "tag": _tag(chat.request),
            "model": model.name,
            "tier": claims.tier,
            "request_id": chat.request.request_id,
        },
        token=claims.issued,
        address="" if project.rpm_per_address is None else counted_as(chat.request.source),
        address_rpm=project.rpm_per_address,
        etag=None if chat.whom is None else chat.whom.etag,
        client_token=_token_use(chat),
    )


def _token_use(chat: Chat) -> TokenUse | None:
    if chat.claims.bindings is None:
        return None
    from weir.chat.customers import token_use

    return token_use(chat.request, chat.claims.bindings)


def _kept(label: str | None) -> str | None:
    return label[:MAX_LABEL] if label else None


def _tag(request: Request) -> str | None:
    tag = request.headers.get("fc-tag")
    if tag and (len(tag) > MAX_TAG or not tag.isprintable()):
        raise BadRequest(f"FC-Tag must be at most {MAX_TAG} printable characters.", param="FC-Tag")
    return tag or None


# ---------------------------------------------------------------- while it runs


@dataclass(slots=True)
class Running:
    """A request that was admitted. `attempts` are the upstreams that were asked, with what came of
    it; `candidate` and `outcome` are of the last one.
    """

    chat: Chat
    reservation: Reservation
    candidate: Candidate
    outcome: Outcome = field(default_factory=Outcome)
    attempts: list[str] = field(default_factory=list)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)  # by upstream, for the log
    reply: "Reply | None" = None  # what of the answer is kept, if anything is

    @classmethod
    def admitted(cls, chat: Chat, reservation: Reservation) -> "Running":
        return cls(chat, reservation, chat.model.candidates[0])

    @property
    def output_cap(self) -> int:
        """For each choice."""
        return self.reservation.output_tokens // self.chat.asked.choices

    @property
    def most_output(self) -> int:
        """Return what was admitted for all choices of this candidate, with what it may think."""
        admitted, choices = self.reservation.output_tokens, self.chat.asked.choices
        return costs.most_output(self.candidate, admitted, choices)


Open = Callable[[Candidate, bytes], relay.Upstream]
Complete = Callable[[relay.Answering, relay.Upstream, relay.Timing, Outcome], Iterator[bytes]]


def relayed(
    running: Running,
    timing: relay.Timing,
    *,
    open_upstream: Open,
    settle: Callable[[Running], None],
    cancelled: Callable[[], bool],
    complete: Complete = relay.completed,
) -> Iterator[bytes]:
    """The answer of the first upstream that gives one. Whatever happens, the request is settled.
    `complete` reads an answer that does not stream.

    What fails before the first `next` has returned is a plain refusal.
    """
    chat, candidates = running.chat, running.chat.model.candidates
    try:
        for candidate in candidates:
            running.candidate, running.outcome = candidate, Outcome()
            running.attempts.append(f"{candidate.upstream.name}=ok")
            try:
                answering = _answering(running, cancelled)
                body = chat.asked.body_for(candidate, running.output_cap)
                upstream = open_upstream(candidate, body)
                if chat.asked.stream:
                    yield from relay.stream(answering, upstream, timing, running.outcome)
                else:
                    yield from complete(answering, upstream, timing, running.outcome)
                return
            except Refusal as refusal:  # before anything was sent to the caller
                running.outcome.fail(refusal)
                running.evidence[candidate.upstream.name] = refusal.log
                running.outcome.ending = _ending(running.outcome)
                running.attempts[-1] = f"{candidate.upstream.name}={refusal.code}"
                if candidate is candidates[-1] or not may_try_another(refusal, running.outcome):
                    raise
    finally:
        if running.outcome.evidence:  # of a stream that failed after it had begun
            running.evidence[running.candidate.upstream.name] = running.outcome.evidence
        settle(running)


def _answering(running: Running, cancelled: Callable[[], bool]) -> relay.Answering:
    chat, hear = running.chat, relay.unheard
    if chat.addition is not None:
        from weir.chat.replies import Reply

        running.reply = Reply()
        hear = running.reply.hear
    return relay.Answering(
        chat.completion_id,
        chat.at_ms // 1000,
        running.most_output,
        choices=chat.asked.choices,
        usage_wanted=chat.asked.usage_wanted,
        logprobs=chat.asked.logprobs,
        model=None if chat.whom is None else chat.whom.model,
        receipt=lambda outcome: receipt(running, outcome),
        cancelled=cancelled,
        hear=hear,
    )


def _ending(outcome: Outcome) -> Ending:
    """Of a request that could not even be opened: nobody has stopped it."""
    return Ending.BROKEN if outcome.state is State.REFUSED else outcome.ending


def may_try_another(refusal: Refusal, outcome: Outcome) -> bool:
    """Whether the next candidate is asked: never if this one may be paid for what it has done."""
    if billed(outcome) is not Billed.NOTHING:
        return False
    return refusal.elsewhere or refusal.code == "upstream_not_configured"


# ---------------------------------------------------------------- what is billed


class Billed(Enum):
    """What a request is charged."""

    NOTHING = "nothing"
    AS_REPORTED = "what the provider reports; if it reports nothing, an estimate of what was seen"
    AT_MOST = (
        "as reported if that came when all answers were finished; else on the safe side: the input "
        "at its bound, and the whole output cap where output may have been produced unseen"
    )


# Who pays, by how far the answer had come and why it ended; docs/ledger.md shows this table. What
# is not in it cannot be, and would be billed on the safe side.
BILLED: Mapping[tuple[State, Ending], Billed] = {
    (State.REFUSED, Ending.STOPPED): Billed.NOTHING,
    (State.REFUSED, Ending.BROKEN): Billed.NOTHING,
    (State.UNHEARD, Ending.STOPPED): Billed.AT_MOST,  # it may have worked all the time
    (State.BEGUN, Ending.STOPPED): Billed.AT_MOST,
    (State.BEGUN, Ending.BROKEN): Billed.NOTHING,  # it failed before its first word
    (State.SPEAKING, Ending.STOPPED): Billed.AT_MOST,
    (State.SPEAKING, Ending.CUT): Billed.AT_MOST,
    (State.SPEAKING, Ending.BROKEN): Billed.AT_MOST,
    (State.FINISHED, Ending.COMPLETED): Billed.AS_REPORTED,
    (State.FINISHED, Ending.STOPPED): Billed.AT_MOST,
    (State.FINISHED, Ending.BROKEN): Billed.AT_MOST,
}


def billed(outcome: Outcome) -> Billed:
    return BILLED.get((outcome.state, outcome.ending), Billed.AT_MOST)


def usage(running: Running, outcome: Outcome) -> costs.Usage:
    """What a request is charged for, in tokens."""
    how = billed(outcome)
    if how is Billed.NOTHING:
        return costs.Usage(0, 0, 0, 0)
    reported = costs.read_usage(outcome.usage)
    # A provider that has said something and reports no output has not counted.
    has_counted = reported is not None and (reported.output > 0 or not outcome.content_chunks)
    if reported is not None and has_counted and outcome.usage_is_final:
        return reported
    return costs.not_less_than(reported, _counted(running, outcome, how))


def _counted(running: Running, outcome: Outcome, how: Billed) -> costs.Usage:
    """Our own count, of a provider that has not told, or not at the end."""
    chat, most = running.chat, running.most_output
    seen = (outcome.content_bytes, outcome.content_chunks)
    if how is Billed.AS_REPORTED:
        return costs.estimated(chat.input_estimate, *seen, most)
    counted = costs.estimated(chat.input_bound, *seen, most)
    unseen = chat.model.hidden_reasoning or not chat.asked.stream
    if unseen or outcome.ending is Ending.CUT:
        return replace(counted, output=most)
    return counted


def receipt(running: Running, outcome: Outcome) -> dict[str, Any]:
    """The `usage` that a client is shown. Some providers report one with every chunk: until the
    end, it is what they report so far.
    """
    shown = costs.read_usage(outcome.usage)
    if shown is None or outcome.ending is Ending.CUT:
        ended = outcome.ending in (Ending.COMPLETED, Ending.CUT)
        complete = replace(outcome, state=State.FINISHED, ending=Ending.COMPLETED)
        shown = usage(running, outcome if ended else complete)
    return costs.usage_object(shown, costs.cost(shown, running.candidate), outcome.usage)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request that has ended is settled with. `row` holds what only its end knows."""

    settlement: Settlement
    row: dict[str, Any]
    excess_nano_usd: int  # above what was held
    overrun: int  # of the candidate, in percent, if it is above what was known; else 0


def charge(running: Running) -> Charge:
    outcome, candidate = running.outcome, running.candidate
    taken = usage(running, outcome)
    nano_usd = costs.cost(taken, candidate)
    answered = billed(outcome) is not Billed.NOTHING
    excess = max(0, nano_usd - running.reservation.amounts.nano_usd)
    row = {
        "upstream": candidate.upstream.name,
        "outcome": outcome.outcome,
        "input_tokens": taken.input,
        "cached_tokens": taken.cached,
        "output_tokens": taken.output,
        "reasoning_tokens": taken.reasoning,
        "nano_usd": nano_usd,
        "estimated": taken.estimated,
        "at_ms": running.chat.at_ms,
        "first_byte_ms": _ms(outcome.first_byte_s),
        "total_ms": _ms(outcome.total_s),
        **({"excess_nano_usd": excess} if excess else {}),
    }
    overrun = _overrun(running, nano_usd) if excess else 0
    return Charge(Settlement(taken.total, nano_usd, answered=answered), row, excess, overrun)


def _overrun(running: Running, nano_usd: int) -> int:
    chat, candidate = running.chat, running.candidate
    seen = costs.overrun(candidate, chat.input_bound, running.most_output, nano_usd)
    return seen if seen > chat.snapshot.overruns.get(candidate.name, 100) else 0


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
