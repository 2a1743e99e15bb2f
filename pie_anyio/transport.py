"""From a URI to a byte stream: TCP, TLS, a Unix socket, or any of the first two behind a proxy."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from pie_anyio.home import DeadlinePassed, run_until
from pie_anyio.proxy import Proxy, open_tunnel, read_body, rejected
from pie_proto.addresses import ServerAddress
from pie_proto.attempts import ATTEMPT_DELAY, Attempts, in_order
from pie_proto.errors import ConnectFailed, describe_cause
from pie_proto.http_responses import HttpResponse
from pie_proto.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import ssl

__all__ = ["connect_stream"]

# The `socket` module has had the name since Python 3.12 only; these are the systems' own numbers.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)

# Two chunks: enough that the line does not run dry while the next is made.
_UNSENT_BYTES = 512 * 1024


async def connect_stream(
    address: ServerAddress,
    *,
    ssl_context: ssl.SSLContext | None = None,
    proxy: Proxy | None = None,
    connect: Callable[[], Awaitable[ByteStream]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    deadline: float = math.inf,
) -> ByteStream:
    """Open a connection. Raises `ConnectFailed` that names the address, the cause and a remedy.

    With ``wss://``, ``ssl_context`` says what is trusted; by default, what the system trusts.
    ``connect`` takes the place of all that; what it raises is raised as it is. At the ``deadline``
    what is known by then is reported. Cancel-safe: nothing is left open.
    """
    attempt = _Attempt(address, proxy, limits)
    try:
        return await run_until(deadline, connect or partial(attempt.connect, ssl_context))
    except DeadlinePassed:
        raise attempt.timed_out() from None


class _Attempt:
    """One attempt to connect, and what is known of it when time is up."""

    def __init__(self, address: ServerAddress, proxy: Proxy | None, limits: Limits) -> None:
        self._address = address
        self._proxy = proxy
        self._limits = limits
        self._host, self._port = address.host, address.port
        if proxy is not None:
            self._host, self._port = proxy.host, proxy.port
        self._attempts = Attempts(self._host)
        self._rejection: HttpResponse | None = None
        self._prefix = f"no connection to {address.uri}"

    def timed_out(self) -> ConnectFailed:
        """The exception for a connection that was not made in time."""
        if self._proxy is not None and self._rejection is not None:
            return rejected(self._proxy, self._address, self._rejection).at(self._prefix)
        seconds = f"{self._limits.handshake_timeout:g} s"
        return ConnectFailed(f"{self._prefix} within {seconds}{self._attempts.so_far}")

    async def connect(self, ssl_context: ssl.SSLContext | None) -> ByteStream:
        """Open the connection, whatever it leads over."""
        address, proxy = self._address, self._proxy
        if address.path is not None:
            return await _connect_unix(address, address.path)
        stream = await self._connect_tcp()
        try:
            if proxy is not None:
                await self._lead_through(stream, proxy)
            if address.secure:
                return await _secured(stream, address, ssl_context)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return stream

    async def _connect_tcp(self) -> ByteStream:
        attempts = self._attempts
        try:
            addresses = await _lookup(self._host, self._port)
        except (OSError, UnicodeError) as exc:  # no name can be of such a form
            attempts.fail_lookup(exc)
            addresses = []
        stream = await _first_connected(addresses, self._port, attempts)
        if stream is None:
            reason = f"{attempts.reason}. {attempts.advice}"
            if self._proxy is not None:
                reason = f"the proxy {self._proxy} is not reached: {attempts.reason}"
            raise ConnectFailed(f"{self._prefix}: {reason}") from attempts.cause
        _keep_send_queue_short(stream.extra(SocketAttribute.raw_socket))
        return stream

    async def _lead_through(self, stream: ByteStream, proxy: Proxy) -> None:
        body_bytes = self._limits.handshake_body_bytes
        try:
            rejection = await open_tunnel(stream, proxy, self._address, body_bytes=body_bytes)
            if rejection is None:
                return
            self._rejection = rejection
            with anyio.move_on_after(self._limits.handshake_body_timeout):
                await read_body(stream, rejection)
            raise rejected(proxy, self._address, rejection)
        except ConnectFailed as exc:
            raise exc.at(self._prefix) from exc.__cause__
        except (anyio.BrokenResourceError, OSError) as exc:
            raise ConnectFailed(
                f"{self._prefix}: the proxy {proxy} hung up: {describe_cause(exc)}"
            ) from exc


async def _lookup(host: str, port: int) -> list[str]:
    # As bytes, since a resolver for text would take the zone of an address for part of a name.
    name = host.encode("utf-8", "surrogateescape")
    try:
        # An address needs no look-up, and no thread for one.
        numeric = socket.AI_NUMERICHOST
        return in_order(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=numeric))
    except socket.gaierror:
        return in_order(await anyio.getaddrinfo(name, port, type=socket.SOCK_STREAM))


async def _first_connected(
    addresses: Sequence[str], port: int, attempts: Attempts
) -> SocketStream | None:
    """Connect to one of the addresses: the next one if one fails, or has not answered for a while.

    ``None``: none was reached, and ``attempts`` knows why.
    """
    connected: list[SocketStream] = []

    async def connect(address: str, over: anyio.Event) -> None:
        attempts.begin(address)
        try:
            connected.append(await anyio.connect_tcp(address, port))
        except OSError as exc:
            attempts.fail(address, exc)
        else:
            tasks.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                over = anyio.Event()
                tasks.start_soon(connect, address, over)
                with anyio.move_on_after(ATTEMPT_DELAY):
                    await over.wait()
    except BaseException:
        for stream in connected:
            await anyio.aclose_forcefully(stream)
        raise
    # Two may have answered at the same time.
    for stream in connected[1:]:
        await anyio.aclose_forcefully(stream)
    return connected[0] if connected else None


async def _connect_unix(address: ServerAddress, path: str) -> ByteStream:
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectFailed(f"no connection to {address.uri}: there are no Unix sockets here")
    try:
        return await anyio.connect_unix(path)
    except OSError as exc:
        raise ConnectFailed(f"no connection to {address.uri}: {_describe_unix(exc, path)}") from exc


def _describe_unix(exc: OSError, path: str) -> str:
    words = describe_cause(exc)
    if isinstance(exc, FileNotFoundError):
        return f"{words}: {path}. Has the server been started?"
    if isinstance(exc, PermissionError):
        return f"{words}: to write to {path}, and to enter its folder, must be allowed"
    if isinstance(exc, ConnectionRefusedError):
        return f"{words}: {path} is there, but no server listens to it any more"
    return f"{words}: {path}"


async def _secured(
    stream: ByteStream, address: ServerAddress, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    import ssl  # noqa: PLC0415 - by need

    from pie_anyio import tls  # noqa: PLC0415 - by need

    if ssl_context is None:
        # Half a megabyte of certificates is read.
        ssl_context = await anyio.to_thread.run_sync(tls.default_context)
    try:
        return await tls.client_stream(stream, ssl_context, address.server_name)
    except ssl.SSLError as exc:
        words = tls.explain(exc)
        raise ConnectFailed(f"no connection to {address.uri}: {words}") from exc
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as exc:
        words = f"the other side hung up during the TLS handshake: {describe_cause(exc)}"
        raise ConnectFailed(f"no connection to {address.uri}: {words}") from exc
    except ValueError as exc:  # a label of the name is too long, say
        words = f"no certificate can be for {address.server_name!r}: {exc}"
        raise ConnectFailed(f"no connection to {address.uri}: {words}") from exc


def _keep_send_queue_short(raw_socket: socket.socket) -> None:
    # What lies in the kernel's send queue cannot be overtaken: megabytes of an upload, by default.
    if _TCP_NOTSENT_LOWAT is not None:
        with suppress(OSError):
            raw_socket.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
