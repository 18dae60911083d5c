"""Which addresses and URLs are public."""

import pytest

from weir.web.public_addresses import is_public, parse_public_url


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"],
)
def test_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
        "0.0.0.0",  # noqa: S104
        *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.7"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.8"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("2001:db8::1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1"),
        *("2002:7f00:1::", "2002:5db8:d822::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
        *("localhost", "", "127.1", "0x7f000001", "2130706433", "127.0.0.1:80", "[::1]"),
    ],
)
def test_any_other_address_is_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/.well-known/jwks.json",
        "https://example.eu.auth0.com/",
        "https://sign-in.example.com:8443/keys?tenant=1&x=%20",
        "https://example.com/" + "a" * 480,
        "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
    ],
)
def test_public_https_url_is_kept_as_it_was_written(url: str) -> None:
    assert parse_public_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "ftp://example.com/", "file:///etc/passwd", "//example.com/", ""),
        *("https://127.0.0.1/", "https://[::1]/", "https://2130706433/", "https://127.1/"),
        *("https://0x7f.1/", "https://169.254.169.254/latest/meta-data", "https://10.0.0.1:443/"),
        *("https://localhost/", "https://a.localhost/", "https://printer.local/", "https://db/"),
        *("https://x.internal/", "https://router.home.arpa/", "https://example.com./"),
        *("https://user@example.com/", "https://user:pass@example.com/", "https://example.com#a"),
        *("https://example.com:port/", "https://example.com:99999/", "https:///path", "https://"),
        *(
            "https://example.com/\n",
            "https://exa mple.com/",
            "https://bücher.example/",
            "https://-.a",
        ),
        "https://example.com\\@127.0.0.1/",
        "https://example.com/" + "a" * 481,
    ],
)
def test_any_other_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|malformed"):
        parse_public_url(url)
