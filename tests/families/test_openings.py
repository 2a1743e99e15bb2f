"""How a connection is opened: which paths are asked for, and what else is taken for an answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from pie_anyio import ConnectFailed
from pie_anyio.server import serve
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.families import FAMILIES
from tests.families.listener import NOT_FOUND, Talk, http, listening, say, saying
from tests.families.world import IDENTITY, SOON, client_of
from tests.proto.pair import OPEN, wire

pytestmark = pytest.mark.anyio

OLD, NEW = "/", "/v1/ws"
HEADER = "x-pie-identity"

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets on Windows")


def opened() -> Talk:
    """A server 0.2 that lets anybody in."""
    return saying(say(wire("response", corr_id=1, successful=True, result=OPEN)))


def new() -> Talk:
    """A server 0.5, whose first vocabulary is the second one that is tried."""
    return saying(say(wire("response", corr_id=2, ok=True, result="Already authenticated")))


def new_alone() -> Talk:
    """A server 0.5, to a client that knows already what it is."""
    return saying(say(wire("response", corr_id=1, ok=True, result="Already authenticated")))


def asked(*targets: str) -> list[str]:
    return [f"GET {target} HTTP/1.1" for target in targets]


async def failure(driver: str, uri: str, **options: Any) -> ConnectFailed:
    """Why there is no connection."""
    with anyio.fail_after(SOON), pytest.raises(ConnectFailed) as caught:
        async with client_of(driver, uri, **options):
            pytest.fail("it connected")
    assert str(caught.value).startswith(uri)
    return caught.value


# ---------------------------------------------------------------------------------- without a path


@pytest.mark.parametrize("written", ["", "/"])
async def test_what_opens_at_the_root_is_asked_nothing_else(driver: str, written: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({OLD: opened(), NEW: new_alone()}) as listener:
            async with client_of(driver, listener.uri + written) as client:
                await client.authenticate("ada")
                assert client.server == FAMILIES["instance"].capabilities
    assert listener.asked == asked(OLD)
    assert listener.connections == 1


async def test_what_is_not_at_the_root_is_looked_for_where_new_servers_are(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({NEW: new_alone()}) as listener:
            async with client_of(driver, listener.uri) as client:
                assert client.server == PROCESS_0_5.capabilities
                await client.authenticate("ada")
    assert listener.asked == asked(OLD, NEW)
    assert listener.connections == 2


@pytest.mark.parametrize("status", [200, 301, 401, 403, 500])
async def test_any_other_answer_is_the_last_word(driver: str, status: int) -> None:
    location = "https://elsewhere.test/pie" if status == 301 else None
    answer = http(status, "said there", {"Location": location} if location else {})
    with anyio.fail_after(SOON):
        async with listening({OLD: answer, NEW: new_alone()}) as listener:
            error = await failure(driver, listener.uri)
            await listener.nobody_left()
    assert (error.status, error.location, error.body) == (status, location, "said there")
    assert f"HTTP {status}" in str(error)
    assert str(error).endswith(": said there")
    assert (location or "") in str(error)
    assert ('identity="TENANT/USER"' in str(error)) is (status == 401)
    assert listener.asked == asked(OLD)
    assert listener.connections == 1


async def test_of_a_long_answer_the_start_is_told(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({OLD: http(500, "b" * 5000)}) as listener:
            error = await failure(driver, listener.uri)
    assert error.body == "b" * 1024
    assert str(error).endswith(f": {error.body}")


async def test_a_line_that_ends_at_the_root_leads_nowhere_else(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({OLD: b"", NEW: new_alone()}) as listener:
            error = await failure(driver, listener.uri)
            await listener.nobody_left()
    assert error.status is None
    assert listener.connections == 1


async def test_where_there_is_nothing_at_either_both_are_named(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({OLD: http(404, "no root"), NEW: http(404, "no v1")}) as listener:
            error = await failure(driver, listener.uri)
            await listener.nobody_left()
    assert str(error).startswith(f"{listener.uri} (/v1/ws, as there is nothing at /): ")
    assert "is this a Pie server" in str(error)
    assert (error.status, error.body) == (404, "no v1")
    assert listener.asked == asked(OLD, NEW)
    assert listener.connections == 2


async def test_what_the_second_path_answers_is_told_with_it(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({NEW: http(401, "who are you?")}) as listener:
            error = await failure(driver, listener.uri)
    assert (error.status, error.body) == (401, "who are you?")
    assert "(/v1/ws, as there is nothing at /)" in str(error)
    assert 'identity="TENANT/USER"' in str(error)
    assert listener.asked == asked(OLD, NEW)


# ------------------------------------------------------------------------------------- with a path


@pytest.mark.parametrize("target", [NEW, "/anything", "/v1/ws?key=1", "/?key=1"])
async def test_a_path_is_asked_for_as_it_is_given(driver: str, target: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({target: new()}) as listener:
            async with client_of(driver, listener.uri + target) as client:
                await client.authenticate("ada")
                assert client.server == PROCESS_0_5.capabilities
    assert listener.asked == asked(target)
    assert listener.connections == 1


@pytest.mark.parametrize("target", [NEW, "/anything", "/?key=1"])
async def test_a_path_with_nothing_behind_it_leads_nowhere_else(driver: str, target: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({}) as listener:
            error = await failure(driver, listener.uri + target)
            await listener.nobody_left()
    assert (error.status, error.body) == (404, "nothing here")
    assert listener.asked == asked(target)
    assert listener.connections == 1


# ---------------------------------------------------------------------------------- with a dialect


@pytest.mark.parametrize(
    ("dialect", "target"), [("instance", OLD), ("process-0.3", OLD), ("process", NEW)]
)
@pytest.mark.parametrize("path", ["", "/x"])
async def test_a_family_that_is_said_is_asked_where_it_is_and_once(
    driver: str, dialect: str, target: str, path: str
) -> None:
    with anyio.fail_after(SOON):
        async with listening({}) as listener:
            error = await failure(driver, listener.uri + path, dialect=dialect, identity=IDENTITY)
            await listener.nobody_left()
    assert error.status == 404
    assert listener.asked == asked(path or target)
    assert listener.headers[0][HEADER] == IDENTITY
    assert listener.connections == 1


@pytest.mark.parametrize("name", ["", "pie", "0.2", "Instance", "process-0.5"])
async def test_a_family_that_there_is_not_is_refused_before_anything_is_sent(
    driver: str, name: str
) -> None:
    with anyio.fail_after(SOON):
        async with listening({}) as listener:
            with pytest.raises(ValueError, match=f"'{name}' is no family") as refused:
                async with client_of(driver, listener.uri, dialect=name):
                    pytest.fail("it connected")
    assert all(repr(family) in str(refused.value) for family in FAMILIES)
    assert listener.connections == 0


# --------------------------------------------------------------------------------- with an identity


async def test_an_identity_is_said_in_every_request(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({NEW: new_alone()}) as listener:
            more = {"X-More": "1"}
            async with client_of(driver, listener.uri, identity=IDENTITY, headers=more):
                pass
    assert listener.asked == asked(OLD, NEW)
    assert [headers.get(HEADER) for headers in listener.headers] == [IDENTITY, IDENTITY]
    assert [headers.get("x-more") for headers in listener.headers] == ["1", "1"]


async def test_without_an_identity_none_is_said(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with listening({OLD: NOT_FOUND}) as listener:
            await failure(driver, listener.uri)
    assert len(listener.headers) == 2
    assert not any(HEADER in headers for headers in listener.headers)


@pytest.mark.parametrize("dialect", ["auto", "process"])
@pytest.mark.parametrize("path", ["", NEW])
async def test_who_says_nobody_is_told_what_to_say(driver: str, dialect: str, path: str) -> None:
    with anyio.fail_after(SOON):
        async with serve(dialect="process") as server:
            error = await failure(driver, server.url + path, dialect=dialect)
            assert error.status == 401
            assert 'identity="TENANT/USER"' in str(error)
            assert HEADER in error.body
            uri = server.url + path
            async with client_of(driver, uri, dialect=dialect, identity=IDENTITY) as client:
                await client.authenticate("ada")
                await client.ping()


@pytest.mark.parametrize(
    "identity", ["", "/", "default/", "default/ ", "a/b\n", "a/b\r\nx: y", "a/\0", "é/ada", "a/é"]
)
async def test_an_identity_that_cannot_be_said_is_refused_before_anything_is_sent(
    driver: str, identity: str
) -> None:
    with anyio.fail_after(SOON):
        async with listening({}) as listener:
            with pytest.raises(ValueError, match="identity"):
                async with client_of(driver, listener.uri, identity=identity):
                    pytest.fail("it connected")
    assert listener.connections == 0


@pytest.mark.parametrize("identity", [b"default/ada", 5, ("default", "ada")])
async def test_an_identity_that_is_no_text_is_refused_in_words(driver: str, identity: Any) -> None:
    with pytest.raises(ValueError, match="an identity is TENANT/USER"):
        async with client_of(driver, "ws://127.0.0.1:1", identity=identity):
            pytest.fail("it connected")


# ------------------------------------------------------------------------------- on a Unix socket


@UNIX
async def test_on_a_unix_socket_new_servers_are_found_too(driver: str, tmp_path: Path) -> None:
    with anyio.fail_after(SOON):
        async with serve(dialect="process", unix_path=tmp_path / "pie") as server:
            async with client_of(driver, server.url, identity=IDENTITY) as client:
                await client.authenticate("ada")
                assert client.server == PROCESS_0_5.capabilities
