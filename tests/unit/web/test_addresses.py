"""What counts as one network address."""

import pytest

from weir.web.addresses import counted_as


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("test-invoke-source-ip", "unknown"),
        ("203.0.113.7, 198.51.100.1", "unknown"),
    ],
)
def test_address_counts_as_the_network_of_one_customer(source: str, counted: str) -> None:
    assert counted_as(source) == counted


def test_neighbours_of_one_ipv6_network_are_one_and_those_of_two_are_two() -> None:
    assert counted_as("2001:db8::1") == counted_as("2001:db8::ffff:1")
    assert counted_as("2001:db8::1") != counted_as("2001:db8:0:1::1")
