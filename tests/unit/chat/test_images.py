"""Which addresses of images a provider may be given."""

import pytest

from weir.chat.images import check_image, is_image_data, is_public_url
from weir.errors import BadRequest

PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    "url",
    [
        "https://pics.example/a.png",
        "HTTPS://Pics.Example:8443/a.png?size=1&x=@#top",
        "https://a-b_c.pics.example",
        "https://pics.example?x",
        "https://xn--bcher-kva.example/ü.png",
        "https://1.example/10.0.0.1",
        "https://8.8.8.8.example.com/",
        "https://localhost.example.com/a",
        "https://pics.example/" + "a" * (2048 - 21),
    ],
)
def test_address_of_a_public_host_passes(url: str) -> None:
    assert is_public_url(url)
    assert check_image({"url": url}, "image_url") == {"url": url}


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "pics.example/a.png",
        "http://pics.example/a.png",
        "file:///etc/passwd",
        "gs://bucket/film.mp4",
        "s3://bucket/a.png",
        "ftp://pics.example/a.png",
        "javascript:alert(1)",
        "//pics.example/a.png",
        "https:pics.example/a.png",
        "https:/pics.example/a.png",
        "https:///a.png",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://8.8.8.8/a.png",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://a.0x7f/",
        "https://[::1]/a.png",
        "https://[fd00:ec2::254]/",
        "https://localhost/",
        "https://a.localhost/",
        "https://pics/",
        "https://metadata.google.internal/",
        "https://METADATA.GOOGLE.INTERNAL/",
        "https://printer.local/",
        "https://router.home.arpa/",
        "https://pics.example./a.png",
        "https://.pics.example/",
        "https://pics..example/",
        "https://user@pics.example/",
        "https://pics.example@10.0.0.1/",
        "https://pics.example:80@10.0.0.1/",
        "https://pics.example\\@10.0.0.1/",
        "https://pics.example\\a",
        "https://pics.example:x/",
        "https://\uff11\uff10.0.0.1/",
        "https://127\u30020\u30020\u30021/",
        "https://pics.example\u3002/",
        "https://pics.example/a b",
        "https://pics.example/a\nb",
        "https://pics.example/\x00",
        "https://pics.example/\ud83c",
        "\thttps://pics.example/",
        "https://pics.example/\n",
        "https://pics.example/" + "a" * (2049 - 21),
    ],
)
def test_any_other_address_is_refused(url: str) -> None:
    assert not is_public_url(url)
    with pytest.raises(BadRequest, match=r"a\.url must be an https:// address") as refused:
        check_image({"url": url}, "a")
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "url",
    [
        PNG,
        "data:image/jpeg;base64,/9j/4AAQ",
        "data:image/gif;base64,R0lGODlhAQ==",
        "data:image/webp;base64,UklGRg" + "A" * 100_000,
        "data:image/png;base64,/9j/4AAQ",  # the type is wrong in many programs
    ],
)
def test_data_of_an_image_passes(url: str) -> None:
    assert is_image_data(url)
    assert check_image({"url": url, "detail": "low"}, "") == {"url": url, "detail": "low"}


@pytest.mark.parametrize(
    "url",
    [
        "data:,hello",
        "data:image/png,iVBORw0KGgo",
        "data:image/png;base64,",
        "data:image/png;base64,AA",
        "data:image/png;base64,JVBERi0xLjcK",  # %PDF-1.7
        "data:image/png;base64,aGVsbG8gd29ybGQ=",
        "data:image/svg+xml;base64,iVBORw0KGgo",
        "data:application/pdf;base64,JVBERi0xLjcK",
        "data:text/plain;base64,iVBORw0KGgo",
        "data:image/png;charset=x;base64,iVBORw0KGgo",
        "DATA:image/png;base64,iVBORw0KGgo",
        " " + PNG,
        PNG + " ",
        PNG + "\n",
        PNG + "==",
        PNG + "iVBORw0KGgo",
        PNG[:-1] + ":",
        PNG[:-1] + ":;,",
        PNG[:-1] + "ü",
        PNG[:-1] + "\ud83c",
        PNG[:-1] + "-_",
    ],
)
def test_data_that_is_no_image_is_refused(url: str) -> None:
    assert not is_image_data(url)
    with pytest.raises(BadRequest):
        check_image({"url": url}, "image_url")


@pytest.mark.parametrize("detail", ["original", "", "LOW", 1, ["low"], {}], ids=str)
def test_detail_whose_price_is_not_known_is_refused(detail: object) -> None:
    with pytest.raises(BadRequest, match="detail must be one of auto, low, high"):
        check_image({"url": PNG, "detail": detail}, "image_url")


def test_image_is_passed_on_without_other_members() -> None:
    image = {"url": PNG, "detail": None, "fps": 30, "path": "/etc/passwd"}
    assert check_image(image, "image_url") == {"url": PNG}
