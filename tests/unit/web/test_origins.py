"""Which pages may call, what an operator may list, and what he is told about one that fails."""

import contextlib
import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from publicsuffixlist import PublicSuffixList

from weir.web.origins import Origins, diagnose, parse_origin, parse_preview_origin

PUBLIC = PublicSuffixList().is_public

LISTED = Origins(
    frozenset({"https://app.example.com", "http://localhost:5173", "https://[2001:db8::1]:8443"}),
    ("https://*.preview.example.com", "https://pr-*.example.com:8443"),
)


@pytest.mark.parametrize("origin", sorted(LISTED.exact))
def test_listed_origin_is_allowed(origin: str) -> None:
    assert origin in LISTED


@pytest.mark.parametrize(
    "origin",
    [
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com:443",  # no browser says the usual port
        "https://app.example.com/",
        "https://app.example.com.",
        "https://APP.example.com",
        "HTTPS://app.example.com",
        "https://app.example.com.evil.com",
        "https://evilapp.example.com",
        "https://app-example.com",
        "https://appXexample.com",
        "https://a.app.example.com",
        "https://example.com",
        "https://app.example.com@evil.com",
        "https://user@app.example.com",
        "https://app.example.com#@evil.com",
        "https://app.example.com\n",
        " https://app.example.com",
        "https://app.example.com,https://evil.com",
        "https://\u0430pp.example.com",  # a Cyrillic letter
        "https://xn--pp-6kc.example.com",  # the same in punycode
        "https://app.example.com\u2024evil.com",
        "http://localhost",
        "http://localhost:51730",
        "http://127.0.0.1:5173",
        "http://[::1]:5173",
        "https://[2001:db8::1]",
        "https://[2001:db8:0::1]:8443",
        "null",
        "*",
        "",
        None,
        7,
        b"https://app.example.com",
    ],
    ids=repr,
)
def test_anything_that_differs_in_a_character_is_not_allowed(origin: Any) -> None:
    assert origin not in LISTED


@pytest.mark.parametrize(
    "origin",
    [
        "https://x.preview.example.com",
        "https://my-app-git-main-team.preview.example.com",
        "https://7.preview.example.com",
        "https://pr-1.example.com:8443",
        "https://pr-a-b.example.com:8443",
    ],
)
def test_star_stands_for_a_label_or_a_part_of_one(origin: str) -> None:
    assert origin in LISTED


@pytest.mark.parametrize(
    "origin",
    [
        "https://preview.example.com",
        "https://.preview.example.com",
        "https://a.b.preview.example.com",
        "https://evil.com/.preview.example.com",
        "https://evil.com?.preview.example.com",
        "https://evil.com#.preview.example.com",
        "https://evil.com:443.preview.example.com",
        "https://evil.com\\.preview.example.com",
        "https://user@x.preview.example.com",
        "https://user:word@x.preview.example.com",
        "https://*.preview.example.com",
        "https://X.preview.example.com",
        "https://ä.preview.example.com",
        "https://a_b.preview.example.com",
        "https://a b.preview.example.com",
        "https://-.preview.example.com",
        "https://-a.preview.example.com",
        "https://a-.preview.example.com",
        f"https://{'a' * 64}.preview.example.com",
        "https://x.preview.example.com:444",
        "https://x.preview.example.com:443",
        "https://x.preview.example.com/",
        "https://x.preview.example.com.evil.com",
        "https://x.preview.example.com\n",
        "https://xpreview.example.com",
        "http://x.preview.example.com",
        "https://pr-.example.com:8443",
        "https://pr-1.example.com",
        "https://pr-1.example.com:84430",
        "https://pr-1:8443.example.com:8443",
        "https://pr-1.evil.example.com:8443",
        "https://xpr-1.example.com:8443",
    ],
)
def test_star_stands_for_nothing_else(origin: str) -> None:
    assert origin not in LISTED


def test_nothing_is_allowed_where_nothing_is_listed() -> None:
    for origin in ("https://app.example.com", "null", "", "*"):
        assert origin not in Origins()


# ---------------------------------------------------------------- what may be listed


@pytest.mark.parametrize(
    ("typed", "listed"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("  HTTPS://App.Example.COM/ \n", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("https://app.example.com:0443/", "https://app.example.com"),
        ("https://app.example.com:8443", "https://app.example.com:8443"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:5173/", "http://localhost:5173"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://shop.localhost:3000", "http://shop.localhost:3000"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
        ("https://192.0.2.7", "https://192.0.2.7"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://intranet", "https://intranet"),
    ],
)
def test_origin_is_listed_as_a_browser_will_send_it(typed: str, listed: str) -> None:
    assert parse_origin(typed) == listed
    assert parse_origin(listed) == listed
    assert listed in Origins(frozenset({listed}))


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "no scheme"),
        ("app.example.com", "https://app.example.com"),
        ("//app.example.com", "no scheme"),
        ("null", "nobody in particular"),
        ("*", "wildcard"),
        ("https://*", "wildcard"),
        ("https://*.example.com", "preview origin"),
        ("http://app.example.com", "only for localhost"),
        ("http://localhost.evil.com", "only for localhost"),
        ("http://127.0.0.1.evil.com", "only for localhost"),
        ("http://notlocalhost", "only for localhost"),
        ("http://192.168.0.7", "only for localhost"),
        ("https://bücher.example", "punycode"),
        ("https://app.example.com/path", "no path"),
        ("https://app.example.com//", "no path"),
        ("https://app.example.com?q", "no path, no query"),
        ("https://app.example.com#f", "is not an origin"),
        ("https://user@app.example.com", "no user"),
        ("https://app.example.com:port", "is not an origin"),
        ("https://app.example.com:", "is not an origin"),
        ("https://app.example.com:0", "1 to 65535"),
        ("https://app.example.com:65536", "1 to 65535"),
        ("https://app.example.com.", "not a host name"),
        ("https://.example.com", "not a host name"),
        ("https://a..example.com", "not a host name"),
        ("https://-a.example.com", "not a host name"),
        ("https://a_b.example.com", "is not an origin"),
        ("https://a b.example.com", "is not an origin"),
        (f"https://{'a' * 64}.example.com", "not a host name"),
        ("ftp://app.example.com", "is not an origin"),
        ("file:///index.html", "is not an origin"),
        ("javascript://app.example.com", "is not an origin"),
        ("chrome-extension://abcdef", "is not an origin"),
        ("https://", "is not an origin"),
        ("https://app.example.com, https://b.example.com", "is not an origin"),
    ],
)
def test_what_no_browser_sends_is_refused_with_the_reason(typed: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_origin(typed)


# ---------------------------------------------------------------- native apps and extensions

EXTENSION = "chrome-extension://" + "abcdefghijklmnop" * 2
UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
NATIVE = [
    "tauri://localhost",
    "capacitor://localhost",
    "ionic://localhost",
    "app://bundle",
    "app://obsidian.md",
    "app://.",
    "app://-",
    EXTENSION,
    f"moz-extension://{UUID}",
    f"safari-web-extension://{UUID}",
    f"safari-web-extension://{UUID.upper()}",
]


@pytest.mark.parametrize("origin", NATIVE)
def test_origin_of_a_native_app_is_listed_and_allowed_as_the_app_sends_it(origin: str) -> None:
    assert parse_origin(f" {origin}/ ") == origin
    listed = Origins(frozenset({origin}))
    assert diagnose(origin, listed).allowed
    host = origin.partition("://")[2]
    for other in (f"https://{host}", f"http://{host}", f"{origin}/", f"{origin}:80", f"x{origin}"):
        assert other not in listed
    scheme = origin.partition("://")[0]
    assert parse_origin(origin.replace(scheme, scheme.upper())) == origin


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("file://", "local files"),
        ("file:///home/jo/index.html", "local files"),
        ("tauri://", "look like tauri://localhost"),
        ("tauri://localhost:1420", "is not an origin"),
        ("tauri://localhost/index.html", "is not an origin"),
        ("tauri://user@localhost", "is not an origin"),
        ("tauri://localhost\n.evil", "is not an origin"),
        ("capacitor://-a", "is not an origin"),
        ("app://*", "wildcard"),
        ("app://..", "is not an origin"),
        ("app://" + "a" * 254, "is not an origin"),
        ("chrome-extension://" + "a" * 31, "32 letters from a to p"),
        ("chrome-extension://" + "q" * 32, "32 letters from a to p"),
        ("chrome-extension://*", "wildcard"),
        ("moz-extension://addon@example.com", "UUID"),
        (f"safari-web-extension://{UUID[:-1]}", "UUID"),
        ("htps://app.example.com", "Schemes: https, http, tauri"),
        ("blob://localhost", "is not an origin"),
        ("data://localhost", "is not an origin"),
    ],
)
def test_what_no_native_app_sends_is_refused_with_the_reason(typed: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_origin(typed)


@pytest.mark.parametrize("pattern", ["app://*", "tauri://*.example.com", "chrome-extension://*"])
def test_native_origin_has_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_preview_origin(pattern, PUBLIC)


@pytest.mark.parametrize(
    ("origin", "listed", "reason"),
    [
        ("tauri://localhost", "http://localhost:5173", "scheme"),
        ("capacitor://localhost", "https://localhost", "scheme"),
        ("tauri://localhost", "ionic://localhost", "scheme"),
        (EXTENSION, "https://app.example.com", "not_listed"),
        ("tauri://localhost/", "tauri://localhost", "trailing_slash"),
        ("file://", "tauri://localhost", "not_an_origin"),
        ("null", "tauri://localhost", "null_origin"),
    ],
)
def test_verdict_on_a_native_origin_names_what_differs(
    origin: str, listed: str, reason: str
) -> None:
    assert diagnose(origin, Origins(frozenset({listed}))).reason == reason


@pytest.mark.parametrize(
    ("typed", "listed"),
    [
        ("https://*.preview.example.com", "https://*.preview.example.com"),
        (" HTTPS://PR-*.Example.com:443/ ", "https://pr-*.example.com"),
        ("https://*-team.example.com:8443", "https://*-team.example.com:8443"),
        ("https://a*b.example.co.uk", "https://a*b.example.co.uk"),
        ("https://*.my-app.vercel.app", "https://*.my-app.vercel.app"),
    ],
)
def test_preview_origin_below_a_domain_of_ones_own_is_taken(typed: str, listed: str) -> None:
    assert parse_preview_origin(typed, PUBLIC) == listed
    assert parse_preview_origin(listed, PUBLIC) == listed
    assert listed.replace("*", "x7") in Origins(previews=(listed,))


@pytest.mark.parametrize(
    "parent",
    [
        "com",
        "co.uk",
        "CO.UK",
        "vercel.app",
        "netlify.app",
        "pages.dev",
        "github.io",
        "s3.amazonaws.com",
        "localhost",
        "unknown-top-level",
        "foo.ck",  # the list says *.ck
        "xn--p1ai",
    ],
)
@pytest.mark.parametrize("label", ["*", "my-app-*", "*-team"])
def test_pattern_that_a_stranger_could_register_is_refused(label: str, parent: str) -> None:
    for port in ("", ":443", ":8443"):
        with pytest.raises(ValueError, match="public suffix"):
            parse_preview_origin(f"https://{label}.{parent}{port}", PUBLIC)


@pytest.mark.parametrize(
    "typed",
    [
        "https://example.com",
        "https://*.*.example.com",
        "https://**.example.com",
        "https://app.*.example.com",
        "https://example.*",
        "https://*",
        "https://*:8443",
        "*",
        "*.example.com",
        "http://*.example.com",
        "ftp://*.example.com",
        "https://user@*.example.com",
        "https://*@a.example.com",
        "https://*.example.com/path",
        "https://*.example.com?q",
        "https://*.example.com.",
        "https://-*.example.com",
        "https://*-.example.com",
        f"https://{'a' * 63}*.example.com",
        "https://*.exämple.com",
        "https://[*::1]",
        "https://*.2.3.4",  # is 1.2.3.4, and 254 neighbours
        "https://*.example.com:0",
        "https://*.example.com:99999",
        "https://x.example.com:*",
        "",
    ],
)
def test_pattern_of_another_form_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_preview_origin(typed, PUBLIC)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("*", "'*' has no domain after its *"),
        ("https://*:8443", "'https://*:8443' has no domain after its *"),
        ("*.a.example.com", "'*.a.example.com' has no scheme: write https://*.a.example.com"),
        ("https://*-.a.example.com", "'https://*-.a.example.com': that is not a host name"),
    ],
)
def test_refused_pattern_is_told_as_it_was_typed(typed: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_preview_origin(typed, PUBLIC)


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
# A host whose last label is a number is an IP address, or nothing.
HOST = st.lists(LABEL, max_size=2).map(lambda labels: ".".join([*labels, "example"]))
PORT = st.integers(1, 65535)


@st.composite
def origins_typed(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(["https", "HTTPS"]))
    port = draw(st.one_of(st.just(""), PORT.map(":{}".format)))
    host = draw(HOST)
    return f"{scheme}://{draw(st.sampled_from([host, host.upper()]))}{port}" + draw(
        st.sampled_from(["", "/"])
    )


@st.composite
def patterns_typed(draw: st.DrawFn) -> str:
    before, after = draw(st.sampled_from([("", ""), ("pr-", ""), ("", "-team"), ("a", "z")]))
    port = draw(st.one_of(st.just(""), PORT.map(":{}".format)))
    return f"https://{before}*{after}.{draw(LABEL)}.example.com{port}"


def parts(origin: str) -> tuple[str, str]:
    """Scheme and port, as they are written."""
    scheme, _, rest = origin.partition("://")
    return scheme, rest.partition(":")[2]


NEAR = st.one_of(
    st.text(alphabet="ab-.:/@*#\\\n7A", max_size=6),
    st.sampled_from([".evil.com", "evil.", "pr-", "-team", ":443", "user@", "x", "/", "xn--"]),
)


@given(
    st.lists(origins_typed(), max_size=3),
    st.lists(patterns_typed(), max_size=3),
    st.data(),
)
def test_whatever_is_allowed_is_an_origin_of_a_listed_scheme_and_port(
    exact: list[str], previews: list[str], data: st.DataObject
) -> None:
    listed = Origins(
        frozenset(map(parse_origin, exact)),
        tuple(parse_preview_origin(each, PUBLIC) for each in previews),
    )
    everything = [*listed.exact, *listed.previews, "https://app.example.com"]
    base = data.draw(st.sampled_from(everything)).replace("*", data.draw(LABEL | NEAR), 1)
    at = data.draw(st.integers(0, len(base)))
    origin = base[:at] + data.draw(st.just("") | NEAR) + base[at:]
    if origin in listed:
        assert parse_origin(origin) == origin
        assert parts(origin) in {parts(each) for each in (*listed.exact, *listed.previews)}
    for each in listed.exact:
        assert each in listed


@given(st.text(max_size=40))
def test_no_text_whatever_crashes_parser_or_verdict(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_origin(text)
    with contextlib.suppress(ValueError):
        parse_preview_origin(text, PUBLIC)
    assert diagnose(text, LISTED).allowed is (text in LISTED)


def test_union_allows_what_any_list_allows() -> None:
    one = Origins(frozenset({"https://a.example"}), ("https://*.a.example",))
    two = Origins(frozenset({"https://b.example"}), ("https://*.a.example", "https://*.b.example"))
    both = Origins.union([one, two])
    assert both.document() == {
        "origins": ["https://a.example", "https://b.example"],
        "preview_origins": ["https://*.a.example", "https://*.b.example"],
    }
    assert Origins.from_document(both.document()) == both
    assert Origins.union([]) == Origins() == Origins.from_document({})


# ---------------------------------------------------------------- why one fails

PROJECT = Origins(
    frozenset(
        {"https://app.example.com", "http://localhost:5173", "https://shop.example.com:8443"}
    ),
    ("https://*.preview.example.com",),
)
ELSEWHERE = {
    "b": Origins(frozenset({"https://other.example"})),
    "a": Origins(frozenset({"https://other.example"}), ("https://*.team.example.com",)),
}


@pytest.mark.parametrize(
    ("origin", "reason", "closest", "suggestion"),
    [
        (None, "no_origin", None, None),
        ("https://app.example.com", "allowed", None, None),
        ("https://x.preview.example.com", "allowed", None, None),
        ("null", "null_origin", None, None),
        ("app.example.com", "not_an_origin", None, None),
        ("", "not_an_origin", None, None),
        ("https://app.example.com/page", "not_an_origin", None, None),
        (
            "https://app.example.com/",
            "trailing_slash",
            "https://app.example.com",
            "https://app.example.com",
        ),
        ("https://new.example/", "trailing_slash", None, "https://new.example"),
        (
            "https://APP.example.com",
            "spelling",
            "https://app.example.com",
            "https://app.example.com",
        ),
        (
            "https://app.example.com:443",
            "spelling",
            "https://app.example.com",
            "https://app.example.com",
        ),
        (
            "https://other.example",
            "listed_elsewhere",
            "https://other.example",
            "https://other.example",
        ),
        (
            "https://x.team.example.com",
            "listed_elsewhere",
            "https://x.team.example.com",
            "https://x.team.example.com",
        ),
        ("http://app.example.com", "scheme", "https://app.example.com", None),
        ("https://localhost:5173", "scheme", "http://localhost:5173", "https://localhost:5173"),
        ("http://shop.example.com:8443", "scheme", "https://shop.example.com:8443", None),
        (
            "https://app.example.com:444",
            "port",
            "https://app.example.com",
            "https://app.example.com:444",
        ),
        ("http://localhost:3000", "port", "http://localhost:5173", "http://localhost:3000"),
        ("http://shop.example.com", "scheme", "https://shop.example.com:8443", None),
        ("http://127.0.0.1:5173", "host", "http://localhost:5173", "http://127.0.0.1:5173"),
        ("https://example.com", "host", "https://app.example.com", "https://example.com"),
        (
            "https://www.app.example.com",
            "host",
            "https://app.example.com",
            "https://www.app.example.com",
        ),
        (
            "https://a.b.preview.example.com",
            "pattern",
            "https://*.preview.example.com",
            "https://a.b.preview.example.com",
        ),
        ("https://evil.com", "not_listed", None, "https://evil.com"),
        ("http://evil.com", "not_listed", None, None),
    ],
)
def test_verdict_names_what_is_wrong_what_was_meant_and_what_would_help(
    origin: str | None, reason: str, closest: str | None, suggestion: str | None
) -> None:
    verdict = diagnose(origin, PROJECT, ELSEWHERE)
    assert (verdict.reason, verdict.closest, verdict.suggestion) == (reason, closest, suggestion)
    assert verdict.allowed is (reason == "allowed")
    assert verdict.message.endswith(".")
    if suggestion is not None:  # does what it promises
        assert suggestion in Origins(frozenset({parse_origin(suggestion)}))


def test_verdict_for_a_page_knows_no_other_project() -> None:
    verdict = diagnose("https://other.example", PROJECT)
    assert verdict.reason == "not_listed"
    told = diagnose("https://other.example", PROJECT, ELSEWHERE).message
    assert "'a'" in told


def test_least_difference_wins() -> None:
    nearest_first = [
        "http://localhost",  # the scheme alone
        "https://localhost:1",  # the port alone
        "http://localhost:1",
        "http://127.0.0.1",
        "https://app.example.com",
    ]
    for better, worse in itertools.combinations(nearest_first[:-1], 2):
        listed = Origins(frozenset({better, worse, nearest_first[-1]}))
        assert diagnose("https://localhost", listed).closest == better


@pytest.mark.parametrize("origin", ["x" * 5000, "https://" + "a." * 3000 + "com", "*" * 5000])
def test_verdict_repeats_little_of_what_is_no_origin(origin: str) -> None:
    assert len(diagnose(origin, PROJECT).message) < 1000


def test_no_more_than_200_characters_of_what_was_typed_are_repeated() -> None:
    with pytest.raises(ValueError, match="has no scheme") as refused:
        parse_origin("x" * 300)
    assert "x" * 200 + "'" in str(refused.value)
    assert "x" * 201 not in str(refused.value)


def test_refused_pattern_names_the_public_suffix_it_lies_under() -> None:
    with pytest.raises(ValueError, match="directly under the public suffix com:"):
        parse_preview_origin("https://app-*.com", PUBLIC)
