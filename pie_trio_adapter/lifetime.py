"""`open_client`: the block that a client lives in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from pie_proto import DEFAULT_LIMITS, ClientConnection, Limits
from pie_proto.addresses import ServerAddress
from pie_proto.errors import ConnectFailed
from pie_trio_adapter.client import TrioPieClient
from pie_trio_adapter.driver import Driver
from pie_trio_adapter.transport import connect_stream, parse

__all__ = ["open_client"]


@asynccontextmanager
async def open_client(
    where: str | trio.abc.Stream,
    *,
    host: str | None = None,
    target: str | None = None,
    on_notice: Callable[[str], None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[TrioPieClient]:
    """A client that lives as long as the block: ``async with open_client(where) as client:``.

    ``where`` is a URI, as ``ws://127.0.0.1:8080``, or a stream that is connected already: TLS, a
    tunnel, a pipe, memory. The client closes it in any case. For a stream, ``host`` (by default
    ``localhost``) and ``target`` (by default ``/``) are what the opening handshake asks for.
    ``on_notice`` is called with each notice that the server sends to the whole connection; it must
    return soon, and what it raises is logged.

    Raises `ConnectFailed`; `ValueError` or `TypeError` for a ``where`` that is odd. Cancel-safe:
    nothing is left open.

    Leaving the block closes the connection as `TrioPieClient.aclose` does. What the body raises
    arrives as itself and in no group, `KeyboardInterrupt` too, and the loss of the connection does
    not cancel the body. A cancellation from outside does not reach the connection before the body
    has ended: under a shield of its own, it can still say good-bye to the server.
    """
    started = trio.current_time()
    if isinstance(where, str):
        address = parse(where)
        if host is not None or target is not None:
            raise ValueError("host and target are for a stream; a URI says both")
        connection = ClientConnection(
            address.host_header, address.target, now=started, limits=limits
        )
        stream: trio.abc.Stream = await _connected(address, limits)
    elif isinstance(where, trio.abc.Stream):
        stream = where
        try:
            connection = ClientConnection(
                host or "localhost", target or "/", now=started, limits=limits
            )
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    else:
        raise TypeError(f"a ws:// URI or a trio.abc.Stream, not {type(where).__name__}")
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


async def _connected(address: ServerAddress, limits: Limits) -> trio.SocketStream:
    try:
        with trio.fail_after(limits.handshake_timeout):
            return await connect_stream(address)
    except trio.TooSlowError:
        seconds = f"{limits.handshake_timeout:g} s"
        raise ConnectFailed(f"no connection to {address.uri} within {seconds}") from None


async def _opened(driver: Driver, where: str | trio.abc.Stream) -> None:
    try:
        await driver.wait_open()
    except ConnectFailed as error:
        raise (error.at(where) if isinstance(where, str) else error) from error.__cause__
