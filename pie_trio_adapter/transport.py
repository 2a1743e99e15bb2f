"""From a URI to a `trio.abc.Stream`: TCP, TLS, a Unix socket."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import suppress

import trio

from pie_files.tls import default_context
from pie_proto.addresses import ServerAddress
from pie_proto.attempts import ATTEMPT_DELAY, Attempts, in_order
from pie_proto.connect_errors import tls_handshake_reason, unix_socket_reason
from pie_proto.errors import ConnectFailed
from pie_trio_adapter.threads import in_thread

__all__ = ["connect_stream", "shake_hands"]

# The `socket` module has had the name since Python 3.12 only; these are the systems' own numbers.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)

# Two chunks: enough that the line does not run dry while the next is made.
_UNSENT_BYTES = 512 * 1024


async def connect_stream(
    address: ServerAddress, ssl_context: ssl.SSLContext | None, attempts: Attempts
) -> trio.abc.Stream:
    """Open a connection. Raises `ConnectFailed` that names the address, the cause and a remedy.

    With ``wss://``, ``ssl_context`` says what is trusted; by default, what the system trusts.
    ``attempts`` notes what came of each address. Cancel-safe: nothing is left open.
    """
    if address.path is not None:
        try:
            return await trio.open_unix_socket(address.path)
        except (OSError, RuntimeError) as exc:  # the latter where there are no Unix sockets
            reason = unix_socket_reason(exc, address.path)
            raise ConnectFailed(f"no connection to {address.uri}: {reason}") from exc
    stream = await _connect_tcp(address, attempts)
    # What lies in the kernel's send queue cannot be overtaken: megabytes of an upload, by default.
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    if not address.secure:
        return stream
    try:
        if ssl_context is None:
            # Half a megabyte of certificates is read.
            ssl_context = await in_thread(default_context)
        # A WebSocket has a Close of its own: an end that TLS did not announce is no attack.
        return trio.SSLStream(
            stream, ssl_context, server_hostname=address.server_name, https_compatible=True
        )
    except BaseException as exc:
        await trio.aclose_forcefully(stream)
        if isinstance(exc, ValueError):
            reason = tls_handshake_reason(exc, address.server_name)
            raise ConnectFailed(f"no connection to {address.uri}: {reason}") from exc
        raise


async def _connect_tcp(address: ServerAddress, attempts: Attempts) -> trio.SocketStream:
    # As bytes, since a resolver for text would take the zone of an address for part of a name.
    name = address.host.encode("utf-8", "surrogateescape")
    addresses: list[str] = []
    try:
        found = await trio.socket.getaddrinfo(name, address.port, type=trio.socket.SOCK_STREAM)
        addresses = in_order(found)
    except (OSError, UnicodeError) as exc:  # no name can be of such a form
        attempts.fail_lookup(exc)
    stream = await _first_connected(addresses, address.port, attempts)
    if stream is None:
        raise ConnectFailed(
            f"no connection to {address.uri}: {attempts.reason}. {attempts.advice}"
        ) from attempts.cause
    attempts.reached()
    return stream


async def _first_connected(
    addresses: Sequence[str], port: int, attempts: Attempts
) -> trio.SocketStream | None:
    """Connect to one of the addresses: the next one if one fails, or has not answered for a while.

    ``None``: none was reached, and ``attempts`` knows why.
    """
    connected: list[trio.SocketStream] = []

    async def connect(address: str, over: trio.Event) -> None:
        attempts.begin(address)
        try:
            connected.append(await trio.open_tcp_stream(address, port))
        except OSError as exc:
            attempts.fail(address, exc)
        else:
            nursery.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                over = trio.Event()
                nursery.start_soon(connect, address, over)
                with trio.move_on_after(ATTEMPT_DELAY):
                    await over.wait()
    except BaseException:
        for stream in connected:
            await trio.aclose_forcefully(stream)
        raise
    # Two may have answered at the same time.
    for stream in connected[1:]:
        await trio.aclose_forcefully(stream)
    return connected[0] if connected else None


async def shake_hands(stream: trio.abc.Stream) -> None:
    """Agree with the other side on TLS, if the stream is one of `trio.SSLStream`.

    Before reader and writer share it: of a handshake that fails in the one, the other would never
    hear. Raises `ConnectFailed`.
    """
    if isinstance(stream, trio.SSLStream):
        try:
            await stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            raise ConnectFailed(tls_handshake_reason(exc, stream.server_hostname)) from exc
