"""A server in threads of its own that plays a script with each connection, byte by byte.

A script is a function of a `Line`. It says in turn what the server reads and sends; when it
returns, the connection is closed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeAlias

import msgpack
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.utilities import LocalProtocolError

__all__ = ["INSTANCE", "Line", "Message", "Peer", "Script", "answers_everything", "playing"]

INSTANCE: Final = "33333333-3333-4333-8333-333333333333"

Message: TypeAlias = dict[str, Any]


class _Gone(Exception):
    """The client has ended the connection."""


class Line:
    """One connection, as the server has it."""

    def __init__(self, sock: socket.socket, over: threading.Event, peer: Peer) -> None:
        self.sock = sock
        self._over = over
        self._peer = peer
        self._ws = WSConnection(ConnectionType.SERVER)

    # ------------------------------------------------------------------------------------ reading

    def open(self) -> None:
        """Take the opening request and open the WebSocket."""
        assert isinstance(self.event(), ws.Request)
        self.send(ws.AcceptConnection())

    def event(self) -> ws.Event:
        """What the client sends next, whatever it is."""
        while True:
            for event in self._ws.events():
                return event
            data = self.sock.recv(65_536)
            if not data:
                raise _Gone
            self._ws.receive_data(data)

    def message(self) -> Message:
        """The client's next message; its pings are answered, and its Close ends the script."""
        whole = b""
        while True:
            match self.event():
                case ws.Ping() as ping:
                    self.send(ping.response())
                case ws.CloseConnection() as close:
                    self.send(close.response())
                    raise _Gone
                case ws.BytesMessage(data=data, message_finished=True):
                    message: Message = msgpack.unpackb(whole + data)
                    self._peer.received.append(message)
                    return message
                case ws.BytesMessage(data=data):
                    whole += data

    # ------------------------------------------------------------------------------------ sending

    def send(self, *items: Message | ws.Event) -> None:
        """Send messages and WebSocket events, in one piece."""
        events = (
            ws.BytesMessage(data=msgpack.packb(item)) if isinstance(item, dict) else item
            for item in items
        )
        self.sock.sendall(b"".join(map(self._ws.send, events)))

    def accept_user(self) -> None:
        """Read who the client is, and accept it."""
        self.answer(self.message(), "Authenticated (Engine disabled authentication)")

    def accept_launch(self) -> None:
        """Read a launch, and answer it with `INSTANCE`."""
        self.launched(self.message())

    def launched(self, request: Message) -> None:
        """Answer a launch with `INSTANCE`."""
        corr_id = request["corr_id"]
        kind = "instance_launch_result"
        self.send({"type": kind, "corr_id": corr_id, "successful": True, "message": INSTANCE})

    def answer(self, request: Message, result: str) -> None:
        """Answer a request with success."""
        corr_id = request["corr_id"]
        said = {"type": "response", "corr_id": corr_id, "result": result}
        self.send({**said, "successful": True, "ok": True})

    def answer_the_rest(self, *, ignoring: frozenset[str] = frozenset()) -> None:
        """Answer every request until the client ends; those of a type in ``ignoring`` not."""
        while True:
            request = self.message()
            match request["type"]:
                case kind if kind in ignoring or "corr_id" not in request:
                    pass
                case "launch_instance":
                    self.launched(request)
                case "list_instances":
                    corr_id = request["corr_id"]
                    self.send({"type": "live_instances", "corr_id": corr_id, "instances": []})
                case _:
                    self.answer(request, "Pong")

    def wait_for_the_test(self) -> None:
        """Neither read nor send until the test is over."""
        self._over.wait()

    # ----------------------------------------------------------------------- what an instance sends

    @staticmethod
    def stdout(text: str) -> Message:
        """A piece of output."""
        output = {"Stdout": text}
        return {"type": "streaming_output", "instance_id": INSTANCE, "output": output}

    @staticmethod
    def completed(text: str) -> Message:
        """The terminal event."""
        return {"type": "instance_event", "instance_id": INSTANCE, "event": 1, "message": text}


Script: TypeAlias = Callable[[Line], None]


class Peer:
    """The server, as a test has it."""

    def __init__(self, port: int) -> None:
        self.uri = f"ws://127.0.0.1:{port}"
        self.received: list[Message] = []
        """What clients have sent and the script has read."""


@contextmanager
def playing(script: Script) -> Iterator[Peer]:
    """A server that plays ``script`` with whoever connects, for as long as the block."""
    over = threading.Event()
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    faults: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = Peer(listening.getsockname()[1])

        def play(sock: socket.socket) -> None:
            try:
                with sock, suppress(_Gone, OSError, LocalProtocolError):
                    script(Line(sock, over, peer))
            except BaseException as fault:
                faults.append(fault)

        def listen() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    open_sockets.append(sock)
                    threads.append(threading.Thread(target=play, args=(sock,)))
                    threads[-1].start()

        threads.append(threading.Thread(target=listen))
        threads[0].start()
        try:
            yield peer
        finally:
            over.set()
            for sock in (listening, *open_sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
    assert not faults, faults


def answers_everything(line: Line) -> None:
    """A script: a server that accepts the user and answers every request."""
    line.open()
    line.accept_user()
    line.answer_the_rest()
