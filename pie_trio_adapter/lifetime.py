"""`open_client`: the block that a client lives in."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from pie_files import ReceivedBlob
from pie_files.tls import check_context
from pie_proto import DEFAULT_LIMITS, Limits
from pie_proto.addresses import ServerAddress
from pie_proto.attempts import Attempts
from pie_proto.errors import ConnectFailed
from pie_proto.limits import DEFAULT_TIMEOUT, Timeout, timeout_of
from pie_proto.openings import Opening, openings
from pie_trio_adapter.client import TrioPieClient
from pie_trio_adapter.driver import Driver
from pie_trio_adapter.home import DeadlinePassed, run_until
from pie_trio_adapter.transport import connect_stream, shake_hands

__all__ = ["open_client"]


@asynccontextmanager
async def open_client(
    where: str | trio.abc.Stream,
    *,
    host: str | None = None,
    target: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = (),
    identity: str | None = None,
    dialect: str | None = "auto",
    on_notice: Callable[[str], None] | None = None,
    timeout: Timeout = DEFAULT_TIMEOUT,
    limits: Limits | None = None,
) -> AsyncIterator[TrioPieClient]:
    """A client that lives as long as the block: ``async with open_client(where) as client:``.

    ``where`` is a URI (``ws://127.0.0.1:8080``, ``wss://…`` for TLS, ``ws+unix:///path`` for a Unix
    socket) or a stream that is connected already: a tunnel, a pipe, memory, a `trio.SSLStream`. The
    client closes it in any case. For a stream, ``host`` (by default ``localhost``) and ``target``
    (by default where the family listens that ``dialect`` names, else ``/``) are what the opening
    handshake asks for. ``ssl_context`` says whom to trust with ``wss://``; by default, whom the
    system trusts. ``headers`` are added to the opening handshake.

    ``dialect`` is the family of the server: ``"instance"`` (0.2), ``"process-0.3"`` (0.3
    and 0.4), ``"process"`` (0.5), or by default ``"auto"``: it is found out. A URI without a path
    (or with ``/`` alone) then leads to ``/`` and, if there is nothing (HTTP 404), to ``/v1/ws``;
    with a family that is given, to where that listens; with a path, to that. A stream can be opened
    once, so one target is asked for. ``identity``, TENANT/USER, says who you are to servers 0.5,
    which have it said in the opening handshake, and take it as it is; older ones ignore it.

    ``on_notice`` is called with each notice that the server sends to the whole connection; it must
    return soon, and what it raises is logged. ``timeout``, in seconds, is for every request that
    has none of its own.

    Raises `ConnectFailed`; `ValueError` or `TypeError` for arguments that are odd or do not go
    together. Cancel-safe: nothing is left open.

    Leaving the block closes the connection as `TrioPieClient.aclose` does. What the body raises
    arrives as itself and in no group, `KeyboardInterrupt` too, and the loss of the connection does
    not cancel the body. A cancellation from outside does not reach the connection before the body
    has ended: under a shield of its own, it can still say good-bye to the server.
    """
    dialect = "auto" if dialect is None else dialect
    limits = DEFAULT_LIMITS if limits is None else limits
    try:
        timeout = timeout_of(timeout)
        address = _address(where, host, target, ssl_context)
        if address is not None:
            host, target = address.host_header, address.target
        elif dialect == "auto":
            # A stream can be opened once, whatever is found behind it.
            target = target or "/"
        ways = openings(
            target, dialect=dialect, identity=identity, headers=() if headers is None else headers
        )
    except BaseException:
        if isinstance(where, trio.abc.Stream):
            await trio.aclose_forcefully(where)
        raise
    raised: BaseException | None = None
    drivers: list[Driver] = []
    started = trio.current_time()

    async def open_way(opening: Opening) -> Driver:
        try:
            connection = opening.connection(
                host or "localhost", now=started, limits=limits, blob_type=ReceivedBlob
            )
        except BaseException:
            if isinstance(where, trio.abc.Stream):
                await trio.aclose_forcefully(where)
            raise
        stream = await _ready(where, address, ssl_context, started, limits)
        driver = Driver(stream, connection, on_notice, limits=limits, timeout=timeout)
        drivers.append(driver)
        nursery.start_soon(driver.run, nursery.cancel_scope)
        await _opened(driver, where, opening)
        return driver

    async with trio.open_nursery() as nursery:
        # Nothing is raised where the nursery would see it, and put it in a group.
        try:
            yield TrioPieClient(await _first_open(ways, open_way))
        except BaseException as exc:  # noqa: BLE001 - raised again below
            raised = exc
        try:
            # Those before it have ended, or they would not have led on.
            if drivers:
                await TrioPieClient(drivers[-1]).aclose()
        except trio.Cancelled as exc:
            raised = raised or exc
        except BaseException as exc:  # noqa: BLE001 - raised again below
            raised = exc
        # An interrupt could strike while the nursery waits, and would be in a group then.
        while nursery.child_tasks:
            await trio.lowlevel.cancel_shielded_checkpoint()
    try:
        _raise_first(*(driver.interrupt for driver in drivers), raised)
    finally:
        # It refers to this frame, which is not to refer to it.
        del raised


def _raise_first(*exceptions: BaseException | None) -> None:
    for exc in exceptions:
        if exc is not None:
            raise exc


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
    if ssl_context is not None:
        check_context(ssl_context, address)
    return address


async def _ready(
    where: str | trio.abc.Stream,
    address: ServerAddress | None,
    ssl_context: ssl.SSLContext | None,
    started: float,
    limits: Limits,
) -> trio.abc.Stream:
    """The stream to talk over: connected, and agreed on TLS, in the time that there is for it."""
    stream = where if isinstance(where, trio.abc.Stream) else None
    attempts = Attempts("" if address is None else address.host)

    async def connect() -> trio.abc.Stream:
        nonlocal stream
        if stream is None and address is not None:
            stream = await connect_stream(address, ssl_context, attempts)
        assert stream is not None  # noqa: S101 - it is one or the other
        await shake_hands(stream)
        return stream

    try:
        return await run_until(started + limits.handshake_timeout, connect)
    except BaseException as exc:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        name = "the server" if address is None else address.uri
        if isinstance(exc, DeadlinePassed):
            seconds = f"{limits.handshake_timeout:g} s"
            text = f"no connection to {name} within {seconds}{attempts.so_far}"
            raise ConnectFailed(text) from None
        if isinstance(exc, ConnectFailed) and stream is not None:
            raise exc.at(f"no connection to {name}") from exc.__cause__
        raise


async def _first_open(
    ways: Sequence[Opening], open_way: Callable[[Opening], Awaitable[Driver]]
) -> Driver:
    """Try each way until one leads somewhere."""
    *others, last = ways
    for opening in others:
        try:
            return await open_way(opening)
        except ConnectFailed as error:
            if not opening.leads_on(error):
                raise
    return await open_way(last)


async def _opened(driver: Driver, where: str | trio.abc.Stream, opening: Opening) -> None:
    try:
        await driver.wait_open()
    except ConnectFailed as error:
        named = error.at(opening.named(where)) if isinstance(where, str) else error
        raise named from error.__cause__
