"""What counts as one network address, for a limit of requests from each."""

IPV6_PREFIX = 64  # one customer's network, of which they choose the rest (RFC 6177, RFC 4291 2.5.4)
UNKNOWN = "unknown"  # one account for all of them: a limit must not be lifted by a strange address


def family(counted: str) -> int:
    """Return 4 or 6, of an address as `counted_as` spells it."""
    return 6 if ":" in counted else 4


def is_loopback(source: str) -> bool:
    """Return whether a request comes from the machine that it came to."""
    from ipaddress import ip_address

    try:
        return ip_address(source.partition("%")[0]).is_loopback
    except ValueError:
        return False


def counted_as(source: str) -> str:
    """Return the address that a request from `source` is counted as: an IPv4 address, or the /64 of
    an IPv6 one. An IPv4 address within an IPv6 one (RFC 4291, 2.5.5.2) is the IPv4 address.
    """
    # Only projects that limit addresses need it.
    from ipaddress import IPv6Address, ip_address, ip_network

    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, IPV6_PREFIX), strict=False))
