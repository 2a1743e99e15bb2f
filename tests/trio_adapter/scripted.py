"""A Pie server of a few lines, in memory: for what needs a clock of its own, or an odd server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from pie_proto import NEED_DATA, ConnectionState, TransportAction
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.server import ServerConnection
from pie_trio_adapter import TrioPieClient
from tests.trio_adapter.world import connected

__all__ = ["INSTANCE", "Scripted", "scripted"]

INSTANCE = "11111111-1111-4111-8111-111111111111"


class Scripted:
    """Lets everybody in, answers pings, and has one instance, which says back what it is told."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = ServerConnection(now=trio.current_time())
        self.received = 0
        """How many bytes have come."""
        self._deaf = False

    def fall_silent(self) -> None:
        """Answer nothing from now on, not even a Close."""
        self._deaf = True

    async def serve(self) -> None:
        """Answer until the end of the stream."""
        connection = self.connection
        while True:
            try:
                data = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            self.received += len(data)
            if self._deaf:
                continue
            connection.receive_data(data, trio.current_time())
            while connection.state is not ConnectionState.CLOSED and (
                (event := connection.next_event()) is not NEED_DATA
            ):
                self._answer(event)
            await self.send()
            if connection.transport_action() is not TransportAction.KEEP:
                await self.stream.aclose()
                return

    async def send(self) -> None:
        """Send all that there is to send."""
        while data := self.connection.data_to_send(now=trio.current_time()):
            await self.stream.send_all(data)

    async def emit(self, event: e.Event, data: str) -> None:
        """Have the instance say something."""
        self.connection.emit(e.InstanceEvent(INSTANCE, event, data))
        await self.send()

    def _answer(self, event: e.ServerEvent) -> None:
        connection = self.connection
        match event:
            case e.HandshakeReceived():
                connection.accept()
            case e.Request(int(request_id), c.Identify()):
                connection.answer(e.Authenticated(request_id, e.Authentication.ASSERTED))
            case e.Request(int(request_id), c.Ping()):
                connection.answer(e.Pong(request_id))
            case e.Request(int(request_id), c.LaunchInstance()):
                connection.answer(e.Launched(request_id, INSTANCE, detached=False))
            case e.Request(None, c.SendMessage(instance_id, message)):
                said = e.InstanceEvent(instance_id, e.Event.Message, f"echo: {message}")
                connection.emit(said)
            case _:
                pass


@asynccontextmanager
async def scripted(
    *, lockstep: bool = False, **options: Any
) -> AsyncIterator[tuple[Scripted, TrioPieClient]]:
    """A scripted server, and a client of it that has authenticated; in memory."""
    pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
    ours, theirs = pair()
    server = Scripted(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        async with connected(ours, **options) as client:
            yield server, client
        nursery.cancel_scope.cancel()
