"""A project's webhook endpoints over a table: changed with an audit entry, secrets sealed."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.conftest import NOW, PROVIDER_KEYS, set_up
from weir.aws.clients import client
from weir.aws.operator import Operator
from weir.aws.provider_keys import ProviderKeys
from weir.aws.table import Table
from weir.aws.webhooks import outbox
from weir.aws.webhooks.deliveries import Failure, Failures
from weir.aws.webhooks.endpoints import MOST_REPLAYED, Endpoints
from weir.aws.webhooks.seal import Opener, Sealer
from weir.errors import BadRequest, Conflict, NotFound
from weir.webhooks.endpoints import MOST_ENDPOINTS, OLD_SECRET_S

NEW = {"url": "https://app.example.com/hooks", "events": ["budget.exceeded"]}


@pytest.fixture
def key(aws: None) -> str:
    arn: str = client("kms").create_key()["KeyMetadata"]["Arn"]
    return arn


@pytest.fixture
def operator(table: Table, key: str) -> Operator:
    keys = ProviderKeys(client("secretsmanager"), PROVIDER_KEYS)
    made = Operator(
        table,
        keys,
        actor="the operator",
        clock=lambda: NOW,
        sealer=Sealer(client("kms"), key),
    )
    set_up(made)
    return made


@pytest.fixture
def endpoints(operator: Operator) -> Endpoints:
    return operator.webhooks("default")


def everything_kept() -> str:
    return json.dumps(client("dynamodb").scan(TableName="t")["Items"])


def outbox_items() -> list[dict[str, Any]]:
    items = client("dynamodb").scan(TableName="t")["Items"]
    return [item for item in items if item["pk"]["S"] == "OUTBOX#default"]


def failed(endpoints: Endpoints, endpoint_id: str, count: int) -> list[str]:
    """Give up so many deliveries; return the events' ids, oldest first."""
    failures = Failures(client("dynamodb"), "t", "default", endpoint_id)
    ids = []
    for number in range(count):
        event = outbox.new_event("wallet.low", {"n": number}, NOW + number)
        failures.add(Failure(event, NOW, NOW + 86_400, "It answers with status 500."))
        ids.append(event.id)
    return ids


# ---------------------------------------------------------------- secrets


def test_secret_is_shown_once_and_kept_sealed(endpoints: Endpoints, key: str) -> None:
    made, secret = endpoints.create(NEW)
    assert secret.startswith("whsec_")
    assert len(secret) >= 6 + 43
    assert "secret" not in made
    assert secret not in everything_kept()
    assert secret not in json.dumps([endpoints.get(made["id"]), endpoints.page()])
    table = Table(client("dynamodb"), "t")
    record = endpoints._record().document["endpoints"][made["id"]]
    assert Opener(client("kms"), key).open("default", made["id"], record["secret"]) == secret
    entries, _ = table.audit_trail(10, None)
    assert "webhook.create" in [entry.action for entry in entries]
    assert secret not in json.dumps([entry.document() for entry in entries])
    assert record["secret"] not in json.dumps([entry.document() for entry in entries])


def test_sealed_secret_of_one_endpoint_opens_nothing_for_another(
    endpoints: Endpoints, key: str
) -> None:
    made, _ = endpoints.create(NEW)
    sealed = endpoints._record().document["endpoints"][made["id"]]["secret"]
    opener = Opener(client("kms"), key)
    for pid, endpoint_id in (("default", "wh_other"), ("other", made["id"])):
        with pytest.raises(client("kms").exceptions.InvalidCiphertextException):
            opener.open(pid, endpoint_id, sealed)


def test_rotated_secret_leaves_the_old_one_signing_for_a_day(endpoints: Endpoints) -> None:
    made, first = endpoints.create(NEW)
    rotated, second = endpoints.rotate(made["id"])
    assert first != second
    assert rotated["old_secret_until"] == NOW + OLD_SECRET_S
    again, _ = endpoints.rotate(made["id"])
    assert again["id"] == made["id"]
    assert "old_secret" in endpoints._record().document["endpoints"][made["id"]]


def test_opener_keeps_a_bounded_number_of_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def decrypt(**asked: Any) -> dict[str, bytes]:
        calls.append(asked)
        return {"Plaintext": b"s"}

    monkeypatch.setattr("weir.aws.webhooks.seal.MOST_KEPT", 2)
    opener = Opener(SimpleNamespace(decrypt=decrypt), "key")
    for name in ("a", "a", "b", "c", "c"):
        opener.open("p", name, "YQ==")
    assert len(calls) == 3


# ---------------------------------------------------------------- endpoints


def test_project_has_at_most_ten(endpoints: Endpoints) -> None:
    for _ in range(MOST_ENDPOINTS):
        endpoints.create(NEW)
    with pytest.raises(Conflict) as refused:
        endpoints.create(NEW)
    assert refused.value.details == {"reason": "too_many_webhook_endpoints", "most": 10}
    data, more = endpoints.page(4)
    assert len(data) == 4
    rest, end = endpoints.page(10, more)
    assert (len(rest), end) == (6, None)
    assert not {each["id"] for each in data} & {each["id"] for each in rest}


def test_endpoint_is_changed_where_something_is_named(endpoints: Endpoints) -> None:
    made, _ = endpoints.create(NEW)
    changed = endpoints.update(made["id"], {"events": ["wallet.low"], "enabled": False})
    assert (changed["events"], changed["enabled"]) == (["wallet.low"], False)
    assert changed["url"] == NEW["url"]
    with pytest.raises(BadRequest):
        endpoints.update(made["id"], {"url": "http://x.example.com/"})
    assert endpoints.get(made["id"]) == changed


def test_endpoint_that_is_removed_is_gone(endpoints: Endpoints) -> None:
    made, _ = endpoints.create(NEW)
    endpoints.remove(made["id"])
    assert endpoints.page() == ([], None)
    for use in (endpoints.get, endpoints.remove, endpoints.rotate, endpoints.test):
        with pytest.raises(NotFound):
            use(made["id"])
    with pytest.raises(NotFound):
        endpoints.update(made["id"], {})
    with pytest.raises(NotFound):
        endpoints.failed(made["id"], 10)
    with pytest.raises(NotFound):
        endpoints.replay(made["id"], None)


def test_each_change_is_in_the_audit_trail_with_who_and_what(
    operator: Operator, endpoints: Endpoints
) -> None:
    made, _ = endpoints.create(NEW)
    endpoints.update(made["id"], {"description": "billing"})
    endpoints.rotate(made["id"])
    endpoints.remove(made["id"])
    entries, _ = operator.audit_trail(10)
    told = [entry.document() for entry in entries if entry.action.startswith("webhook.")]
    assert {each["action"] for each in told} == {
        *("webhook.create", "webhook.update", "webhook.rotate_secret", "webhook.remove")
    }
    assert {(each["actor"], each["target"]) for each in told} == {
        ("the operator", f"default/{made['id']}")
    }
    (update,) = [each for each in told if each["action"] == "webhook.update"]
    assert (update["before"], update["after"]) == ({"description": ""}, {"description": "billing"})


def test_project_that_is_not_there_has_no_endpoints(operator: Operator) -> None:
    with pytest.raises(NotFound):
        operator.webhooks("nowhere")


def test_endpoints_of_one_project_are_not_those_of_another(operator: Operator) -> None:
    from weir.operator.documents import NewProject, parsed

    operator.create_project(parsed(NewProject, {"pid": "other", "origins": []}))
    made, _ = operator.webhooks("default").create(NEW)
    with pytest.raises(NotFound):
        operator.webhooks("other").get(made["id"])


# ---------------------------------------------------------------- tests and replays


def test_test_event_is_on_its_way_to_that_endpoint(endpoints: Endpoints) -> None:
    made, _ = endpoints.create(NEW)
    event = endpoints.test(made["id"])
    assert event["type"] == "webhook.test"
    (item,) = outbox_items()
    posted = outbox.posted_of(item)
    assert (posted.pid, posted.to, posted.event.document()) == ("default", made["id"], event)


def test_failed_deliveries_are_listed_newest_first_page_by_page(endpoints: Endpoints) -> None:
    made, _ = endpoints.create(NEW)
    other, _ = endpoints.create(NEW)
    ids = failed(endpoints, made["id"], 5)
    failed(endpoints, other["id"], 1)
    seen, after = [], None
    while True:
        data, after = endpoints.failed(made["id"], 2, after)
        seen += [each["event"]["id"] for each in data]
        if after is None:
            break
    assert seen == ids[::-1]
    assert data[0]["last_failure"] == "It answers with status 500."


def test_replayed_event_keeps_its_id_and_leaves_the_list(endpoints: Endpoints) -> None:
    made, _ = endpoints.create(NEW)
    first, second = failed(endpoints, made["id"], 2)
    assert endpoints.replay(made["id"], first) == [first]
    (item,) = outbox_items()
    posted = outbox.posted_of(item)
    assert (posted.to, posted.event.id) == (made["id"], first)
    left, _ = endpoints.failed(made["id"], 10)
    assert [each["event"]["id"] for each in left] == [second]
    with pytest.raises(NotFound):
        endpoints.replay(made["id"], first)


def test_all_are_replayed_up_to_a_hundred_at_once(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_REPLAYED == 100
    monkeypatch.setattr("weir.aws.webhooks.endpoints.MOST_REPLAYED", 3)
    made, _ = endpoints.create(NEW)
    ids = failed(endpoints, made["id"], 4)
    assert endpoints.replay(made["id"], None) == ids[:0:-1]
    assert endpoints.replay(made["id"], None) == ids[:1]
    assert endpoints.replay(made["id"], None) == []
