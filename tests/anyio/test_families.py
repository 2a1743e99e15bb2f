"""What a client tells of the server it talks to, and of how it came to be let in."""

from __future__ import annotations

import logging

import anyio
import pytest

from pie_anyio import PieClient
from pie_anyio.server import serve
from pie_proto.dialects.instance import INSTANCE
from tests.anyio.test_authentication import CLOSED, key
from tests.anyio.world import SOON

pytestmark = pytest.mark.anyio

NOT_USED = "asks for no proof"


async def test_what_a_server_is_is_known_once_it_has_said_so() -> None:
    with anyio.fail_after(SOON):
        async with serve() as server, PieClient(server.url) as client:
            assert client.server is None
            await client.authenticate("ada")
            assert client.server == INSTANCE.capabilities
            assert client.server.servers == "0.2"


async def test_what_a_server_is_is_known_from_the_start_where_it_is_said() -> None:
    with anyio.fail_after(SOON):
        async with serve() as server, PieClient(server.url, dialect="instance") as client:
            assert client.server == INSTANCE.capabilities


async def test_it_is_told_how_a_user_was_let_in() -> None:
    with anyio.fail_after(SOON):
        async with serve(**CLOSED) as server, PieClient(server.url) as client:
            assert client.authentication is None
            await client.authenticate("ada", key("ada"))
            assert client.authentication == "proved"
            await client.authenticate("ada", key("ada"))
            assert client.authentication == "proved"
        async with serve() as server, PieClient(server.url) as client:
            await client.authenticate("ada")
            assert client.authentication == "asserted"


async def test_a_key_that_proves_nothing_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with anyio.fail_after(SOON):
        async with serve() as server, PieClient(server.url) as client:
            await client.authenticate("ada", key("ada"))
            await client.authenticate("ada", key("ada"))
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [NOT_USED in record.getMessage() for record in warnings] == [True]


async def test_without_a_key_there_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    with anyio.fail_after(SOON):
        async with serve() as server, PieClient(server.url) as client:
            await client.authenticate("ada")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
