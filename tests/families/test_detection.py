"""What a server is, is found out by which identification it answers, and how a user got in."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.abc import SocketStream

from pie_anyio import (
    AuthenticationError,
    ConnectionLost,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
)
from pie_anyio.server import serve
from pie_proto.families import FAMILIES
from tests.anyio.test_authentication import CLOSED, key
from tests.families.listener import Talk, listening, say, saying
from tests.families.world import IDENTITY, SOON, client_of
from tests.proto.pair import OPEN, wire
from tests.proto.websocket_wire import answer_101, frame

pytestmark = pytest.mark.anyio

ALREADY = "Already authenticated"
IMPATIENT = Limits(authentication_timeout=0.2)
TOKEN = {"internal_token": "the token of it"}


# --------------------------------------------------------------------------------- which it is


@pytest.mark.parametrize("dialect", ["auto", "said"])
@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("instance", ""),
        ("instance", "/v1/ws"),
        ("instance", "/anything"),
        ("process-0.3", ""),
        ("process-0.3", "/v1/ws"),
        ("process-0.3", "/anything"),
        ("process", ""),
        ("process", "/v1/ws"),
        ("process", "/v1/ws?key=1"),
    ],
)
async def test_a_server_is_known_at_every_path_that_it_takes(
    driver: str, family: str, path: str, dialect: str
) -> None:
    can = FAMILIES[family].capabilities
    options = {"identity": IDENTITY, "dialect": family if dialect == "said" else "auto"}
    with anyio.fail_after(SOON):
        async with serve(dialect=family) as server:
            async with client_of(driver, server.url + path, **options) as client:
                # Where only one kind of server listens at a path, nothing is left to be found.
                known = dialect == "said" or (family, path) == ("process", "")
                told = client.server, client.authentication
                assert told == (can if known else None, None)
                await client.authenticate("ada")
                assert client.server == can
                assert client.authentication == "asserted"
                assert client.statistics().late_answers == 0
                await client.ping()


class Entry(NamedTuple):
    """How a user gets in."""

    family: str
    server: dict[str, Any]
    method: str
    has_key: bool = False
    token: str | None = None
    warnings: int = 0


ENTRIES = {
    "0.2, open": Entry("instance", {}, "asserted"),
    "0.2, open, a key": Entry("instance", {}, "asserted", has_key=True, warnings=1),
    "0.2, a challenge": Entry("instance", CLOSED, "proved", has_key=True),
    "0.2, a token": Entry("instance", TOKEN, "token", token="the token of it"),
    "0.3, open": Entry("process-0.3", {}, "asserted"),
    "0.3, open, a key": Entry("process-0.3", {}, "asserted", has_key=True, warnings=1),
    "0.3, a challenge": Entry("process-0.3", CLOSED, "proved", has_key=True),
    "0.3, a token": Entry("process-0.3", TOKEN, "token", token="the token of it"),
    "0.5": Entry("process", {}, "asserted"),
    "0.5, a key": Entry("process", {}, "asserted", has_key=True, warnings=1),
}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("dialect", ["auto", "said"])
@pytest.mark.parametrize("name", ENTRIES)
async def test_how_a_user_got_in_is_told_and_a_key_for_nothing_warned_of_once(
    driver: str, name: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry = ENTRIES[name]
    options = {"identity": IDENTITY, "dialect": entry.family if dialect == "said" else "auto"}
    with anyio.fail_after(SOON):
        async with serve(dialect=entry.family, **entry.server) as server:
            async with client_of(driver, server.url, **options) as client:
                for _ in range(3):
                    if entry.token is not None:
                        await client.internal_authenticate(entry.token)
                    else:
                        await client.authenticate("ada", key("ada") if entry.has_key else None)
                    assert client.authentication == entry.method
    assert len(warnings_in(caplog)) == entry.warnings
    assert all("asks for no proof" in warning for warning in warnings_in(caplog))


async def test_each_client_warns_for_itself(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    with anyio.fail_after(SOON):
        async with serve() as server:
            for _ in range(2):
                async with client_of(driver, server.url) as client:
                    await client.authenticate("ada", key("ada"))
    assert len(warnings_in(caplog)) == 2


@pytest.mark.parametrize("family", ["instance", "process-0.3"])
@pytest.mark.parametrize(("username", "name"), [("ada", "bob"), ("nobody", "ada"), ("ada", None)])
async def test_whoever_is_refused_got_in_by_nothing_and_is_warned_of_nothing(
    driver: str,
    family: str,
    username: str,
    name: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with anyio.fail_after(SOON):
        async with serve(dialect=family, **CLOSED) as server:
            async with client_of(driver, server.url) as client:
                with pytest.raises(AuthenticationError):
                    await client.authenticate(username, key(name) if name else None)
                assert client.authentication is None
                # What it is has been said all the same.
                assert client.server == FAMILIES[family].capabilities
    assert warnings_in(caplog) == []


async def test_a_token_for_a_server_that_knows_none_is_refused_in_words(driver: str) -> None:
    with anyio.fail_after(SOON):
        async with serve(dialect="process") as server:
            uri = server.url + "/v1/ws"
            async with client_of(driver, uri, identity=IDENTITY) as client:
                with pytest.raises(AuthenticationError, match="know no internal token"):
                    await client.internal_authenticate("any")
                assert client.server == FAMILIES["process"].capabilities
                assert client.authentication is None


# --------------------------------------------------------------- who answers as no server does

OLD_YES = wire("response", corr_id=1, successful=True, result=OPEN)
NEW_YES = wire("response", corr_id=2, ok=True, result=ALREADY)


async def checked(
    driver: str, talk: Talk, check: Callable[[Any], Awaitable[None]], **options: Any
) -> None:
    """Check a client where ``talk`` is what the server does, and that nothing is left open."""
    with anyio.fail_after(SOON):
        async with listening({"/": talk}) as listener:
            async with client_of(driver, listener.uri, **options) as client:
                await check(client)
            await listener.nobody_left()
        assert listener.connections == 1


ODD = {
    "closes": (saying(hangs_up=True), ConnectionLost, "without a word"),
    "closes with a code": (
        saying(frame(0x88, (4401).to_bytes(2, "big") + b"who?", masked=False), hangs_up=True),
        ConnectionLost,
        r"other side \(code 4401, who\?\)",
    ),
    "ends within an answer": (
        saying(say(OLD_YES)[:-1], hangs_up=True),
        ConnectionLost,
        "other side .*without a word",
    ),
    "says what nobody asked": (
        saying(say(wire("response", corr_id=9, successful=True, result=OPEN))),
        RemoteProtocolError,
        "request 9, which was never made",
    ),
    "speaks no MessagePack": (saying(say(b"\xc1")), RemoteProtocolError, "MessagePack"),
    "speaks no WebSocket": (saying(b"\xff\xff"), RemoteProtocolError, "the server masked a frame"),
    "refuses in no vocabulary": (
        saying(say('{"type":"error","message":"bad client frame"}')),
        AuthenticationError,
        "identifying as 'ada': the server said: bad client frame",
    ),
    "answers neither": (
        saying(),
        TimeoutError,
        "identifying as 'ada': the server at .* did not answer within 0.2 s to",
    ),
    "answers the one in the words of the other": (
        saying(say(wire("response", corr_id=2, successful=True, result=OPEN))),
        TimeoutError,
        "did not answer within 0.2 s to any identification",
    ),
    "says it back": (
        saying(say(wire("identification", corr_id=1, username="ada"))),
        TimeoutError,
        "to any identification of this client: is it a Pie server",
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_a_server_that_answers_no_identification_is_an_error_in_words(
    driver: str, name: str
) -> None:
    talk, kind, words = ODD[name]

    async def check(client: Any) -> None:
        with pytest.raises(kind, match=words):
            await client.authenticate("ada")
        assert client.server is None
        assert client.authentication is None
        with pytest.raises((ConnectionLost, RemoteProtocolError, LocalProtocolError)):
            await client.ping()

    waits = kind is TimeoutError
    await checked(driver, talk, check, **({"limits": IMPATIENT} if waits else {}))


async def test_a_server_of_another_family_than_is_said_is_given_up_with_what_was_said(
    driver: str,
) -> None:
    options: dict[str, Any] = {"dialect": "process", "limits": IMPATIENT}
    with anyio.fail_after(SOON):
        async with serve(dialect="instance") as server:
            async with client_of(driver, server.url, **options) as client:
                with pytest.raises(TimeoutError, match=r"a server 0\.5, as dialect= says\?"):
                    await client.authenticate("ada")
                with pytest.raises(ConnectionLost, match="this side"):
                    await client.authenticate("ada")


@pytest.mark.parametrize("dialect", ["auto", "instance"])
async def test_a_bare_yes_to_a_name_proves_nothing(driver: str, dialect: str) -> None:
    async def check(client: Any) -> None:
        await client.authenticate("ada")
        assert client.authentication == "asserted"

    said = wire("response", corr_id=1, successful=True, result="Authenticated")
    await checked(driver, saying(say(said)), check, dialect=dialect)


BOTH = {
    "the old first": (say(OLD_YES, NEW_YES), "instance", "'successful' is missing"),
    "the new first": (say(NEW_YES, OLD_YES), "process", "'ok' is missing"),
}


@pytest.mark.parametrize("name", BOTH)
async def test_a_server_that_answers_in_two_vocabularies_is_told_with_what_is_wrong(
    driver: str, name: str
) -> None:
    data, family, words = BOTH[name]

    async def check(client: Any) -> None:
        await client.authenticate("ada")
        assert client.server == FAMILIES[family].capabilities
        with pytest.raises(RemoteProtocolError, match=words):
            await client.ping()

    await checked(driver, saying(data), check)


def clients_tasks() -> list[str | None]:
    """The tasks of clients that run now."""
    names = [task.name for task in anyio.get_running_tasks()]
    return [name for name in names if name and ("PieClient" in name or "Driver" in name)]


async def test_an_identification_that_is_cancelled_leaves_nothing_behind(driver: str) -> None:
    async def check(client: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.authenticate, "ada")
            await heard.wait()
            assert clients_tasks() != []
            tasks.cancel_scope.cancel()
        assert client.authentication is None
        with pytest.raises(ConnectionLost, match="this side"):
            await client.ping()

    async def talk(stream: SocketStream, head: bytes) -> None:
        await stream.send(answer_101(head))
        await stream.receive()
        heard.set()
        await stream.receive()

    heard = anyio.Event()
    await checked(driver, talk, check)
    assert clients_tasks() == []


@pytest.mark.parametrize("target", ["/", "/v1/ws"])
async def test_an_opening_that_is_cancelled_leaves_nothing_behind(driver: str, target: str) -> None:
    """Cancelled while the first request, or the second, is not answered."""

    async def stay_silent(stream: SocketStream, head: bytes) -> None:
        asked.set()
        await stream.receive()

    asked = anyio.Event()
    with anyio.fail_after(SOON):
        async with listening({target: stay_silent}) as listener:
            async with anyio.create_task_group() as tasks:

                async def open_it() -> None:
                    async with client_of(driver, listener.uri):
                        pytest.fail("it connected")

                tasks.start_soon(open_it)
                await asked.wait()
                assert clients_tasks() != []
                tasks.cancel_scope.cancel()
            assert clients_tasks() == []
            await listener.nobody_left()
    assert listener.connections == (1 if target == "/" else 2)
