"""The way of a request: what is held for it, what is read of a provider, what is charged."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.chat.script import Script
from weir.chat import completion, relay
from weir.chat.completion import Chat, Running
from weir.embeddings import routes
from weir.embeddings.routes import ROUTES
from weir.errors import BadRequest, DeadlineExceeded, Refusal, TooLarge, UpstreamUnavailable
from weir.identity.tokens import Claims
from weir.ledger.admission import Reservation
from weir.projects.catalogue import Catalogue
from weir.projects.limits import Limits, Pool
from weir.projects.project import Project
from weir.projects.snapshot import Shared, Snapshot
from weir.web.origins import Origins
from weir.web.request import Request

PRICE = 20
EMBEDDINGS, MODERATIONS = ROUTES["/v1/embeddings"], ROUTES["/v1/moderations"]
VECTOR = {"data": [{"embedding": [1, 2]}], "model": "theirs"}
USAGE = {"prompt_tokens": 2, "total_tokens": 2}


def snapshot(overruns: dict[str, int] | None = None, **model: Any) -> Snapshot:
    def entry(kind: str, *upstreams: str, price: int = PRICE) -> dict[str, Any]:
        prices = dict.fromkeys(("input_nano_usd", "cached_input_nano_usd"), price)
        return {
            "kind": kind,
            "candidates": [
                {
                    "upstream": name,
                    "model": "m",
                    **prices,
                    "output_nano_usd": 0,
                    "output_cap_parameter": "max_tokens",
                }
                for name in upstreams
            ],
            "context_tokens": 1_000,
            "max_output_tokens": 0,
            "overhead_tokens": 3,
            **model,
        }

    catalogue = Catalogue(
        {
            "upstreams": {
                name: {"kind": "openai", "base_url": f"https://{name}.example/v1"} for name in "ab"
            },
            "models": {
                "embed": entry("embedding", "a", "b"),
                "judge": entry("moderation", "a", price=0),
            },
        }
    )
    shared = Shared(False, Pool(Limits()), Origins(), catalogue, overruns or {})
    return Snapshot(Project.from_document("p", {}), shared)


def understood(
    route: routes.Route = EMBEDDINGS, *, of: Snapshot | None = None, **body: Any
) -> Chat:
    return routes.understood(
        route,
        Request("r-1", "POST", f"/v1/{route.name}", body.pop("headers", {})),
        Claims("t", "p", "ann", "user", "s", None, "j", 0),
        of or snapshot(),
        {"input": "ab", **body},
        at_ms=1_795_000_000_000,
        random_hex="00ff",
    )


def admitted(chat: Chat) -> Running:
    ask = completion.asked_of_the_ledger(chat, 300)
    reservation = Reservation(
        id="0" * 32,
        due=ask.due,
        pid=ask.pid,
        subject=ask.subject,
        completion_id=ask.completion_id,
        at=chat.at_ms // 1000,
        amounts=ask.price(ask.output_tokens),
        output_tokens=ask.output_tokens,
        held=[],
        row=ask.row,
    )
    return Running.admitted(chat, reservation)


class Asked:
    """One request with the providers' answers, in order, and what it was charged."""

    def __init__(self, chat: Chat, *answers: Script, route: routes.Route = EMBEDDINGS) -> None:
        self.running = admitted(chat)
        self.answers = list(answers)
        self.opened: list[str] = []
        self.charges: list[completion.Charge] = []
        self.clock = answers[0]
        self.route = route

    def answer(self) -> Any:
        timing = relay.Timing(self.clock.monotonic, self.clock.monotonic() + 300)
        pieces = routes.relayed(
            self.route,
            self.running,
            timing,
            open_upstream=self._open,
            settle=lambda running: self.charges.append(completion.charge(running)),
        )
        return json.loads(b"".join(pieces))

    def fails(self) -> Refusal:
        with pytest.raises(Refusal) as caught:
            self.answer()
        return caught.value

    @property
    def charge(self) -> completion.Charge:
        (only,) = self.charges
        return only

    def _open(self, candidate: Any, body: bytes) -> Script:
        self.opened.append(candidate.upstream.name)
        return self.answers.pop(0)


def document(told: Any) -> Script:
    return Script(json.dumps(told).encode())


# ---------------------------------------------------------------- before it is admitted


def test_worst_case_is_the_bytes_and_each_texts_overhead_at_the_price_of_input() -> None:
    chat = understood(input=["ab", "c"])
    amounts = completion.asked_of_the_ledger(chat, 300).price(0)
    assert amounts.nano_usd == (len('["ab","c"]') + 2 * 3) * PRICE


def test_context_is_of_each_text() -> None:
    assert understood(input="x" * 5_000).input_bound == 1_000
    assert understood(input=["x" * 5_000] * 4).input_bound == 4_000


def test_request_is_never_made_smaller() -> None:
    ask = completion.asked_of_the_ledger(understood(), 300)
    assert (ask.output_tokens, ask.shrinkable) == (0, False)


def test_ids_say_what_they_are_of_and_may_be_chosen() -> None:
    assert understood().completion_id == "embd-00ff"
    assert understood(MODERATIONS).completion_id == "modr-00ff"
    assert understood(headers={"x-client-request-id": "mine"}).completion_id == "mine"
    with pytest.raises(BadRequest):
        understood(headers={"x-client-request-id": "not mine"})


def test_answer_that_would_be_too_large_costs_nothing_where_it_can_be_known() -> None:
    texts = ["x"] * 2_048
    understood(input=texts)  # nothing is known of its vectors
    for more in ({"of": snapshot(dimensions=4_096)}, {"dimensions": 4_096}):
        with pytest.raises(BadRequest, match="at most 1,831 inputs of 4,096") as caught:
            understood(input=texts, **more)
        assert (caught.value.code, caught.value.param) == ("invalid_input", "input")
        understood(input=texts[:1_831], **more)
        understood(input=texts, encoding_format="base64", **more)
    with pytest.raises(BadRequest, match="at most 1,092 inputs"):
        understood(input=texts, dimensions=8_192, encoding_format="base64")
    understood(input=texts, dimensions=256, of=snapshot(dimensions=8_192))  # the request's counts


def test_projects_allowed_fields_count_too() -> None:
    told: dict[str, Any] = {"input_type": "query"}
    with pytest.raises(BadRequest):
        understood(**told)
    allowed = Project.from_document("p", {"allowed_fields": ["input_type"]})
    asked = understood(of=replace(snapshot(), project=allowed), **told).asked
    assert b'"input_type":"query"' in asked.common


# ---------------------------------------------------------------- what comes back


def test_row_and_log_have_the_time_and_the_one_chunk_of_an_answer() -> None:
    asked = Asked(understood(), Script(1.5, json.dumps(VECTOR).encode()))
    asked.answer()
    assert (asked.charge.row["total_ms"], asked.charge.row["first_byte_ms"]) == (1_500, 1_500)
    assert asked.running.outcome.chunks == 1


def test_wait_that_a_provider_asks_for_within_its_answer_is_passed_on() -> None:
    busy = {"error": {"message": "Rate limit reached. Try again in 7s.", "code": "rate_limit"}}
    answers = [document(busy), document(busy)]
    refusal = Asked(understood(), *answers).fails()
    assert (refusal.code, refusal.retry_after_s) == ("upstream_rate_limited", 7)


def test_answer_has_the_cost_and_is_charged_as_reported() -> None:
    asked = Asked(understood(), document({**VECTOR, "usage": USAGE, "id": "theirs"}))
    assert asked.answer() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 2.0]}],
        "model": "theirs",
        "usage": {**USAGE, "cost_usd": 2 * PRICE / 10**9},
    }
    row = asked.charge.row
    assert (row["input_tokens"], row["output_tokens"], row["nano_usd"]) == (2, 0, 2 * PRICE)
    assert (row["outcome"], row["estimated"]) == ("completed", False)


def test_provider_that_tells_no_usage_is_estimated_and_never_free() -> None:
    asked = Asked(understood(input="x" * 100), document(VECTOR))
    told = asked.answer()["usage"]
    estimate = -(-102 // 3)
    assert (told["prompt_tokens"], told["estimated"]) == (estimate, True)
    assert asked.charge.row["nano_usd"] == estimate * PRICE
    assert asked.charge.row["estimated"] is True


def test_judgement_has_our_id_and_the_catalogues_name_where_the_provider_tells_none() -> None:
    asked = Asked(
        understood(MODERATIONS),
        document({"id": "theirs", "results": [{"flagged": False}]}),
        route=MODERATIONS,
    )
    told = asked.answer()
    assert (told["id"], told["model"]) == ("modr-00ff", "judge")
    assert told["results"] == [{"flagged": False, "categories": {}, "category_scores": {}}]
    assert (told["usage"]["cost_usd"], told["usage"]["estimated"]) == (0, True)
    assert asked.charge.settlement.tokens > 0


def test_provider_that_reports_more_than_there_is_raises_what_is_held_for_it() -> None:
    chat = understood()
    lie = {"prompt_tokens": 70, "total_tokens": 70}
    asked = Asked(chat, document({**VECTOR, "usage": lie}))
    asked.answer()
    assert asked.charge.row["nano_usd"] == 70 * PRICE
    assert asked.charge.overrun == 1_000  # 70 tokens, where 7 were the most
    again = understood(of=snapshot(overruns={"a/m": asked.charge.overrun}))
    assert completion.asked_of_the_ledger(again, 300).price(0).nano_usd == 70 * PRICE


def test_next_candidate_answers_for_one_that_fails_and_nothing_is_charged_for_that() -> None:
    asked = Asked(
        understood(),
        Script(UpstreamUnavailable("gone")),
        document({**VECTOR, "usage": USAGE}),
    )
    asked.answer()
    assert asked.opened == ["a", "b"]
    assert asked.running.attempts == ["a=upstream_unavailable", "b=ok"]
    assert asked.charge.row["upstream"] == "b"


UNREADABLE = "upstream_invalid_response"


@pytest.mark.parametrize(
    ("answer", "code", "tokens"),
    [
        # It has said itself that it did nothing, or nothing of an answer has come.
        (document({"error": {"message": "no", "code": "busy"}}), "upstream_error", 0),
        (document({}), UNREADABLE, 0),
        (Script(b"<html>"), UNREADABLE, 0),
        (Script(b"[1]"), UNREADABLE, 0),
        (Script(b""), UNREADABLE, 0),
        # It may have done the work.
        (Script(b'{"data": [{"embedding": [1, 2'), UNREADABLE, 7),
        (Script(b'{"data": [{"embedding": [NaN]}]}'), UNREADABLE, 7),
        (Script(b'{"data":' + b"[" * 100_000), UNREADABLE, 7),
        (Script(b'{"data": [', UpstreamUnavailable("broke")), "upstream_unavailable", 7),
        (document({"data": [{"embedding": []}], "usage": USAGE}), UNREADABLE, 2),
        (document({"data": [], "usage": USAGE}), UNREADABLE, 2),
    ],
    ids=range(11),
)
def test_answer_that_cannot_be_read_is_charged_only_if_it_may_have_been_worked_for(
    answer: Script, code: str, tokens: int
) -> None:
    asked = Asked(understood(), answer, Script(UpstreamUnavailable("the other is gone")))
    refusal = asked.fails()
    # What may be billed is not asked for again elsewhere.
    assert refusal.code == (code if tokens else "upstream_unavailable")
    assert asked.running.attempts[0] == f"a={code}"
    assert asked.charge.row["input_tokens"] == tokens


def test_silent_provider_is_given_up_in_time_and_charged_at_most() -> None:
    asked = Asked(understood(), Script(10_000.0))
    began = asked.clock.now
    assert isinstance(asked.fails(), DeadlineExceeded)
    assert asked.clock.now - began == pytest.approx(relay.WHOLE_ANSWER_S, abs=1)
    assert asked.charge.row["input_tokens"] == 7
    assert asked.clock.closed


VECTORS, JUDGED = {**VECTOR, "usage": USAGE}, {"results": [{"flagged": True}]}


@pytest.mark.parametrize(
    ("route", "told", "body", "most"),
    [
        (EMBEDDINGS, VECTORS, {"dimensions": 8}, 256_000 + 24 * 8),
        (EMBEDDINGS, VECTORS, {}, 256_000 + 24 * 65_536),
        (MODERATIONS, JUDGED, {}, 256_000 + 16_000),
    ],
    ids=["known", "unknown", "judgement"],
)
def test_answer_is_bounded_by_what_its_results_can_take(
    route: routes.Route, told: Any, body: Any, most: int
) -> None:
    raw = json.dumps(told).encode()
    blanks = b" " * (most - len(raw))
    Asked(understood(route, **body), Script(raw, blanks), route=route).answer()
    asked = Asked(understood(route, **body), Script(raw, blanks, b" "), route=route)
    assert asked.fails().code == UNREADABLE
    assert asked.charge.row["input_tokens"] > 0


def test_answer_beyond_all_bounds_says_how_to_ask_for_less() -> None:
    texts = ["x"] * 2_000
    raw = json.dumps({"data": [{"embedding": [1]}] * 2_000}).encode()
    blanks = b" " * (48_000_000 - len(raw))
    Asked(understood(input=texts), Script(raw, blanks)).answer()
    refusal = Asked(understood(input=texts), Script(raw, blanks, b" ")).fails()
    assert isinstance(refusal, TooLarge)
    assert "48 MB" in refusal.message


def test_providers_key_is_masked_wherever_it_is_quoted() -> None:
    asked = Asked(
        understood(MODERATIONS),
        document({"model": "x sk-CANARY", "results": [{"categories": {"sk-CANARY": True}}]}),
        route=MODERATIONS,
    )
    assert "CANARY" not in json.dumps(asked.answer())


@pytest.mark.parametrize("pieces", [lambda raw: [raw], lambda raw: [bytes([b]) for b in raw]])
def test_answer_may_come_in_any_pieces_with_blanks_around(
    pieces: Callable[[bytes], list[bytes]],
) -> None:
    raw = b"\xef\xbb\xbf \n" + json.dumps({**VECTOR, "usage": USAGE}).encode() + b"\n"
    assert Asked(understood(), Script(*pieces(raw))).answer()["usage"]["prompt_tokens"] == 2
