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

from pie_anyio.lifetime import Background, uninterrupted
from pie_anyio.server.catalog import Catalog
from pie_anyio.server.connection import Connection
from pie_anyio.server.instances import Instances
from pie_anyio.server.program_folder import ProgramFolder
from pie_anyio.server.requests import Premises
from pie_anyio.server.runner_limits import RunnerLimits
from pie_anyio.server.store import ProgramStore, Registry
from pie_anyio.server.unix_socket import unix_listener
from pie_anyio.server.users import Users
from pie_anyio.server.users_file import UsersFile
from pie_proto.addresses import ServerAddress
from pie_proto.dialects import Dialect, ProgramsBy
from pie_proto.families import family_named
from pie_proto.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import ssl

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


_LOCAL_HOST: Final = "127.0.0.1"

# To who speaks plain HTTP where TLS is spoken.
_TLS_ONLY: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks TLS: connect to wss://\n"
)


def serve(  # noqa: PLR0913 - each has a default, and all but two are named
    host: str | None = _LOCAL_HOST,
    port: int | None = 0,
    *,
    dialect: str | Dialect | None = "instance",
    unix_path: str | os.PathLike[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    authorized_keys: Mapping[str, str | Iterable[str]] | None = None,
    users: str | os.PathLike[str] | None = None,
    internal_token: str | None = None,
    registry: str | os.PathLike[str] | None = None,
    programs: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
    runner_limits: RunnerLimits | None = None,
    compile_cache: bool | None = True,
) -> Server:
    """An embedded Pie server, which serves from ``async with`` on and is gone when that is left.

    ::

        async with serve() as server, PieClient(server.url) as client:
            ...

    It really runs programs, without a model, one thread each. For development and tests: **it is
    no sandbox for hostile programs**, which run in this process, and bounds no client's share of
    memory.

    ``dialect`` is the family of servers that it speaks like: ``"instance"`` (0.2),
    ``"process"`` (0.5) or ``"process-0.3"`` (0.3 to 0.4), see `pie_proto.families`.

    ``port`` 0 takes a free one. ``unix_path`` listens on a Unix socket instead, whose file is gone
    afterwards; one left behind by a server is replaced. ``ssl_context``, with a certificate loaded,
    has clients speak TLS (``wss://``). ``authorized_keys`` gives each user's public keys, in the
    form of OpenSSH's file of that name (as one text, or several); ``users`` is a TOML file of them
    instead, which is followed when it changes. Without either, authentication is off and any user
    name does (pages of web sites, which any browser here may have open, are turned away).
    ``internal_token`` lets its bearer in as the user ``internal``. ``registry`` is a folder of
    programs to be launched by name, see `Registry`; ``programs`` one in which uploaded programs
    outlive the server, made if it is not there. ``limits`` bounds each connection,
    ``runner_limits`` each instance and their number. ``compile_cache`` keeps compiled code on disk.

    Raises `ValueError` for a dialect that is none, for a folder that is none, for a file of users
    that is not understood, for arguments that do not go together with each other or the dialect,
    and (when it is entered) for a ``host`` that others can reach while authentication is off;
    `KeyFormatError`, which names the user, for keys that are not understood; `OSError` for a file
    of users that cannot be read, a folder that cannot be made, and an address that cannot be
    listened on; `ModuleNotFoundError` without the extra ``pie-anyio[server]``.

    Leaving it terminates all instances, tells clients (code 1001, half a second for all of them to
    part), and waits for the threads, shielded from cancellation; a program that is being compiled
    cannot be stopped and is waited for. On asyncio it may be entered in one task and left in
    another, as test fixtures do.
    """
    host = _LOCAL_HOST if host is None else host
    port = port or 0
    dialect = "instance" if dialect is None else dialect
    if unix_path is not None and (ssl_context is not None or (host, port) != (_LOCAL_HOST, 0)):
        raise ValueError("on a Unix socket there is no host, no port and no TLS: leave them out")
    if users is not None and authorized_keys is not None:
        raise ValueError("users and authorized_keys both say who may connect: give one of them")
    family = family_named(dialect) if isinstance(dialect, str) else dialect
    abilities = family.capabilities
    if not abilities.proof and (users is not None or authorized_keys is not None):
        raise ValueError(
            f"servers {abilities.servers} take a user at their word, keys or not: leave out users "
            "and authorized_keys"
        )
    if not abilities.tokens and internal_token is not None:
        raise ValueError(f"servers {abilities.servers} know no internal token: leave it out")
    return Server(
        host,
        port,
        dialect=family,
        unix_path=None if unix_path is None else os.path.abspath(unix_path),  # noqa: PTH100
        ssl_context=ssl_context,
        users=Users(authorized_keys, internal_token, None if users is None else UsersFile(users)),
        registry=None if registry is None else Registry(registry),
        folder=None if programs is None else ProgramFolder(programs),
        limits=SERVER_LIMITS if limits is None else limits,
        runner_limits=runner_limits,
        compile_cache=compile_cache is not False,
    )


class Server:
    """An embedded server; made by `serve`. To be entered once."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        dialect: Dialect,
        unix_path: str | None,
        ssl_context: ssl.SSLContext | None,
        users: Users,
        registry: Registry | None,
        folder: ProgramFolder | None,
        limits: Limits,
        runner_limits: RunnerLimits | None,
        compile_cache: bool,
    ) -> None:
        self._host = host
        self._requested_port = port
        self._dialect = dialect
        self._unix_path = unix_path
        self._ssl_context = ssl_context
        self._users = users
        self._registry = registry
        self._folder = folder
        self._limits = limits
        self._runner_limits = runner_limits
        self._compile_cache = compile_cache
        self._connections: set[Connection] = set()
        self._address: tuple[str, int] | None = None
        self._leave: anyio.Event | None = None
        self._background: Background | None = None
        self._parted = anyio.Event()
        self._admit: Callable[[ByteStream], None] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.url if self._address else 'not entered'}>"

    @property
    def url(self) -> str:
        """The URL to connect to, as ``ws://127.0.0.1:43211``."""
        host, port = self._entered()
        if self._unix_path is not None:
            return ServerAddress.of_socket(self._unix_path).uri
        scheme = "ws" if self._ssl_context is None else "wss"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        port = self._entered()[1]
        if self._unix_path is not None:
            raise RuntimeError("the server listens on a Unix socket: it has no port")
        return port

    async def connect(self) -> ByteStream:
        """A new connection to this server in memory, without a socket and without TLS.

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

    @uninterrupted
    async def __aenter__(self) -> Self:
        if self._leave is not None:
            raise RuntimeError("a server is entered once: make another with serve()")
        self._leave = anyio.Event()
        self._background = Background()
        await self._background.start(self._live, "embedded Pie server")
        return self

    @uninterrupted
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._leave is not None  # noqa: S101
        assert self._background is not None  # noqa: S101
        self._leave.set()
        try:
            await self._background.join()
        finally:
            await self._background.leave()

    # ------------------------------------------------------------------------------------ the life

    async def _live(self, *, task_status: TaskStatus[None]) -> None:
        async with AsyncExitStack() as stack:
            await self._check_host()
            runner = await to_thread.run_sync(self._new_runner)
            stack.callback(runner.close)
            from pie_anyio.server.runner import Execution, ProgramError  # noqa: PLC0415 - wasmtime

            if self._folder is not None:
                await to_thread.run_sync(self._folder.make)
            listeners = await self._listen(stack)
            abilities = self._dialect.capabilities
            instances = Instances(partial(Execution, runner), runner.limits, abilities)
            names = self._folder if abilities.programs_by is ProgramsBy.NAME else None
            premises = Premises(
                dialect=self._dialect,
                users=self._users,
                programs=ProgramStore(runner.compile, self._folder),
                catalog=Catalog(names),
                registry=self._registry,
                instances=instances,
                program_error=ProgramError,
            )
            async with anyio.create_task_group() as tasks:

                def admit(stream: ByteStream) -> None:
                    tasks.start_soon(self._serve, stream, premises)

                def receive(stream: ByteStream) -> None:
                    if self._ssl_context is None:
                        admit(stream)
                    else:
                        tasks.start_soon(self._secure, stream, self._ssl_context, premises)

                self._admit = admit
                try:
                    for listener in listeners:
                        tasks.start_soon(self._accept, listener, receive)
                    task_status.started()
                    assert self._leave is not None  # noqa: S101
                    await self._leave.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        for listener in listeners:
                            await listener.aclose()
                        await instances.aclose()
                        await self._part()
                        if (ticker := runner.interrupter.ticker) is not None:
                            # Its work is done, and it is about to find that out.
                            await to_thread.run_sync(ticker.join)
                        tasks.cancel_scope.cancel()

    async def _listen(self, stack: AsyncExitStack) -> Sequence[SocketListener]:
        if self._unix_path is not None:
            private = self._users.open
            listener = await stack.enter_async_context(
                unix_listener(self._unix_path, private=private)
            )
            self._address = (self._unix_path, 0)
            return [listener]
        multi = await anyio.create_tcp_listener(
            local_host=self._host, local_port=self._requested_port
        )
        await stack.enter_async_context(multi)
        listeners = cast("Sequence[SocketListener]", multi.listeners)
        address = listeners[0].extra(SocketAttribute.local_address)
        self._address = (_connectable(str(address[0])), int(address[1]))
        return listeners

    async def _check_host(self) -> None:
        """Refuse to let everybody who can reach this machine run programs on it."""
        if not self._users.open or self._unix_path is not None:
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
                    "run programs here: listen on 127.0.0.1, or give authorized_keys or users"
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
        receive: Callable[[ByteStream], None],
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
            receive(stream)

    async def _secure(
        self, stream: ByteStream, context: ssl.SSLContext, premises: Premises
    ) -> None:
        """Agree with a client on TLS, in the time that it has for the whole opening, and serve."""
        import ssl  # noqa: PLC0415 - by need

        from pie_anyio.tls import server_stream  # noqa: PLC0415 - by need

        secured = None
        try:
            with anyio.move_on_after(self._limits.handshake_timeout):
                try:
                    secured = await server_stream(stream, context)
                except ssl.SSLError as exc:
                    _log.debug("a client's TLS handshake failed: %s", exc)
                    if exc.reason == "HTTP_REQUEST":
                        await stream.send(_TLS_ONLY)
                        await stream.send_eof()
        except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as exc:
            _log.debug("a client went before TLS was agreed on: %s", exc)
        finally:
            if secured is None:
                with anyio.CancelScope(shield=True):
                    await anyio.aclose_forcefully(stream)
        if secured is not None:
            await self._serve(secured, premises)

    async def _serve(self, stream: ByteStream, premises: Premises) -> None:
        connection = Connection(stream, premises, self._limits)
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
