"""Both sides of a WebSocket, and the bytes between them drawn by hand, for the tests."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re

from pie_proto.limits import Limits
from pie_proto.websocket import (
    HandshakeAccepted,
    Role,
    WebSocket,
    WebSocketEvent,
)

SIZES = [0, 1, 125, 126, 4095, 65535, 65536, 300_000]
KEY = b"\x01\x02\x03\x04"
SMALL = Limits(message_bytes=1000, handshake_body_bytes=20)


def drain(websocket: WebSocket) -> list[WebSocketEvent]:
    return list(iter(websocket.next_event, None))


def feed(websocket: WebSocket, data: bytes) -> list[WebSocketEvent]:
    websocket.receive_data(data)
    return drain(websocket)


def sent(websocket: WebSocket, max_bytes: int = 1 << 20) -> bytes:
    return b"".join(iter(lambda: websocket.data_to_send(max_bytes), b""))


def payload_of(size: int) -> bytes:
    return bytes(itertools.islice(itertools.cycle(range(251)), size))


def frame(first: int, payload: bytes = b"", *, masked: bool, length: bytes | None = None) -> bytes:
    """A frame as RFC 6455 draws it; ``length`` overrides the second byte and what extends it."""
    size = len(payload)
    if length is None and size < 126:
        length = bytes([size])
    elif length is None:
        length = b"\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x7f" + size.to_bytes(8)
    if not masked:
        return bytes([first]) + length + payload
    covered = bytes(byte ^ KEY[at % 4] for at, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + KEY + covered


def answer_101(asked: bytes, *extra: str) -> bytes:
    """The answer that opens the WebSocket that ``asked`` asks for."""
    key = re.search(rb"(?i)sec-websocket-key: (\S+)", asked)
    assert key
    digest = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    accept = base64.b64encode(digest).decode()
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}", *extra]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def request_head(*extra: str, without: str = "-", method: str = "GET") -> bytes:
    """A request for a WebSocket, with ``extra`` lines and ``without`` others."""
    lines = [
        "Host: pie.example:8080",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    kept = [line for line in lines if not line.startswith(without)]
    return "\r\n".join([f"{method} /v1/ws HTTP/1.1", *kept, *extra, "", ""]).encode()


def asking_client(limits: Limits = SMALL) -> tuple[WebSocket, bytes]:
    client = WebSocket(Role.CLIENT, limits=limits)
    client.open("pie.example:8080", "/v1/ws")
    return client, sent(client)


def opened(role: Role, limits: Limits = SMALL) -> WebSocket:
    """One side, open, whose other side is written by hand."""
    if role is Role.CLIENT:
        websocket, asked = asking_client(limits)
        assert feed(websocket, answer_101(asked)) == [HandshakeAccepted(())]
    else:
        websocket = WebSocket(role, limits=limits)
        feed(websocket, request_head())
        websocket.accept()
        sent(websocket)
    return websocket


def pair() -> tuple[WebSocket, WebSocket]:
    client, server = WebSocket(Role.CLIENT), WebSocket(Role.SERVER)
    client.open("pie.example", "/")
    feed(server, sent(client))
    server.accept()
    feed(client, sent(server))
    assert client.opened
    assert server.opened
    return client, server
