"""`open_client`: the block that a client lives in."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from pie_files import ReceivedBlob
from pie_proto import DEFAULT_LIMITS, ClientConnection, Limits
from pie_proto.addresses import ServerAddress
from pie_proto.errors import ConnectFailed
from pie_proto.request_headers import checked_headers
from pie_trio_adapter.client import TrioPieClient
from pie_trio_adapter.driver import Driver
from pie_trio_adapter.transport import connect_stream, shake_hands

__all__ = ["open_client"]


@asynccontextmanager
async def open_client(
    where: str | trio.abc.Stream,
    *,
    host: str | None = None,
    target: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    on_notice: Callable[[str], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[TrioPieClient]:
    """A client that lives as long as the block: ``async with open_client(where) as client:``.

    ``where`` is a URI (``ws://127.0.0.1:8080``, ``wss://…`` for TLS, ``ws+unix:///path`` for a Unix
    socket) or a stream that is connected already: a tunnel, a pipe, memory, a `trio.SSLStream`. The
    client closes it in any case. For a stream, ``host`` (by default ``localhost``) and ``target``
    (by default ``/``) are what the opening handshake asks for. ``ssl_context`` says whom to trust
    with ``wss://``; by default, whom the system trusts. ``headers`` are added to the opening
    handshake. ``on_notice`` is called with each notice that the server sends to the whole
    connection; it must return soon, and what it raises is logged.

    Raises `ConnectFailed`; `ValueError` or `TypeError` for arguments that are odd or do not go
    together. Cancel-safe: nothing is left open.

    Leaving the block closes the connection as `TrioPieClient.aclose` does. What the body raises
    arrives as itself and in no group, `KeyboardInterrupt` too, and the loss of the connection does
    not cancel the body. A cancellation from outside does not reach the connection before the body
    has ended: under a shield of its own, it can still say good-bye to the server.
    """
    started = trio.current_time()
    try:
        address = _address(where, host, target, ssl_context)
        connection = ClientConnection(
            address.host_header if address is not None else host or "localhost",
            address.target if address is not None else target or "/",
            now=started,
            headers=checked_headers(headers),
            limits=limits,
            blob_type=ReceivedBlob,
        )
    except BaseException:
        if isinstance(where, trio.abc.Stream):
            await trio.aclose_forcefully(where)
        raise
    stream = await _ready(where, address, ssl_context, limits)
    driver = Driver(stream, connection, on_notice)
    client = TrioPieClient(driver)
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run, nursery.cancel_scope)
        # Nothing is raised where the nursery would see it, and put it in a group.
        try:
            await _opened(driver, where)
            yield client
        except BaseException as exc:  # noqa: BLE001 - raised again below
            raised = exc
        try:
            await client.aclose()
        except trio.Cancelled as exc:
            raised = raised or exc
        except BaseException as exc:  # noqa: BLE001 - raised again below
            raised = exc
        # An interrupt could strike while the nursery waits, and would be in a group then.
        while nursery.child_tasks:
            await trio.lowlevel.cancel_shielded_checkpoint()
    try:
        if driver.interrupt is not None:
            raise driver.interrupt
        if raised is not None:
            raise raised
    finally:
        # It refers to this frame, which is not to refer to it.
        del raised


def _address(
    where: object, host: str | None, target: str | None, ssl_context: ssl.SSLContext | None
) -> ServerAddress | None:
    """Where a URI leads; ``None`` for a stream. Refuses what does not go together."""
    if isinstance(where, trio.abc.Stream):
        if ssl_context is not None:
            raise ValueError("ssl_context is for a wss:// URI; a stream has its own")
        return None
    if not isinstance(where, str):
        raise TypeError(f"a URI or a trio.abc.Stream, not {type(where).__name__}")
    address = ServerAddress.parse(where)
    if host is not None or target is not None:
        raise ValueError("host and target are for a stream; a URI says both")
    if ssl_context is not None and not address.secure:
        raise ValueError(f"ssl_context is for wss://: {where!r} is not spoken to over TLS")
    return address


async def _ready(
    where: str | trio.abc.Stream,
    address: ServerAddress | None,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
) -> trio.abc.Stream:
    """The stream to talk over: connected, and agreed on TLS, in the time that there is for it."""
    stream = where if isinstance(where, trio.abc.Stream) else None
    try:
        with trio.fail_after(limits.handshake_timeout):
            if stream is None and address is not None:
                stream = await connect_stream(address, ssl_context)
            assert stream is not None  # noqa: S101 - it is one or the other
            await shake_hands(stream)
            return stream
    except BaseException as exc:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        name = "the server" if address is None else address.uri
        if isinstance(exc, trio.TooSlowError):
            seconds = f"{limits.handshake_timeout:g} s"
            raise ConnectFailed(f"no connection to {name} within {seconds}") from None
        if isinstance(exc, ConnectFailed) and stream is not None:
            raise exc.at(f"no connection to {name}") from exc.__cause__
        raise


async def _opened(driver: Driver, where: str | trio.abc.Stream) -> None:
    try:
        await driver.wait_open()
    except ConnectFailed as error:
        raise (error.at(where) if isinstance(where, str) else error) from error.__cause__
