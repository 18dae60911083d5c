"""Which network addresses and URLs are public: where a function may connect because of what
somebody else wrote (server-side request forgery; RFC 6890 for the addresses that are not).
"""

import ipaddress
import re
from urllib.parse import urlsplit

MAX_URL = 500  # characters

_URL = re.compile(r"https://[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")  # RFC 3986, without a fragment
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)+{_LABEL}")
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
# Names that only a private network or this machine resolves.
_PRIVATE = ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home.arpa")
# IETF protocol assignments and 6to4 relays, which older Pythons take for public.
_SPECIAL = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def is_public(address: str) -> bool:
    """Return whether a text is an IP address of the public internet: not private, loopback,
    link-local (a cloud's metadata service), multicast or reserved, in no spelling. IPv6 addresses
    that carry an IPv4 address are judged by it, or refused (6to4, Teredo, NAT64).
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip not in _GLOBAL_UNICAST or ip.sixtofour or ip.teredo:
            return False
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def parse_public_url(text: str) -> str:
    """Return an https URL of a public host as it was written. Raise ValueError with a sentence.

    The name alone is judged: what it resolves to is judged when somebody connects to it.
    """
    if len(text) > MAX_URL or not _URL.fullmatch(text):
        raise ValueError(f"must be an https:// URL of at most {MAX_URL} characters, without #")
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("the host or the port is malformed") from None
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or a password")
    if not _HOST.fullmatch(host) or _NUMERIC.fullmatch(host.rpartition(".")[2]):
        raise ValueError("the host must be a public DNS name, not an address")
    if any(host.lower().endswith(f".{private}") for private in _PRIVATE):
        raise ValueError("the host must be a public DNS name, not one of a private network")
    return text
