"""What a server says to the whole connection reaches the program, whatever it does with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from pie_anyio import LaunchFailed, PieClient
from pie_proto import (
    NEED_DATA,
    Authenticated,
    Authentication,
    HandshakeReceived,
    Identify,
    Ping,
    Pong,
    Request,
    UnknownMessage,
)
from pie_proto.server import ServerConnection
from tests.anyio.world import SOON, World, launch
from tests.programs import component

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server_with_a_notice(text: str) -> AsyncIterator[str]:
    """A server that says ``text`` to everyone who pings; gives its URL."""

    async def talk(stream: anyio.abc.SocketStream) -> None:
        connection = ServerConnection(now=anyio.current_time())
        async with stream:
            while True:
                while data := connection.data_to_send(now=anyio.current_time()):
                    await stream.send(data)
                try:
                    connection.receive_data(await stream.receive(), anyio.current_time())
                except anyio.EndOfStream:
                    return
                while (event := connection.next_event()) is not NEED_DATA:
                    match event:
                        case HandshakeReceived():
                            connection.accept()
                        case UnknownMessage():
                            pass
                        case Request(int(request_id), Identify()):
                            connection.answer(Authenticated(request_id, Authentication.ASSERTED))
                        case Request(int(request_id), Ping()):
                            connection.notify(text)
                            connection.answer(Pong(request_id))
                        case _:
                            return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, talk)
        yield f"ws://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def test_a_notice_is_logged_and_given_to_the_callback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    with anyio.fail_after(SOON):
        async with server_with_a_notice("maintenance at noon") as url:
            async with PieClient(url, on_notice=told.append) as client:
                await client.authenticate("ada")
                await client.ping()
                await client.ping()
    assert told == ["maintenance at noon"] * 2
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["maintenance at noon" in record.getMessage() for record in warnings] == [True, True]


async def test_a_callback_that_fails_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(text: str) -> None:
        raise ZeroDivisionError(text)

    with anyio.fail_after(SOON):
        async with server_with_a_notice("maintenance at noon") as url:
            async with PieClient(url, on_notice=fail) as client:
                await client.authenticate("ada")
                await client.ping()
                await client.ping()
    assert any(record.exc_info for record in caplog.records)


async def test_the_embedded_server_declines_programs_that_are_servers(world: World) -> None:
    async with world() as (_, client):
        program_hash = await client.upload_program(component("hello"))
        with pytest.raises(LaunchFailed, match="on port 8080: the server said"):
            await client.launch_server_instance(program_hash, 8080)
        instance = await launch(client, "hello")
        assert await instance.result() == "done"
