"""HTTP responses to any request, read as far as they come."""

from __future__ import annotations

import pytest

from pie_proto.errors import RemoteProtocolError
from pie_proto.http_responses import HttpResponse


def response(head: bytes, method: str = "CONNECT") -> HttpResponse:
    return HttpResponse(head + b"\r\n\r\n", peer="proxy", method=method, body_bytes=20)


@pytest.mark.parametrize(
    ("method", "head", "complete"),
    [
        ("CONNECT", b"HTTP/1.1 403 No\r\nContent-Length: 7", False),
        ("CONNECT", b"HTTP/1.0 403 No", False),
        ("CONNECT", b"HTTP/1.1 403 No\r\nContent-Length: 0", True),
        ("CONNECT", b"HTTP/1.1 200 Connected\r\nContent-Length: 7", True),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 7", False),
        ("GET", b"HTTP/1.1 204 Nothing\r\nContent-Length: 7", True),
    ],
)
def test_the_request_and_the_status_say_whether_there_is_a_body(
    method: str, head: bytes, *, complete: bool
) -> None:
    assert response(head, method).complete is complete


def test_after_the_end_of_a_body_nothing_is_kept() -> None:
    read = response(b"HTTP/1.1 403 No\r\nContent-Length: 7")
    for piece in (b"no ", b"room", b"HTTP/1.1 200 OK\r\n\r\n"):
        read.receive_data(piece)
    assert (read.status, read.body, read.complete) == (403, "no room", True)


def test_of_a_body_the_start_is_kept_and_no_more_is_read() -> None:
    read = response(b"HTTP/1.1 403 No")
    read.receive_data(19 * b"x")
    assert not read.complete
    read.receive_data(19 * b"x")
    assert (read.body, read.complete) == (20 * "x", True)


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Switching", b"HTTP/1.1 banana", b"SSH-2.0-x"]
)
def test_what_is_no_response_is_a_violation_of_the_peers(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"the proxy broke the protocol: .+"):
        response(head)
