"""The paths that are asked for, the headers, and what a server may be that takes them."""

from __future__ import annotations

import pytest

from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5
from pie_proto.errors import ConnectFailed
from pie_proto.limits import Limits
from pie_proto.openings import openings

EVERY = (INSTANCE, PROCESS_0_5, PROCESS_0_3)


def test_without_a_path_the_old_servers_are_asked_first_and_the_new_ones_then() -> None:
    first, second = openings(None)
    assert (first.target, set(first.families)) == ("/", set(EVERY))
    assert (second.target, second.families) == ("/v1/ws", (PROCESS_0_5,))


def test_a_path_is_asked_for_as_it_is_and_once() -> None:
    (only,) = openings("/v1/ws?x=1")
    assert (only.target, set(only.families)) == ("/v1/ws?x=1", set(EVERY))


@pytest.mark.parametrize(
    ("dialect", "family", "target"),
    [
        ("instance", INSTANCE, "/"),
        ("process-0.3", PROCESS_0_3, "/"),
        ("process", PROCESS_0_5, "/v1/ws"),
        (PROCESS_0_5, PROCESS_0_5, "/v1/ws"),
    ],
)
def test_a_family_that_is_named_is_asked_where_it_listens(
    dialect: str, family: object, target: str
) -> None:
    (only,) = openings(None, dialect=dialect)
    assert (only.target, only.families) == (target, (family,))
    (given,) = openings("/x", dialect=dialect)
    assert given.target == "/x"


def test_a_family_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'pie' is no family"):
        openings(None, dialect="pie")


def refusal(status: int | None) -> ConnectFailed:
    return ConnectFailed("no", status=status)


@pytest.mark.parametrize("status", [None, 200, 301, 401, 403, 500])
def test_only_what_is_not_there_leads_on(status: int | None) -> None:
    first, second = openings(None)
    assert first.leads_on(refusal(404))
    assert not first.leads_on(refusal(status))
    assert not first.leads_on(ValueError())
    assert not second.leads_on(refusal(404))


def test_an_identity_is_a_header_of_every_request() -> None:
    for opening in openings(None, identity="default/ada", headers={"x-more": "1"}):
        assert opening.headers == (("x-more", "1"), ("x-pie-identity", "default/ada"))


@pytest.mark.parametrize("identity", ["", "default/", "default/ ", "/", "a\nb", "é"])
def test_an_identity_that_names_nobody_or_cannot_be_sent_is_refused(identity: str) -> None:
    with pytest.raises(ValueError, match="identity"):
        openings(None, identity=identity)


def test_an_identity_is_given_once() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        openings(None, identity="a/b", headers={"X-Pie-Identity": "a/c"})


def test_an_opening_is_named_by_its_uri_and_what_that_does_not_say() -> None:
    first, second = openings(None)
    assert first.named("ws://h") == "ws://h"
    assert second.named("ws://h") == "ws://h (/v1/ws, as there is nothing at /)"
    assert openings(None, dialect="process")[0].named("ws://h") == "ws://h (/v1/ws)"
    assert openings("/x")[0].named("ws://h/x") == "ws://h/x"


def test_an_opening_makes_a_connection_that_asks_so() -> None:
    (only,) = openings("/x", identity="a/b")
    connection = only.connection("h:1", now=0.0, limits=Limits())
    request = connection.data_to_send(now=0.0)
    assert request.startswith(b"GET /x HTTP/1.1\r\nHost: h:1\r\n")
    assert b"\r\nx-pie-identity: a/b\r\n" in request
    assert connection.server is None
    assert connection.authentication is None
