"""What an operator may write, and that what was accepted can be read by a request."""

import contextlib
import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import CANDIDATE, MODEL, ORIGIN, PROJECT, UPSTREAM, UPSTREAM_OF
from weir.aws.items import MOST_SHARDS
from weir.errors import BadRequest
from weir.operator import documents, known_models
from weir.operator.documents import (
    ConfigurationFile,
    Document,
    EraseUser,
    KillSwitch,
    LimitsDocument,
    ModelDocument,
    NewApiKey,
    NewProject,
    ProjectChange,
    ProjectDocument,
    ProviderKey,
    TenantDocument,
    ThinkingCap,
    TierDocument,
    UpstreamDocument,
    check_catalogue,
    check_project,
    parsed,
)
from weir.projects.allowed_fields import NEVER_ALLOWED, THINKING_PARAMETERS
from weir.projects.catalogue import Catalogue
from weir.projects.limits import NANO, Limits
from weir.projects.project import Project
from weir.projects.upstream_kinds import KINDS

FILE: dict[str, Any] = {"format": "weir-configuration/1"}
SWITCH: dict[str, Any] = {"scope": "tenant", "off": True}
BEDROCK: dict[str, Any] = {"kind": "bedrock"}


def refused(kind: type[Document], told: object) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parsed(kind, told)
    return caught.value


def at(document: Any, path: str, value: object) -> Any:
    """A copy of the document with this value at a place such as `candidates.0.model`."""
    copy = json.loads(json.dumps(document))
    *way, last = path.split(".")
    place = copy
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    return copy


WHOLE_FILE = {
    **FILE,
    "tenant": {"limits": {"rpm": 1}},
    "upstreams": {"main": UPSTREAM},
    "models": {"m-large": MODEL},
    "projects": {"default": {"tiers": {"free": {"number": 1, "limits": {"rpm": 1}}}}},
}


# ---------------------------------------------------------------- fields nobody knows


@pytest.mark.parametrize(
    ("kind", "document", "path"),
    [
        (LimitsDocument, {}, "requests_per_minute"),
        (ProjectChange, {}, "system_promt"),
        (ProjectChange, {}, "tiers"),  # they have verbs of their own
        (ProjectChange, {}, "killed"),
        (ProjectChange, {}, "created_at"),
        (ProjectChange, {}, "ledger_generation"),
        (ProjectChange, {}, "pid"),
        (ProjectChange, {"limits": {}}, "limits.rmp"),
        (ProjectChange, {"user_limits": {}}, "user_limits.nano_usd_per_month"),
        (NewProject, PROJECT, "killed"),
        (ModelDocument, MODEL, "killed"),
        (ModelDocument, MODEL, "created_at"),
        (ModelDocument, MODEL, "candidates.0.price"),
        (UpstreamDocument, UPSTREAM, "key_last4"),
        (UpstreamDocument, UPSTREAM, "api_key"),
        (ConfigurationFile, WHOLE_FILE, "users"),
        (ConfigurationFile, WHOLE_FILE, "tenant.killed"),
        (ConfigurationFile, WHOLE_FILE, "tenant.limits.x"),
        (ConfigurationFile, WHOLE_FILE, "tenant.ledger_generation"),
        (ConfigurationFile, WHOLE_FILE, "upstreams.main.key"),
        (ConfigurationFile, WHOLE_FILE, "models.m-large.killed"),
        (ConfigurationFile, WHOLE_FILE, "models.m-large.candidates.0.x"),
        (ConfigurationFile, WHOLE_FILE, "projects.default.killed"),
        (ConfigurationFile, WHOLE_FILE, "projects.default.ledger_generation"),
        (ConfigurationFile, WHOLE_FILE, "projects.default.tiers.free.name"),
        (ConfigurationFile, WHOLE_FILE, "projects.default.tiers.free.limits.x"),
        (NewApiKey, {}, "secret"),
        (ProviderKey, {"key": "sk-12345678"}, "host"),
        (KillSwitch, SWITCH, "at"),
        (EraseUser, {"user_id": "u"}, "pid"),
    ],
    ids=str,
)
def test_field_nobody_knows_is_refused_by_its_place(
    kind: type[Document], document: Any, path: str
) -> None:
    parsed(kind, document)
    refusal = refused(kind, at(document, path, 1))
    assert refusal.param == path
    assert refusal.details["reason"] == "invalid"


# ---------------------------------------------------------------- numbers

NO_COUNTS: list[Any] = [
    True,
    False,
    "1",
    1.0,
    1.5,
    -1,
    10**12 + 1,
    10**400,
    math.nan,
    math.inf,
    [1],
]


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(
    ("kind", "document", "path"),
    [
        *((LimitsDocument, {}, name) for name in LimitsDocument.model_fields
          if name != "usd_per_month"),
        *((ModelDocument, MODEL, name) for name in
          ("context_tokens", "max_input_tokens", "max_output_tokens", "overhead_tokens",
           "image_max_tokens")),
        *((ModelDocument, MODEL, f"candidates.0.{name}") for name in
          ("input_nano_usd", "cached_input_nano_usd", "output_nano_usd")),
        (TierDocument, {"number": 4}, "number"),
        (ProjectChange, {}, "ledger_shards"),
        (TenantDocument, {}, "ledger_shards"),
    ],
    ids=str,
)  # fmt: skip
def test_only_whole_numbers_in_range_are_counts(
    kind: type[Document], document: Any, path: str, value: Any
) -> None:
    assert refused(kind, at(document, path, value)).param == path


BOUNDS = {
    "usd_per_month": (0, 10**6),
    "max_output_tokens": (1, 10**7),
    "concurrent_streams": (0, 10**4),
}


@pytest.mark.parametrize("name", LimitsDocument.model_fields)
def test_limit_may_be_set_within_its_bounds(name: str) -> None:
    least, most = BOUNDS.get(name, (0, 10**12))
    for value in (least, most, None):
        assert parsed(LimitsDocument, {name: value}).stored() == {name: value}
    for value in (least - 1, most + 1):
        assert refused(LimitsDocument, {name: value}).param == name


@pytest.mark.parametrize("kind", [ProjectChange, TenantDocument])
def test_shards_are_as_many_as_the_ledger_may_have(kind: type[Document]) -> None:
    assert parsed(kind, {"ledger_shards": MOST_SHARDS}).stored() == {"ledger_shards": MOST_SHARDS}
    for number in (0, MOST_SHARDS + 1):
        assert refused(kind, {"ledger_shards": number}).param == "ledger_shards"


@pytest.mark.parametrize(
    "value",
    [True, "1", -0.01, 1_000_000.01, 1e-7, 0.1234567, math.nan, math.inf, -math.inf, 10**400, [1]],
    ids=lambda value: repr(value)[:20],
)
def test_only_money_with_at_most_six_decimals_is_money(value: Any) -> None:
    assert refused(LimitsDocument, {"usd_per_month": value}).param == "usd_per_month"


@pytest.mark.parametrize("price", ["input_nano_usd", "cached_input_nano_usd", "output_nano_usd"])
def test_price_is_asked_for_and_never_assumed(price: str) -> None:
    candidate = {name: value for name, value in CANDIDATE.items() if name != price}
    refusal = refused(ModelDocument, {**MODEL, "candidates": [candidate]})
    assert refusal.param == f"candidates.0.{price}"
    assert refused(ModelDocument, at(MODEL, f"candidates.0.{price}", None)).param == refusal.param


@pytest.mark.parametrize("name", ["context_tokens", "max_output_tokens", "overhead_tokens"])
def test_limits_of_a_model_are_asked_for(name: str) -> None:
    assert refused(ModelDocument, {n: v for n, v in MODEL.items() if n != name}).param == name


def test_model_is_kept_whole_so_that_a_later_default_changes_nothing() -> None:
    stored = parsed(ModelDocument, MODEL).stored()
    assert stored["aliases"] == []
    assert stored["candidates"][0]["output_cap_parameter"] == "max_completion_tokens"
    assert stored["hidden_reasoning"] is True


def test_limit_that_was_not_named_is_never_told_as_null() -> None:
    """null is no limit: told, and sent back, it would lift every limit that has a default."""
    change = parsed(ProjectChange, {"limits": {"rpm": 5, "tpm": None}})
    assert change.model_dump(mode="json")["limits"] == {"rpm": 5, "tpm": None}
    assert change.stored() == {"limits": {"rpm": 5, "tpm": None}}
    whole = parsed(ConfigurationFile, WHOLE_FILE).model_dump(mode="json")
    assert whole["tenant"] == {"limits": {"rpm": 1}}
    assert "user_limits" not in whole["projects"]["default"]
    assert whole["projects"]["default"]["tiers"]["free"]["limits"] == {"rpm": 1}


# ---------------------------------------------------------------- refusals in plain words


@pytest.mark.parametrize(
    ("kind", "document", "said"),
    [
        (NewProject, {"pid": "Shop"}, "pid: lower-case letters, digits and hyphens, at most 63"),
        (ProviderKey, {"key": "short"}, "key: 8 to 1,000 printable characters without spaces."),
        (ProjectChange, {"default_model": ""}, "default_model: a model's name"),
        (UpstreamDocument, {**BEDROCK, "region": "Europe"}, "region: a region of AWS, such as"),
        (ModelDocument, at(MODEL, "candidates.0.input_nano_usd", 0.15), "$0.15 for a million"),
        (ModelDocument, at(MODEL, "candidates.0.input_nano_usd", "150"), "a whole number of nano"),
        (LimitsDocument, {"rpm": 1.5}, "rpm: must be a whole number."),
        (ModelDocument, [], "the document must be a JSON object."),
        (ProjectChange, {"limits": []}, "limits: must be a JSON object."),
    ],
    ids=str,
)
def test_refusal_says_in_words_what_is_right(
    kind: type[Document], document: Any, said: str
) -> None:
    assert said in refused(kind, document).message


def test_every_pattern_is_told_in_words() -> None:
    def patterns(told: Any) -> set[str]:
        if isinstance(told, dict):
            mine = {*told.get("patternProperties", ()), told.get("pattern")} - {None}
            return mine.union(*map(patterns, told.values()))
        return set().union(*map(patterns, told)) if isinstance(told, list) else set()

    kinds = (ConfigurationFile, NewProject, NewApiKey, ProviderKey, KillSwitch, EraseUser)
    found = set().union(*(patterns(kind.model_json_schema()) for kind in kinds))
    assert len(found) >= 8
    assert found <= documents._PATTERNS.keys()


# ---------------------------------------------------------------- text

UNFIT = ["a\x00b", "a\x07", "a\x1bc", "\x7f", "a\ud800b", "\udfff"]


@pytest.mark.parametrize("text", UNFIT, ids=repr)
@pytest.mark.parametrize(
    ("kind", "document", "path"),
    [
        (ProjectChange, {}, "name"),
        (ProjectChange, {}, "system_prompt"),
        (NewApiKey, {}, "name"),
        (KillSwitch, SWITCH, "reason"),
        (EraseUser, {"user_id": "u"}, "user_id"),
        (KillSwitch, {"scope": "user", "project": "p", "user_id": "u", "off": True}, "user_id"),
    ],
    ids=str,
)
def test_control_characters_and_halves_of_characters_are_no_text(
    kind: type[Document], document: Any, path: str, text: str
) -> None:
    assert refused(kind, at(document, path, text)).param == path


def test_instructions_may_have_lines_tabs_and_any_letters() -> None:
    prompt = "You are kind.\n\t- 你好 🌊"
    assert parsed(ProjectChange, {"system_prompt": prompt}).system_prompt == prompt


@pytest.mark.parametrize(
    ("kind", "document", "path", "most"),
    [
        (ProjectChange, {}, "name", 100),
        (ProjectChange, {}, "system_prompt", 16_000),
        (NewApiKey, {}, "name", 100),
        (KillSwitch, SWITCH, "reason", 300),
        (EraseUser, {"user_id": "u"}, "user_id", 255),
        (ProviderKey, {"key": "sk-12345678"}, "key", 1000),
        (ModelDocument, MODEL, "candidates.0.model", 200),
    ],
    ids=str,
)
def test_text_has_an_end(kind: type[Document], document: Any, path: str, most: int) -> None:
    parsed(kind, at(document, path, "x" * most))
    assert refused(kind, at(document, path, "x" * (most + 1))).param == path


@pytest.mark.parametrize("pid", ["", "-a", "A", "a_b", "a.b", "a b", "a\n", "ä", "a" * 64, 7, None])
def test_pid_is_a_plain_word(pid: Any) -> None:
    assert refused(NewProject, {"pid": pid}).param == "pid"


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "openai.gpt-oss-120b-1:0", "openai/gpt-oss-120b", "a/b/c", "a" * 128]
)
def test_model_is_called_as_providers_call_theirs(name: str) -> None:
    switch = parsed(KillSwitch, {"scope": "model", "model": name, "off": True})
    assert switch.model == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "a/../b",
        "a/.b",
        "-a",
        "a b",
        "a%2Fb",
        "a#b",
        "a?b",
        "a\n",
        "a" * 129,
    ],
)
def test_models_name_can_stand_in_a_path_and_in_a_key(name: str) -> None:
    told = {"scope": "model", "model": name, "off": True}
    assert refused(KillSwitch, told).param == "model"


@pytest.mark.parametrize("key", ["", "short", "sk with space", "sk-“quoted”", "sk-1234567\n", None])
def test_providers_key_is_what_a_header_can_carry(key: Any) -> None:
    assert refused(ProviderKey, {"key": key}).param == "key"


def test_origins_are_listed_as_browsers_send_them_each_once() -> None:
    change = parsed(
        ProjectChange,
        {
            "origins": ["https://B.example/", "https://a.example:443", "https://b.example"],
            "preview_origins": ["https://*.X.example.com/"],
        },
    )
    assert change.origins == ["https://a.example", "https://b.example"]
    assert change.preview_origins == ["https://*.x.example.com"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origins", ["https://a.example", "http://b.example"]),
        ("origins", [ORIGIN, "https://*.example.com"]),
        ("origins", [ORIGIN, None]),
        ("preview_origins", ["https://*.x.example.com", "https://*.vercel.app"]),
        ("preview_origins", ["https://*.x.example.com", ORIGIN]),
    ],
    ids=str,
)
def test_refused_origin_is_named_by_its_place(field: str, value: Any) -> None:
    assert refused(ProjectChange, {field: value}).param == f"{field}.1"


def test_list_of_origins_has_an_end() -> None:
    origins = [f"https://a{number}.example" for number in range(101)]
    assert refused(ProjectChange, {"origins": origins}).param == "origins"


# ---------------------------------------------------------------- upstreams


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://api.deepseek.com", "https://api.deepseek.com"),
        ("https://llm.example:8443/a/b.c/~d_e-f", "https://llm.example:8443/a/b.c/~d_e-f"),
        ("https://192.0.2.7/v1", "https://192.0.2.7/v1"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://10.0.0.7/v1", "http://10.0.0.7/v1"),
        ("http://172.16.0.1/v1", "http://172.16.0.1/v1"),
        ("http://172.31.255.255/v1", "http://172.31.255.255/v1"),
        ("http://192.168.0.7/v1", "http://192.168.0.7/v1"),
        ("http://ollama:11434/v1", "http://ollama:11434/v1"),
    ],
)
def test_provider_is_reached_by_https_or_within_a_private_network(typed: str, kept: str) -> None:
    told = {"kind": "openai", "base_url": typed}
    assert parsed(UpstreamDocument, told).stored() == {"kind": "openai", "base_url": kept}


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.openai.com",
        "//api.openai.com",
        "ftp://api.openai.com",
        "file:///etc/passwd",
        "http://api.openai.com/v1",
        "http://8.8.8.8/v1",
        "http://134744072/v1",  # 8.8.8.8, too
        "http://0x08080808/v1",
        "http://010.8.8.8/v1",
        "http://10.8.8.8.evil.com/v1",
        "http://127.0.0.1.evil.com",
        "http://localhost.evil.com",
        "http://172.15.0.1",
        "http://172.32.0.1",
        "http://192.169.0.1",
        "http://169.254.169.254/latest",
        "http://0.0.0.0",
        "https://user@api.openai.com",
        "https://user:word@api.openai.com/v1",
        "https://api.openai.com@evil.com",
        "https://api.openai.com/v1?key=x",
        "https://api.openai.com/v1#x",
        "https://api.openai.com/v1/../admin",
        "https://api.openai.com/..",
        "https://api.openai.com/./v1",
        "https://api.openai.com/%2e%2e/v1",
        "https://api.openai.com//v1",
        "https://api.openai.com\\v1",
        "https://api.openai.com/v1 ",
        "https://api.openai.com/v1\n",
        "https://api.openai.com/v1\r\nX: y",
        "https://api.openai.com:",
        "https://api.openai.com:0",
        "https://api.openai.com:99999",
        "https://api.openai.com:65536",
        "https://..",
        "https://-",
        "https://a..b",
        "https://",
        "https://api.öpenai.com",
        f"https://{'a' * 64}.com",
        "https://a.com/" + "a" * 500,
        7,
        None,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_providers_key_goes_nowhere_else(base_url: Any) -> None:
    refused(UpstreamDocument, {"kind": "openai", "base_url": base_url})


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "openai"},
        {"kind": "openai", "base_url": "https://a.example", "region": "eu-west-1"},
        {"kind": "bedrock", "base_url": "https://a.example"},
        {"kind": "bedrock", "region": "eu-west-1.evil.com/"},
        {"kind": "bedrock", "region": "Europe"},
        {"kind": "azure", "base_url": "https://a.example"},
        {"kind": "OpenAI", "base_url": "https://a.example"},
        {},
    ],
    ids=str,
)
def test_upstream_is_of_one_kind(told: dict[str, Any]) -> None:
    refused(UpstreamDocument, told)


def test_kind_that_does_not_exist_is_refused_with_those_that_do() -> None:
    answer = refused(UpstreamDocument, {"kind": "vertex", "base_url": "https://a.example"})
    assert answer.param == "kind"
    assert answer.message == f"kind: must be one of {', '.join(KINDS)}."
    file = {"format": "weir-configuration/1", "upstreams": {"u": {"kind": "vertex"}}}
    assert refused(ConfigurationFile, file).param == "upstreams.u.kind"


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-east-1", "ap-southeast-2"])
def test_bedrock_may_be_of_another_region(region: str) -> None:
    told = {"kind": "bedrock", "region": region}
    assert parsed(UpstreamDocument, told).stored() == told


# ---------------------------------------------------------------- kill switches, keys, tiers


@pytest.mark.parametrize(
    "told",
    [
        {"scope": "tenant", "project": "p"},
        {"scope": "project"},
        {"scope": "project", "project": "p", "user_id": "u"},
        {"scope": "model", "project": "p"},
        {"scope": "user", "user_id": "u"},
        {"scope": "user", "project": "p"},
        {"scope": "user", "project": "p", "user_id": "u", "model": "m"},
        {"scope": "everything"},
        {"scope": "tenant", "off": "true"},
        {"scope": "tenant", "off": 1},
        {"scope": "tenant", "off": None},
    ],
    ids=str,
)
def test_switch_names_exactly_what_it_switches(told: dict[str, Any]) -> None:
    refused(KillSwitch, {"off": True, **told})


@pytest.mark.parametrize(
    "told",
    [{"scopes": []}, {"scopes": ["admin"]}, {"scopes": "mint"}, {"role": "root"}, {"role": None}],
    ids=str,
)
def test_api_key_has_a_scope_and_a_role_that_there_are(told: dict[str, Any]) -> None:
    refused(NewApiKey, told)


def test_api_key_may_make_tokens_of_users_and_nothing_more_unless_told() -> None:
    new = parsed(NewApiKey, {})
    assert (new.scopes, new.role) == (["mint"], "user")


@pytest.mark.parametrize(
    "tiers",
    [
        {"free": {"number": 2}},
        {"max": {"number": 4}},
        {"team": {"number": 1}},
        {"team": {"number": 3}},
        {"team": {"number": 7}},
        {"team": {"number": 4}, "crew": {"number": 4}},
        {"team": {}},
        {"Team": {"number": 4}},
        {"4": {"number": 4}},  # would be taken for a number
    ],
    ids=str,
)
def test_tiers_of_a_file_have_their_numbers_each_once(tiers: dict[str, Any]) -> None:
    refused(ProjectDocument, {"tiers": tiers})


def test_three_tiers_of_ones_own_fit() -> None:
    tiers = {name: {"number": number} for name, number in (("a", 4), ("b", 5), ("c", 6))}
    parsed(ProjectDocument, {"tiers": {**tiers, "pro": {"number": 2, "limits": {"rpm": 1}}}})


@pytest.mark.parametrize("told", [None, [], "x", 7, {"format": "weir-configuration/2"}, {}])
def test_file_of_another_format_is_refused(told: Any) -> None:
    refused(ConfigurationFile, told)


# ---------------------------------------------------------------- several records together


def model(*aliases: str, upstream: str = "main") -> dict[str, Any]:
    told = {**MODEL, "aliases": list(aliases), "candidates": [{**CANDIDATE, "upstream": upstream}]}
    return parsed(ModelDocument, told).stored()


@pytest.mark.parametrize(
    ("models", "param"),
    [
        ({"a": model("x"), "b": model("x")}, "aliases"),
        ({"a": model("b"), "b": model()}, "aliases"),
        ({"a": model(), "b": model("a")}, "aliases"),
        ({"default": model()}, "name"),
        ({"a": model("default")}, "name"),
        ({"a": model(upstream="gone")}, "candidates.upstream"),
    ],
    ids=str,
)
def test_catalogue_whose_parts_do_not_fit_is_refused(models: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_catalogue({"upstreams": {"main": UPSTREAM}, "models": models})
    assert caught.value.param == param


def test_catalogue_whose_parts_fit_is_taken() -> None:
    check_catalogue({})
    models = {"a": model("a", "x", "fc:main/a"), "b": model("y")}  # its own name is no other's
    check_catalogue({"upstreams": {"main": UPSTREAM}, "models": models})


@pytest.mark.parametrize(
    ("project", "param"),
    [
        ({"models": ["a", "gone"]}, "models"),
        ({"models": ["x"]}, "models"),  # by name: an alias may move
        ({"default_model": "gone"}, "default_model"),
        ({"default_model": "b", "models": ["a"]}, "default_model"),
        ({"default_model": "y", "models": ["a"]}, "default_model"),
        ({"default_model": "a", "models": []}, "default_model"),
    ],
    ids=str,
)
def test_project_that_names_what_it_cannot_have_is_refused(
    project: dict[str, Any], param: str
) -> None:
    catalogue = {"models": {"a": model("x"), "b": model("y")}}
    with pytest.raises(BadRequest) as caught:
        check_project(project, catalogue)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "project",
    [{}, {"models": []}, {"default_model": "x"}, {"default_model": "x", "models": ["a"]}],
    ids=str,
)
def test_project_that_names_what_there_is_is_taken(project: dict[str, Any]) -> None:
    check_project(project, {"models": {"a": model("x"), "b": model("y")}})


@pytest.mark.parametrize(
    ("kind", "document"),
    [(ProjectChange, {}), (ModelDocument, MODEL), (UpstreamDocument, UPSTREAM)],
    ids=str,
)
def test_field_that_would_cost_more_or_is_our_own_can_be_allowed_nowhere(
    kind: type[Document], document: dict[str, Any]
) -> None:
    for name in NEVER_ALLOWED:
        refusal = refused(kind, {**document, "allowed_fields": ["guided_json", name]})
        assert refusal.param == "allowed_fields"
        assert name in refusal.message
    for names in (["a b"], ["ü"], [""], ["x" * 65], ["a,b"], [7], "guided_json", ["x"] * 51):
        assert str(refused(kind, {**document, "allowed_fields": names}).param).startswith(
            "allowed_fields"
        )
    told = parsed(kind, {**document, "allowed_fields": ["top_k", "guided_json", "top_k"]}).stored()
    assert told["allowed_fields"] == ["guided_json", "top_k"]


# ---------------------------------------------------------------- nothing that was sent comes back

CANARY = "sk-CANARY-7f3a"
FULL_PROJECT = {
    **PROJECT,
    "name": "n",
    "preview_origins": ["https://*.x.example.com"],
    "models": ["m-large"],
    "system_prompt": "s",
    "allowed_fields": ["guided_json"],
    "memory_enabled": True,
    "memory_window": 3,
    "retention_days": 30,
    "store_tool_calls": False,
    "limits": {"rpm": 1, "usd_per_month": 1.5},
    "user_limits": {"rpm": 1},
    "status": "active",
}
FULL_MODEL = {
    **MODEL,
    "aliases": ["x"],
    "max_input_tokens": 1,
    "image_max_tokens": 1,
    "hidden_reasoning": False,
    "allowed_fields": ["guided_json"],
    "source": "https://x.example",
    "as_of": "2026-01-01",
    "candidates": [{**CANDIDATE, "output_cap_parameter": "max_tokens"}],
}
# Their reasons quote them: an origin is no secret, and which of a hundred it was is the question.
QUOTED = ("origins", "preview_origins", "origins.0", "preview_origins.0")


def places(document: Any, way: str = "") -> list[str]:
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for name, value in pairs:
        place = f"{way}{name}"
        found.append(place)
        if isinstance(value, dict | list):
            found += places(value, f"{place}.")
    return found


EVERYWHERE = [
    (kind, document, place)
    for kind, document in [
        (NewProject, FULL_PROJECT),
        (ModelDocument, FULL_MODEL),
        (UpstreamDocument, UPSTREAM),
        (UpstreamDocument, {**BEDROCK, "region": "eu-west-1"}),
        (ConfigurationFile, WHOLE_FILE),
        (NewApiKey, {"name": "n", "scopes": ["mint"], "role": "user"}),
        (ProviderKey, {"key": "sk-12345678"}),
        (KillSwitch, {**SWITCH, "reason": "r"}),
        (KillSwitch, {"scope": "user", "project": "p", "user_id": "u", "off": True}),
        (KillSwitch, {"scope": "model", "model": "m", "off": True}),
        (TenantDocument, {"limits": {"rpm": 1}}),
        (EraseUser, {"user_id": "u"}),
    ]
    for place in places(document)
    if place not in QUOTED
]


@pytest.mark.parametrize(("kind", "document", "place"), EVERYWHERE, ids=str)
def test_refusal_never_repeats_what_was_sent(
    kind: type[Document], document: Any, place: str
) -> None:
    refusals = []
    for value in (
        f"{CANARY}\x00",
        f"\ud800{CANARY}",
        f"{CANARY} {CANARY * 2000}",
        [CANARY],
        {"a": CANARY},
        [[{"a": CANARY}]],
        {"rpm": CANARY, "number": CANARY, "candidates": CANARY},
    ):
        with contextlib.suppress(BadRequest):
            # Some lists of names take it for one.
            parsed(kind, at(document, place, value))
            assert value == [CANARY]
            continue
        refusals.append(refused(kind, at(document, place, value)))
    assert len(refusals) >= 6
    for refusal in refusals:
        assert CANARY not in json.dumps(refusal.envelope("r"))
        assert refusal.__suppress_context__


# ---------------------------------------------------------------- what is written can be read

COUNTS = st.none() | st.integers(0, 10**12)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("rpm", "tpm", "requests_per_day", "tokens_per_day"), COUNTS),
        "tokens_per_month": COUNTS,
        "usd_per_month": st.none() | st.integers(0, 10**12).map(lambda micro: micro / 10**6),
        "max_output_tokens": st.none() | st.integers(1, 10**7),
        "concurrent_streams": st.none() | st.integers(0, 10_000),
    },
)
TIERS = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries({"number": st.just(number)}, optional={"limits": LIMITS})
        for name, number in (("free", 1), ("max", 3), ("team", 4), ("crew", 6))
    },
)
PRICE = st.integers(0, 10**9)
FIELD_NAMES = st.none() | st.lists(st.from_regex(r"x_[a-z]{1,5}", fullmatch=True), max_size=3)
MODELS = st.fixed_dictionaries(
    {
        "candidates": st.lists(
            st.fixed_dictionaries(
                {
                    "upstream": st.just("main"),
                    "model": st.from_regex(r"[!-~]{1,20}", fullmatch=True),
                    "input_nano_usd": PRICE,
                    "cached_input_nano_usd": PRICE,
                    "output_nano_usd": PRICE,
                },
                optional={
                    "output_cap_parameter": st.sampled_from(["max_tokens", "max_completion_tokens"])
                },
            ),
            min_size=1,
            max_size=5,
        ),
        "context_tokens": st.integers(1, 10**8),
        "max_output_tokens": st.integers(1, 10**7),
        "overhead_tokens": st.integers(0, 10**6),
    },
    optional={
        "aliases": st.lists(st.from_regex(r"fc:[a-z]{1,5}/[a-z]{1,5}", fullmatch=True), max_size=3),
        "max_input_tokens": st.none() | st.integers(1, 10**8),
        "image_max_tokens": st.none() | st.integers(1, 10**6),
        "hidden_reasoning": st.booleans(),
        "allowed_fields": FIELD_NAMES,
        "as_of": st.none() | st.just("2026-01-01"),
        "source": st.none() | st.just("https://x.example"),
    },
)


@given(MODELS)
def test_every_model_that_may_be_written_can_be_read(told: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(parsed(ModelDocument, told).stored()))
    catalogue = {"upstreams": {"main": UPSTREAM}, "models": {"m": stored}}
    check_catalogue(catalogue)
    read = Catalogue(catalogue).models["m"]
    assert len(read.candidates) == len(told["candidates"])
    for candidate, written in zip(read.candidates, told["candidates"], strict=True):
        assert candidate.output_nano_usd == written["output_nano_usd"]
    assert read.image_max_tokens == told.get("image_max_tokens")
    assert read.max_input_tokens == told.get("max_input_tokens")
    assert read.hidden_reasoning == told.get("hidden_reasoning", True)
    assert read.allowed_fields == frozenset(told.get("allowed_fields") or ())
    assert parsed(ModelDocument, stored).stored() == stored


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.none() | st.just("Shop"),
            "origins": st.lists(st.sampled_from([ORIGIN, "http://localhost:1", "https://b.x/"])),
            "preview_origins": st.lists(st.sampled_from(["https://*.a.example.com"])),
            "models": st.none() | st.lists(st.just("m")),
            "default_model": st.none() | st.just("m"),
            "system_prompt": st.none() | st.text(alphabet="ab\n\tü🌊", max_size=20),
            "allowed_fields": FIELD_NAMES,
            "limits": LIMITS,
            "user_limits": LIMITS,
            "status": st.sampled_from(["active", "suspended"]),
            "ledger_shards": st.integers(1, MOST_SHARDS),
            "tiers": TIERS,
        },
    )
)
def test_every_project_that_may_be_written_can_be_read(told: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(parsed(ProjectDocument, told).stored()))
    read = Project.from_document("p", stored)
    assert read.suspended is (told.get("status") == "suspended")
    assert (read.pool.shards, read.pool.generation) == (told.get("ledger_shards", 1), 0)
    assert read.allowed_fields == frozenset(told.get("allowed_fields") or ())
    assert read.models == (None if told.get("models") is None else frozenset(told["models"]))
    for name, value in told.get("limits", {}).items():
        if name != "usd_per_month":
            assert getattr(read.limits, name) == value
        elif value is not None:
            assert read.limits.nano_usd_per_month == round(value * 10**6) * NANO // 10**6
    for name in told.get("tiers", {}):
        assert isinstance(read.limits_of(name), Limits)
    for origin in stored.get("origins", ()):
        assert origin in read.origins
    assert parsed(ProjectDocument, stored).stored() == stored


def test_shipped_models_fit_into_one_catalogue() -> None:
    known = known_models.load()
    catalogue = {
        "upstreams": {name: each.stored() for name, each in known.upstreams.items()},
        "models": {name: each.stored() for name, each in known.models.items()},
    }
    check_catalogue(catalogue)
    assert Catalogue(catalogue).models.keys() == known.models.keys()


def test_thinking_cap_has_a_name_that_no_caller_can_send() -> None:
    names = get_args(ThinkingCap.model_fields["parameter"].annotation)
    assert set(names) == set(THINKING_PARAMETERS)


# ---------------------------------------------------------------- models that write nothing

VECTORS: dict[str, Any] = {
    "kind": "embedding",
    "candidates": [{"upstream": "main", "model": "v-1", "input_nano_usd": 20}],
    "context_tokens": 8192,
    "overhead_tokens": 16,
}


@pytest.mark.parametrize("kind", ["embedding", "moderation"])
def test_of_a_model_that_writes_nothing_only_the_input_has_a_price_to_tell(kind: str) -> None:
    stored = parsed(ModelDocument, {**VECTORS, "kind": kind}).stored()
    (candidate,) = stored["candidates"]
    assert (candidate["cached_input_nano_usd"], candidate["output_nano_usd"]) == (20, 0)
    assert (stored["kind"], stored["max_output_tokens"]) == (kind, 0)
    assert parsed(ModelDocument, stored).stored() == stored
    assert Catalogue({"upstreams": {"main": UPSTREAM}, "models": {"v": stored}}).models["v"]


@pytest.mark.parametrize("kind", ["chat", "embedding", "moderation"])
def test_no_kind_of_model_is_free_unless_the_price_0_is_written(kind: str) -> None:
    told = {**(MODEL if kind == "chat" else VECTORS), "kind": kind}
    without = {n: v for n, v in told["candidates"][0].items() if n != "input_nano_usd"}
    refusal = refused(ModelDocument, {**told, "candidates": [without]})
    assert refusal.param == "candidates.0.input_nano_usd"
    parsed(ModelDocument, at(told, "candidates.0.input_nano_usd", 0))


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "chat"},
        {"kind": "rerank"},
        {"kind": None},
        {"max_output_tokens": 1},
        {"image_max_tokens": 1},
        {"dimensions": 0},
        {"kind": "moderation", "dimensions": 8},
        {"candidates": [{**VECTORS["candidates"][0], "output_nano_usd": 1}]},
        {
            "candidates": [
                {
                    **VECTORS["candidates"][0],
                    "thinking_cap": {"parameter": "thinking_budget", "max_tokens": 1},
                }
            ]
        },
        {"candidates": 7},
        {"candidates": [7]},
    ],
    ids=str,
)
def test_model_is_what_its_kind_can_be(changed: dict[str, Any]) -> None:
    refused(ModelDocument, {**VECTORS, **changed})


def test_chat_model_needs_a_cap_and_has_no_dimensions() -> None:
    refused(ModelDocument, {**MODEL, "max_output_tokens": 0})
    refused(ModelDocument, {**MODEL, "dimensions": 8})
    assert "kind" not in parsed(ModelDocument, MODEL).stored()


@pytest.mark.parametrize(
    ("upstream", "kind", "fits"),
    [
        ("openai", "embedding", True),
        ("openai", "moderation", True),
        ("azure", "embedding", True),
        ("azure", "moderation", False),
        ("bedrock", "embedding", False),
        ("bedrock", "moderation", False),
        ("bedrock", "chat", True),
    ],
)
def test_upstream_must_serve_the_kind_of_its_models(upstream: str, kind: str, fits: bool) -> None:
    told = parsed(ModelDocument, MODEL if kind == "chat" else {**VECTORS, "kind": kind}).stored()
    catalogue = {"upstreams": {"main": UPSTREAM_OF[upstream]}, "models": {"m": told}}
    if fits:
        check_catalogue(catalogue)
        return
    with pytest.raises(BadRequest) as caught:
        check_catalogue(catalogue)
    assert caught.value.param == "candidates.upstream"


def test_default_of_a_project_is_a_chat_model() -> None:
    models = {"v": parsed(ModelDocument, VECTORS).stored()}
    with pytest.raises(BadRequest) as caught:
        check_project({"default_model": "v"}, {"models": models})
    assert caught.value.param == "default_model"
