"""From a ``ws://`` URI to a `trio.abc.Stream`."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

import trio

from pie_proto.addresses import ServerAddress
from pie_proto.errors import ConnectFailed, describe_cause

__all__ = ["connect_stream", "parse"]

# The `socket` module has had the name since Python 3.12 only; these are the systems' own numbers.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)

# Two chunks: enough that the line does not run dry while the next is made.
_UNSENT_BYTES = 512 * 1024

_OPENED_BY_THE_CALLER = {
    "wss": "trio.open_ssl_over_tcp_stream()",
    "ws+unix": "trio.open_unix_socket()",
}


def parse(uri: str) -> ServerAddress:
    """Read a ``ws://`` URI. Raises `ValueError` that says what is wrong."""
    address = ServerAddress.parse(uri)
    if (opener := _OPENED_BY_THE_CALLER.get(address.scheme)) is not None:
        raise ValueError(
            f"of URIs, open_client() takes ws:// only, not {uri!r}: pass the stream that "
            f"{opener} gives"
        )
    return address


async def connect_stream(address: ServerAddress) -> trio.SocketStream:
    """Open a TCP connection. Raises `ConnectFailed` that names the address, the cause and a remedy.

    Cancel-safe: nothing is left open.
    """
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except (OSError, UnicodeError) as exc:  # no name can be of such a form
        words = describe_cause(exc)
        raise ConnectFailed(
            f"no connection to {address.uri}: {words}. Is a Pie server listening there?"
        ) from exc
    # What lies in the kernel's send queue cannot be overtaken: megabytes of an upload, by default.
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return stream
