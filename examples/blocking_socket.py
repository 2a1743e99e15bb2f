"""`ClientConnection` on a plain blocking socket: no event loop, no task, no thread.

Uploads a program (a component, or its text), runs it, and prints what it says. The server is one
that asks for no proof, such as ``python -m pie_anyio.server``::

    python examples/blocking_socket.py HOST PORT PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path
from time import monotonic

import pie_proto as pie


def step(sock: socket.socket, connection: pie.ClientConnection) -> pie.ClientEvent:
    """Send what there is to send, then wait until the core has something to tell."""
    while True:
        while data := connection.data_to_send(now=monotonic()):
            sock.sendall(data)
        event = connection.next_event()
        if isinstance(event, pie.Failed | pie.TimedOut | pie.ConnectionClosed):
            raise pie.error_for(event)
        if event is not pie.NEED_DATA:
            return event
        deadline = connection.next_deadline()
        patience = None if deadline is None else max(0.0, deadline - monotonic())
        if not select.select([sock], [], [], patience)[0]:
            connection.handle_timeout(monotonic())
        elif data := sock.recv(65_536):
            connection.receive_data(data, monotonic())
        else:
            connection.receive_eof(monotonic())


def ask(sock: socket.socket, connection: pie.ClientConnection, command: pie.Command) -> pie.Outcome:
    """Send a command and wait for what settles it."""
    request_id = connection.send(command, monotonic())
    while True:
        event = step(sock, connection)
        if isinstance(event, pie.Outcome) and event.request_id == request_id:
            return event


def run(host: str, port: int, program: bytes, arguments: tuple[str, ...]) -> None:
    """Everything from the opening handshake to the end of the instance."""
    connection = pie.ClientConnection(f"{host}:{port}", now=monotonic())
    program_hash = pie.hash_of(program)
    upload = pie.UploadProgram(size=len(program), hash=program_hash, data=program)
    launch = pie.LaunchInstance(hash=program_hash, arguments=arguments)
    with socket.create_connection((host, port)) as sock:
        while not isinstance(step(sock, connection), pie.Connected):
            pass
        ask(sock, connection, pie.Identify("ada"))
        ask(sock, connection, upload)
        launched = ask(sock, connection, launch)
        assert isinstance(launched, pie.Launched)
        while connection.instance_state(launched.instance_id) is pie.InstanceState.ATTACHED:
            if isinstance(step(sock, connection), pie.InstanceReadable):
                while unread := connection.read_instance(launched.instance_id):
                    print(f"{unread.event.name}: {unread.data!r}")
        connection.close(now=monotonic())
        sock.sendall(connection.data_to_send(now=monotonic()))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).read_bytes(), tuple(sys.argv[4:]))
