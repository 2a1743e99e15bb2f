"""What a client may add to its opening request, and what would break it."""

from __future__ import annotations

from typing import Any

import pytest

from pie_proto.request_headers import checked_headers


def test_a_mapping_and_pairs_are_taken_in_their_order() -> None:
    pairs = (
        ("Authorization", "Bearer secret"),
        ("X-Empty", ""),
        ("X-Twice", "a"),
        ("X-Twice", "b"),
    )
    assert checked_headers(pairs) == pairs
    assert checked_headers({"X-One": "1", "X-Two": "a\tb"}) == (("X-One", "1"), ("X-Two", "a\tb"))
    assert checked_headers(()) == ()


@pytest.mark.parametrize(
    "headers", [[("a", "b", "c")], [("a",)], ["ab"], [("a", b"b")], {1: "a"}, [None]]
)
def test_what_is_no_pair_of_texts_is_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match="mapping of str to str"):
        checked_headers(headers)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "ü", "a\0"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        checked_headers({name: "value"})


@pytest.mark.parametrize(
    "name", ["Host", "UPGRADE", "connection", "Sec-WebSocket-Key", "Proxy-Authorization", "TE"]
)
def test_what_the_handshake_says_itself_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="handshake's own"):
        checked_headers({name: "value"})


@pytest.mark.parametrize("value", ["secret\r\nX: y", "secret\n", " secret", "secret ", "sécret"])
def test_a_value_that_breaks_the_request_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match="Authorization") as caught:
        checked_headers({"Authorization": value})
    assert "cret" not in str(caught.value)
