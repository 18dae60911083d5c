"""Pages of lists: how many, from where on."""

import pytest

from weir.errors import BadRequest
from weir.web import cursors


def test_next_cursor_leads_on_after_the_last_one() -> None:
    view = cursors.page_view([1, 2], "evt_2")
    assert (view["data"], view["has_more"]) == ([1, 2], True)
    assert "evt_2" not in view["next_cursor"]
    assert cursors.page_of({"cursor": [view["next_cursor"]], "limit": ["7"]}) == (7, "evt_2")


def test_last_page_has_no_cursor() -> None:
    view = cursors.page_view([], None)
    assert (view["has_more"], view["next_cursor"]) == (False, None)


def test_page_has_twenty_unless_another_number_is_asked_for() -> None:
    assert cursors.page_of({}) == (20, None)
    assert cursors.page_of({"limit": ["1"]}) == (1, None)
    assert cursors.page_of({"limit": ["100"]}) == (100, None)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "", "x", "1.5", "٣", "00001", "9" * 5000])
def test_limit_is_a_number_from_1_to_100(limit: str) -> None:
    with pytest.raises(BadRequest) as refused:
        cursors.page_of({"limit": [limit]})
    assert refused.value.param == "limit"


@pytest.mark.parametrize("cursor", ["!", "a", "é", "A" * 401, "AAAA", "____"])
def test_cursor_is_one_of_ours(cursor: str) -> None:
    with pytest.raises(BadRequest) as refused:
        cursors.page_of({"cursor": [cursor]})
    assert refused.value.param == "cursor"
