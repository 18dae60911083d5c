"""Origins: which pages may call, and why one may not.

An origin is scheme, host and port as a browser serialises them (RFC 6454, section 6.2) and matches
exactly or not at all. For preview deployments, whose host is new with each push, an operator may
opt in to a pattern: one `*`, within the first label of the host, standing for letters, digits and
hyphens but never for a dot; and never directly under a public suffix, where a stranger could
register the very name that matches.

Native apps and browser extensions send an origin with a scheme of their own. It is listed exactly,
like any other; `null` and `file://` never are, because they name no page in particular.

Standard library only: the preflight function has nothing else.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

MOST_TOLD = 200  # characters of an origin that are repeated to anybody

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:(?P<port>[0-9]{1,5}))?"
)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_WILD_LABEL = re.compile(r"[a-z0-9-]{0,62}\*[a-z0-9-]{0,62}")
_MATCHED = re.compile(r"[a-z0-9-]{1,63}")
_NUMERIC = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)$")  # the last label of an IPv4 address
_DEFAULT_PORT = {"http": 80, "https": 443}
_NO_PORT = 0  # of a native origin

# What may follow `scheme://`, by scheme. A closed list, so that a misspelt https is not taken for
# an app. Chromium sends hosts in lower case; Safari sends an extension's UUID in upper case, and
# WebKit does not change the case of a host whose scheme it does not know.
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_APP_HOST = r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_NATIVE = {
    "tauri": (_APP_HOST, "tauri://localhost"),
    "capacitor": (_APP_HOST, "capacitor://localhost"),
    "ionic": (_APP_HOST, "ionic://localhost"),
    "app": (rf"[.-]|{_APP_HOST}", "app://bundle"),  # Electron: what the app has registered
    "chrome-extension": ("[a-p]{32}", "chrome-extension:// and 32 letters from a to p"),
    "moz-extension": (_UUID, "moz-extension:// and a UUID"),
    "safari-web-extension": (
        rf"{_UUID}|{_UUID.replace('a-f', 'A-F')}",
        "safari-web-extension:// and a UUID",
    ),
}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Address(NamedTuple):
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        if _usual(self):
            return f"{self.scheme}://{self.host}"
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Origins:
    """A list of allowed origins. `previews` are patterns."""

    exact: frozenset[str] = frozenset()
    previews: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, told: Mapping[str, Any]) -> "Origins":
        return cls(
            frozenset(told.get("origins", ())), tuple(sorted(set(told.get("preview_origins", ()))))
        )

    @classmethod
    def union(cls, lists: Iterable["Origins"]) -> "Origins":
        every = list(lists)
        return cls(
            frozenset().union(*(one.exact for one in every)),
            tuple(sorted({pattern for one in every for pattern in one.previews})),
        )

    def document(self) -> dict[str, list[str]]:
        return {"origins": sorted(self.exact), "preview_origins": list(self.previews)}

    def __contains__(self, origin: object) -> bool:
        if not isinstance(origin, str):
            return False
        return origin in self.exact or any(_matches(pattern, origin) for pattern in self.previews)


def _matches(pattern: str, origin: str) -> bool:
    before, _, after = pattern.partition("*")
    if not origin.startswith(before) or not origin.endswith(after):
        return False
    middle = origin[len(before) : len(origin) - len(after)]
    label, _, _ = origin.removeprefix("https://").partition(".")
    return bool(_MATCHED.fullmatch(middle)) and bool(_LABEL.fullmatch(label))


# ---------------------------------------------------------------- what an operator may list


def parse_origin(text: str) -> str:
    """Return the origin as a browser or an app will send it: lower case (but for Safari's
    extensions), no default port, no trailing slash. Raise ValueError with a sentence that says
    what is wrong.
    """
    if "*" in text:
        raise ValueError(
            f"{_told(text)} has a wildcard: allowed origins are exact. A pattern for preview "
            "deployments is listed apart, as a preview origin."
        )
    address = _address(text)
    if address.scheme == "http" and not _is_loopback(address.host):
        raise ValueError(
            f"{_told(text)}: http:// is only for localhost; over it, anybody on the way reads the "
            "page's tokens."
        )
    return str(address)


def parse_preview_origin(text: str, is_public_suffix: Callable[[str], bool]) -> str:
    """A pattern with one `*`. Raises ValueError with a sentence that says what is wrong."""
    host = re.sub(r"^https?://|(:[0-9]+)?/?$", "", text.strip().lower())
    label, _, parent = host.partition(".")
    if text.count("*") != 1 or not _WILD_LABEL.fullmatch(label):
        raise ValueError(
            f"{_told(text)}: a preview origin has one *, in the first label of its host, such as "
            "https://*.preview.example.com or https://pr-*.example.com."
        )
    if not parent:
        raise ValueError(
            f"{_told(text)} has no domain after its *: name one of your own, such as "
            "https://*.preview.example.com."
        )
    address = _address(text, star="x")
    if address.scheme != "https":
        raise ValueError(f"{_told(text)}: a preview origin must be https://.")
    if parent.rpartition(".")[2].isdigit():
        raise ValueError(f"{_told(text)}: an address in numbers has no names below it.")
    if "." not in parent or is_public_suffix(parent):
        raise ValueError(
            f"{_told(text)} lies directly under the public suffix {parent or '(none)'}: "
            "anybody can register a name there that matches. Use a domain of your own."
        )
    return str(Address("https", f"{label}.{parent}", address.port))


def _address(text: str, *, star: str = "*") -> Address:
    """`star` stands for a pattern's *; what is said of it is said of the text as it was typed."""
    lowered = text.strip().lower()
    if lowered == "null":
        raise ValueError(
            "null is what sandboxed frames and local files send: nobody in particular."
        )
    if "://" not in lowered:
        raise ValueError(f"{_told(text)} has no scheme: write https://{lowered[:MOST_TOLD]}.")
    scheme = lowered.partition("://")[0]
    if scheme in _NATIVE:
        return _native(text, scheme)
    if scheme == "file":
        raise ValueError(
            f"{_told(text)} is not an origin that can be listed: local files send null or file://, "
            "whoever wrote them. Serve the page from an address."
        )
    lowered = lowered.removesuffix("/")
    if not lowered.isascii():
        raise ValueError(f"{_told(text)}: write the host as browsers send it, in punycode (xn--…).")
    found = _ORIGIN.fullmatch(lowered.replace("*", star, 1))
    if found is None:
        raise ValueError(
            f"{_told(text)} is not an origin: scheme, host, and a port if it is not the usual one; "
            f"no path, no query, no user. Schemes: https, http, {', '.join(_NATIVE)}."
        )
    host = found["host"]
    if not _is_host(host):
        raise ValueError(f"{_told(text)}: that is not a host name.")
    port = int(found["port"] or _DEFAULT_PORT[found["scheme"]])
    if not 1 <= port <= 65535:
        raise ValueError(f"{_told(text)}: a port is from 1 to 65535.")
    return Address(found["scheme"], host, port)


def _native(text: str, scheme: str) -> Address:
    """Of an app or a browser extension: compared as a whole, and so without a port of its own."""
    pattern, example = _NATIVE[scheme]
    host = text.strip().partition("://")[2].removesuffix("/")
    if scheme != "safari-web-extension":
        host = host.lower()
    if not re.fullmatch(pattern, host):
        raise ValueError(f"{_told(text)} is not an origin: that scheme's look like {example}.")
    return Address(scheme, host, _NO_PORT)


def _is_host(host: str) -> bool:
    """As a browser would write it: a name, or an IP address in its one form."""
    if not host.startswith("[") and not _NUMERIC.search(host):
        return all(_LABEL.fullmatch(label) for label in host.split("."))
    import ipaddress  # only for these few

    try:
        return str(ipaddress.ip_address(host.strip("[]"))) == host.strip("[]")
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return host in _LOOPBACK or host.endswith(".localhost")


def _told(text: str) -> str:
    """Refusals reach logs: what may be a user and his password is not repeated."""
    return repr(text[:MOST_TOLD]) if "@" not in text else "an address with an @"


# ---------------------------------------------------------------- why an origin fails


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is the stable machine word, `message` for a person; `closest` the listed origin that
    was probably meant, `suggestion` what to list so that the page may call (None: nothing helps).
    """

    allowed: bool
    reason: str
    message: str
    closest: str | None = None
    suggestion: str | None = None


def diagnose(
    origin: str | None, allowed: Origins, elsewhere: Mapping[str, Origins] | None = None
) -> Verdict:
    """Why a page of this origin may or may not call. `elsewhere` are other projects' lists, by pid:
    for an operator, who may know them.
    """
    if origin is None:
        return Verdict(False, "no_origin", "The request has no Origin header: no page sent it.")
    if origin in allowed:
        return Verdict(True, "allowed", f"{_told(origin)} is allowed.")
    if origin == "null":
        return Verdict(
            False,
            "null_origin",
            "The origin is null: a sandboxed frame, a local file or a redirect across origins. It "
            "cannot be allowed; serve the page from an address.",
        )
    try:
        address = _address(origin)
    except ValueError as error:
        return Verdict(False, "not_an_origin", str(error))
    if str(address) != origin:
        return _misspelt(origin, address, allowed)
    suggestion = _listable(address)
    for pid, origins in sorted((elsewhere or {}).items()):
        if origin in origins:
            return Verdict(
                False,
                "listed_elsewhere",
                f"{_told(origin)} is listed in project {pid!r}, and not in this one.",
                origin,
                suggestion,
            )
    near = _nearest(address, allowed)
    if near is None:
        return Verdict(
            False,
            "not_listed",
            f"{_told(origin)} is not listed, nor anything like it.",
            None,
            suggestion,
        )
    reason, closest, why = near
    return Verdict(
        False, reason, f"{_told(origin)} is not listed; {closest} is: {why}.", closest, suggestion
    )


def _misspelt(origin: str, address: Address, allowed: Origins) -> Verdict:
    """Not as a browser would send it: somebody has typed it."""
    reason = "trailing_slash" if origin.endswith("/") else "spelling"
    right = str(address)
    listed = "which is allowed" if right in allowed else "which is not listed either"
    return Verdict(
        False,
        reason,
        f"{_told(origin)} is not how a browser spells it: that is {right}, {listed}.",
        right if right in allowed else None,
        _listable(address),
    )


def _listable(address: Address) -> str | None:
    try:
        return parse_origin(str(address))
    except ValueError:
        return None


def _nearest(address: Address, allowed: Origins) -> tuple[str, str, str] | None:
    """The listed origin that differs in the least, what differs, and a word about it."""
    listed = [(each, _address(each)) for each in sorted(allowed.exact)]
    for differs, reason, why in _DIFFERENCES:
        for each, other in listed:
            if differs(address, other):
                return reason, each, why
    for pattern in allowed.previews:
        before, _, after = pattern.partition("*")
        if str(address).startswith(before) and str(address).endswith(after):
            return "pattern", pattern, "its * stands for one label, without a dot"
    return None


# From the least difference to the greatest.
_DIFFERENCES: tuple[tuple[Callable[[Address, Address], bool], str, str], ...] = (
    (lambda a, b: (a.host, a.port) == (b.host, b.port), "scheme", "the scheme differs"),
    (lambda a, b: a.host == b.host and _usual(a) and _usual(b), "scheme", "the scheme differs"),
    (lambda a, b: (a.host, a.scheme) == (b.host, b.scheme), "port", "the port differs"),
    (lambda a, b: a.host == b.host, "scheme", "scheme and port differ"),
    (
        lambda a, b: _is_loopback(a.host) and _is_loopback(b.host),
        "host",
        "to a browser localhost and 127.0.0.1 are two hosts",
    ),
    (
        lambda a, b: a.host.endswith("." + b.host) or b.host.endswith("." + a.host),
        "host",
        "a subdomain is another host",
    ),
)


def _usual(address: Address) -> bool:
    return address.port == _DEFAULT_PORT.get(address.scheme, _NO_PORT)
