"""The core on a plain blocking socket: one thread, no event loop, nothing beside it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.connection import ClientConnection
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.events import NEED_DATA, Event, InstanceEvent
from tests.programs.table import Program
from tests.real_server.running import RealServer

__all__ = ["CorePeer", "connected", "upload"]

_SECONDS: Final = 200
"""How long anything may take: the first upload of all compiles the language, 20 s and more."""
_PIECE: Final = 256 * 1024

_Outcome = TypeVar("_Outcome", bound=e.ClientEvent)
_Found = TypeVar("_Found")


class CorePeer:
    """A client that does one thing after the other, and keeps all that it was told."""

    def __init__(self, server: RealServer) -> None:
        self._socket = socket.create_connection(server.address, timeout=_SECONDS)
        host, port = server.address
        self.core = ClientConnection(
            f"{host}:{port}",
            target="/v1/ws",
            now=time.monotonic(),
            headers=(("x-pie-identity", "default/tester"),),
            dialect=PROCESS_0_5,
        )
        self.told: list[e.ClientEvent] = []

    def close(self) -> None:
        """Be gone, without a farewell."""
        self._socket.close()

    def ask(self, command: c.Command, expected: type[_Outcome]) -> _Outcome:
        """Send a command, and wait for its outcome, which must be of this kind."""
        request_id = self.send(command)
        outcome = self.wait(lambda: self._outcome_of(request_id))
        assert isinstance(outcome, expected), outcome
        return outcome

    def send(self, command: c.Command) -> int | None:
        """Send a command; its outcome will be among what is ``told``."""
        request_id = self.core.send(command, time.monotonic())
        self._flush()
        return request_id

    def _outcome_of(self, request_id: int | None) -> e.ClientEvent | None:
        for event in self.told:
            if getattr(event, "request_id", None) == request_id:
                return event
        return None

    def launch(self, program: Program, given: str = "{}") -> str:
        """Launch an uploaded program with the JSON text of its input; the id of the instance."""
        command = c.LaunchFromRegistry(name=program.identifier, input=given)
        return self.ask(command, e.Launched).instance_id

    def next_event(self, instance_id: str) -> InstanceEvent:
        """The next event of an instance."""
        return self.wait(lambda: self.core.read_instance(instance_id))

    def read_to_end(self, instance_id: str) -> Iterator[InstanceEvent]:
        """The events of an instance, up to and with the last."""
        while True:
            event = self.next_event(instance_id)
            yield event
            if event.event.is_terminal:
                return

    def run(self, program: Program, given: str = "{}") -> dict[Event, str]:
        """Launch a program and read all that it says: put together, kind by kind."""
        said: dict[Event, list[str]] = {}
        for event in self.read_to_end(self.launch(program, given)):
            said.setdefault(event.event, []).append(str(event.data))
        return {kind: "".join(texts) for kind, texts in said.items()}

    def wait(self, look: Callable[[], _Found | None]) -> _Found:
        """Carry bytes until there is what is looked for."""
        deadline = time.monotonic() + _SECONDS
        while True:
            self._drain()
            if (found := look()) is not None:
                # What was read may have made room for more.
                self._drain()
                return found
            self._flush()
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(_PIECE)
            assert data, "the server has ended the connection"
            self.core.receive_data(data, time.monotonic())

    def _drain(self) -> None:
        while (event := self.core.next_event()) is not NEED_DATA:
            assert not isinstance(event, e.ConnectionClosed), event
            self.told.append(event)

    def _flush(self) -> None:
        while data := self.core.data_to_send(now=time.monotonic()):
            self._socket.sendall(data)


@contextmanager
def connected(server: RealServer) -> Iterator[CorePeer]:
    """A connection that is open, and authenticated."""
    peer = CorePeer(server)
    try:
        peer.wait(lambda: e.Connected() in peer.told or None)
        peer.ask(c.Identify("tester"), e.Authenticated)
        yield peer
    finally:
        peer.close()


def upload(peer: CorePeer, program: Program) -> None:
    """Upload the source of a program."""
    data = program.source()
    command = c.UploadProgram(
        size=len(data), hash=c.hash_of(data), data=data, manifest=program.manifest()
    )
    assert peer.ask(command, e.ProgramUploaded).hash == c.hash_of(data)
