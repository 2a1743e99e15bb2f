"""The embedded server: where it listens, whom it accepts, and how all of it comes to an end."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

import anyio
from anyio import to_thread
from anyio.abc import ByteStream, SocketAttribute, SocketListener, TaskStatus
from anyio.streams.buffered import BufferedByteStream
from anyio.streams.stapled import StapledObjectStream

from pie_anyio.server.connection import Connection
from pie_anyio.server.home import Home
from pie_anyio.server.instances import Instances
from pie_anyio.server.requests import Premises
from pie_anyio.server.runner_limits import RunnerLimits
from pie_anyio.server.store import ProgramStore, Registry
from pie_anyio.server.users import Users
from pie_proto.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from pie_anyio.server.runner import Runner

__all__ = ["SERVER_LIMITS", "Server", "serve"]

_log = logging.getLogger(__name__)

SERVER_LIMITS: Final = replace(DEFAULT_LIMITS, keepalive_interval=None)
"""The limits of the core, without keepalive: a client whose user does not read is slow, not dead,
and does not answer a ping until that is over. TCP tells when a local client is gone."""

# How long clients may take to part when the server closes, all at once.
_PARTING_S: Final = 0.5

# How long to wait when a connection cannot be accepted (too many files are open).
_ACCEPT_PAUSE_S: Final = 0.1


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    authorized_keys: Mapping[str, str | Iterable[str]] | None = None,
    internal_token: str | None = None,
    registry: str | os.PathLike[str] | None = None,
    limits: Limits = SERVER_LIMITS,
    runner_limits: RunnerLimits | None = None,
    compile_cache: bool = True,
) -> Server:
    """An embedded Pie server, which serves from ``async with`` on and is gone when that is left.

    ::

        async with serve() as server, PieClient(server.url) as client:
            ...

    It speaks the dialect of servers 0.1 to 0.2 and really runs programs, without a model, one
    thread each. For development and tests: **it is no sandbox for hostile programs**, which run
    in this process, and bounds no client's share of memory.

    ``port`` 0 takes a free one. ``authorized_keys`` gives each user's public keys, in the form of
    OpenSSH's file of that name (as one text, or several); without it authentication is off and any
    user name does (pages of web sites, which any browser here may have open, are turned away).
    ``internal_token`` lets its bearer in as the user ``internal``. ``registry`` is a folder of
    programs to be launched by name, see `Registry`. ``limits`` bounds each connection,
    ``runner_limits`` each instance. ``compile_cache`` keeps compiled code on disk.

    Raises `ValueError` for a registry that is no folder, and (when it is entered) for a ``host``
    that others can reach while authentication is off; `KeyFormatError`, which names the user, for
    keys that are not understood; `OSError` for an address that cannot be listened on;
    `ModuleNotFoundError` without the extra ``pie-anyio[server]``.

    Leaving it terminates all instances, tells clients (code 1001, half a second for all of them to
    part), and waits for the threads, shielded from cancellation; a program that is being compiled
    cannot be stopped and is waited for. On asyncio it may be entered in one task and left in
    another, as test fixtures do.
    """
    return Server(
        host,
        port,
        users=Users(authorized_keys, internal_token),
        registry=None if registry is None else Registry(registry),
        limits=limits,
        runner_limits=runner_limits,
        compile_cache=compile_cache,
    )


class Server:
    """An embedded server; made by `serve`. To be entered once."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        users: Users,
        registry: Registry | None,
        limits: Limits,
        runner_limits: RunnerLimits | None,
        compile_cache: bool,
    ) -> None:
        self._host = host
        self._requested_port = port
        self._users = users
        self._registry = registry
        self._limits = limits
        self._runner_limits = runner_limits
        self._compile_cache = compile_cache
        self._connections: set[Connection] = set()
        self._address: tuple[str, int] | None = None
        self._leave: anyio.Event | None = None
        self._home: Home | None = None
        self._parted = anyio.Event()
        self._admit: Callable[[ByteStream], None] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.url if self._address else 'not entered'}>"

    @property
    def url(self) -> str:
        """The URL to connect to, as ``ws://127.0.0.1:43211``."""
        host, port = self._entered()
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._entered()[1]

    async def connect(self) -> ByteStream:
        """A new connection to this server in memory, without a socket.

        For tests and embedding: ``PieClient(server.url, connect=server.connect)``.
        """
        self._entered()
        assert self._admit is not None  # noqa: S101 - set before the address
        ours, theirs = _stream_pair()
        self._admit(ours)
        return theirs

    def _entered(self) -> tuple[str, int]:
        if self._address is None:
            raise RuntimeError("the server listens inside of `async with` only")
        return self._address

    async def __aenter__(self) -> Self:
        if self._leave is not None:
            raise RuntimeError("a server is entered once: make another with serve()")
        self._leave = anyio.Event()
        self._home = Home()
        await self._home.start(self._live)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._leave is not None  # noqa: S101
        assert self._home is not None  # noqa: S101
        self._leave.set()
        await self._home.wait()

    # ------------------------------------------------------------------------------------ the life

    async def _live(self, *, task_status: TaskStatus[None]) -> None:
        async with AsyncExitStack() as stack:
            await self._check_host()
            runner = await to_thread.run_sync(self._new_runner)
            stack.callback(runner.close)
            from pie_anyio.server.runner import Execution, ProgramError  # noqa: PLC0415 - wasmtime

            multi = await anyio.create_tcp_listener(
                local_host=self._host, local_port=self._requested_port
            )
            await stack.enter_async_context(multi)
            listeners = cast("Sequence[SocketListener]", multi.listeners)
            address = listeners[0].extra(SocketAttribute.local_address)
            self._address = (_connectable(str(address[0])), int(address[1]))
            instances = Instances(partial(Execution, runner))
            premises = Premises(
                users=self._users,
                programs=ProgramStore(runner.compile),
                registry=self._registry,
                instances=instances,
                program_error=ProgramError,
            )
            async with anyio.create_task_group() as tasks:

                def admit(stream: ByteStream) -> None:
                    tasks.start_soon(self._serve, Connection(stream, premises, self._limits))

                self._admit = admit
                try:
                    for listener in listeners:
                        tasks.start_soon(self._accept, listener, admit)
                    task_status.started()
                    assert self._leave is not None  # noqa: S101
                    await self._leave.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await multi.aclose()
                        await instances.aclose()
                        await self._part()
                        if (ticker := runner.interrupter.ticker) is not None:
                            # Its work is done, and it is about to find that out.
                            await to_thread.run_sync(ticker.join)
                        tasks.cancel_scope.cancel()

    async def _check_host(self) -> None:
        """Refuse to let everybody who can reach this machine run programs on it."""
        if not self._users.open:
            return
        found = await anyio.getaddrinfo(
            self._host,
            self._requested_port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,  # as for listening
        )
        for *_, address in found:
            if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
                raise ValueError(
                    f"with authentication off, whoever reaches {self._host} ({address[0]}) could "
                    "run programs here: listen on 127.0.0.1, or give authorized_keys"
                )

    def _new_runner(self) -> Runner:
        try:
            from pie_anyio.server.runner import Runner  # noqa: PLC0415 - wasmtime, by need
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "wasmtime":
                raise
            raise ModuleNotFoundError(
                "the embedded server runs programs with wasmtime, which is not installed: "
                "pip install 'pie-anyio[server]'",
                name=error.name,
            ) from error
        return Runner(limits=self._runner_limits, cache=self._compile_cache)

    async def _accept(
        self,
        listener: SocketListener,
        admit: Callable[[ByteStream], None],
    ) -> None:
        while True:
            try:
                stream = await listener.accept()
            except anyio.ClosedResourceError:
                return
            except OSError:
                _log.exception("a connection could not be accepted")
                await anyio.sleep(_ACCEPT_PAUSE_S)
                continue
            admit(stream)

    async def _serve(self, connection: Connection) -> None:
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._parted.set()

    async def _part(self) -> None:
        """Tell all clients that it is over, and give them a moment to hear it."""
        self._parted = anyio.Event()
        for connection in list(self._connections):
            connection.close(1001, "the server is closing")
        if self._connections:
            with anyio.move_on_after(_PARTING_S):
                await self._parted.wait()


def _stream_pair() -> tuple[ByteStream, ByteStream]:
    """Two byte streams, each the other end of the other; what is sent waits to be received."""
    a_to_b_send, a_to_b_receive = anyio.create_memory_object_stream[bytes]()
    b_to_a_send, b_to_a_receive = anyio.create_memory_object_stream[bytes]()
    return (
        BufferedByteStream(StapledObjectStream(a_to_b_send, b_to_a_receive)),
        BufferedByteStream(StapledObjectStream(b_to_a_send, a_to_b_receive)),
    )


def _connectable(host: str) -> str:
    """An address to connect to, of one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a comparison
