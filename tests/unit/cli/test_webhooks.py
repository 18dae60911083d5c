"""weir webhooks: what it makes, shows and repeats."""

import json
import time

import pytest

from tests.unit.cli.test_cli import Weir, configured, deployment, fresh, weir
from weir.aws.clients import client
from weir.aws.webhooks import outbox
from weir.aws.webhooks.deliveries import Failure, Failures

__all__ = ["configured", "deployment", "fresh", "weir"]  # fixtures

URL = "https://app.example.com/hooks"


@pytest.fixture
def made(configured: Weir) -> str:
    """The id of an endpoint."""
    answer = configured("webhooks", "create", URL, "--event", "project.budget_low")
    assert answer.code == 0, answer.err
    assert answer.out.strip().startswith("whsec_")
    listed = json.loads(configured("webhooks", "list", "--json").out)
    return str(listed["data"][0]["id"])


def test_secret_is_alone_on_stdout_and_never_shown_again(configured: Weir) -> None:
    answer = configured("webhooks", "create", URL, "--event", "budget.exceeded")
    secret = answer.out.strip()
    assert secret not in answer.err
    assert "weir webhooks test wh_" in answer.err
    for words in (("list",), ("list", "--json")):
        assert secret not in configured("webhooks", *words).out


@pytest.mark.parametrize("url", ["http://app.example.com/", "https://10.0.0.1/"])
def test_url_that_is_not_public_is_refused(configured: Weir, url: str) -> None:
    answer = configured("webhooks", "create", url, "--event", "budget.exceeded")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.splitlines()[-1].startswith("weir: url: ")


def test_project_without_any_is_told_how_to_make_one(configured: Weir) -> None:
    assert "weir webhooks create --help" in configured("webhooks", "list").err


def test_endpoint_is_changed_where_something_is_named(configured: Weir, made: str) -> None:
    answer = configured("webhooks", "update", made, "--enabled", "false", "--json")
    told = json.loads(answer.out)
    assert (told["enabled"], told["url"]) == (False, URL)
    assert "disabled" in configured("webhooks", "list").out
    answer = configured("webhooks", "update", made, "--description", "billing")
    assert "billing" in answer.out


def test_rotated_secret_is_alone_on_stdout(configured: Weir, made: str) -> None:
    answer = configured("webhooks", "rotate", made)
    assert answer.out.strip().startswith("whsec_")
    assert "24 hours" in answer.err


def test_test_is_on_its_way(configured: Weir, made: str) -> None:
    answer = configured("webhooks", "test", made)
    assert answer.out.startswith("evt_")
    assert "weir webhooks list" in answer.err


def test_what_was_given_up_is_listed_and_replayed(configured: Weir, made: str) -> None:
    assert "Nothing was given up." in configured("webhooks", "replay", made).err
    now = int(time.time())
    event = outbox.new_event("wallet.low", {}, now)
    failures = Failures(client("dynamodb"), "t", "default", made)
    failures.add(Failure(event, now, now, "It answers with status 500."))
    answer = configured("webhooks", "deliveries", made)
    assert event.id in answer.out
    assert "It answers with status 500." in answer.out
    assert f"weir webhooks replay {made}" in answer.err
    assert event.id in configured("webhooks", "replay", made, "--event", event.id).out
    assert configured("webhooks", "replay", made, "--event", event.id).code == 1


def test_endpoint_is_removed_if_the_operator_means_it(configured: Weir, made: str) -> None:
    assert configured("webhooks", "remove", made).code == 1
    assert configured("webhooks", "remove", made, "--yes").code == 0
    assert configured("webhooks", "rotate", made).code == 1
