"""`PieClient`, a connection to a Pie server, for asyncio and trio programs."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream

from pie_anyio.driver import Driver, Progress
from pie_anyio.home import DeadlinePassed, run_until
from pie_anyio.instance import Instance
from pie_anyio.lifetime import Background, on_asyncio, uninterrupted
from pie_anyio.proxy import proxy_for
from pie_anyio.sources import open_content
from pie_anyio.threads import in_thread
from pie_anyio.transport import Connector
from pie_files import ReceivedBlob, UploadContent
from pie_proto import (
    DEFAULT_LIMITS,
    ConnectionState,
    Limits,
    Signer,
    Statistics,
)
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.addresses import ServerAddress
from pie_proto.dialects import Capabilities
from pie_proto.errors import ConnectFailed, LocalProtocolError, key_wanted
from pie_proto.instance_view import arguments_of, input_of
from pie_proto.keys import KEY_NOT_USED, check_signer
from pie_proto.limits import DEFAULT_TIMEOUT, Timeout, timeout_of
from pie_proto.openings import Opening, openings

if TYPE_CHECKING:
    import ssl

__all__ = ["PieClient"]

_log = logging.getLogger("pie_anyio")


class PieClient:
    """A connection to a Pie server.

    Use it as ``async with PieClient("ws://127.0.0.1:8080") as client:``. On asyncio it may also be
    opened with `connect` and closed with `aclose`, from different tasks. One client is one
    connection, once; any number of tasks of one event loop may use it at the same time. In another
    thread or event loop, every method raises `LocalProtocolError` at once.

    Nothing here swallows a cancellation, and after any the connection is right: every method says
    what its own means. Once the connection is over, every method raises `ConnectionLost` (or
    `RemoteProtocolError`, if the server broke the protocol), after events already received were
    read. A method that does not fit the state raises `LocalProtocolError`, and nothing was sent.

    A method with ``timeout=`` raises `RequestTimeout` if the server does not answer within so many
    seconds. Without it, the ``timeout`` of the client holds; without that, 60 s for requests that
    servers answer at once, 300 s for launches and for the answer to an upload
    (`Limits.request_timeout`, `Limits.launch_timeout`). ``None`` means: wait for ever. A late
    answer is dropped, and what it made is undone as after a cancellation.
    """

    def __init__(
        self,
        server_uri: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = (),
        identity: str | None = None,
        dialect: str | None = "auto",
        connect: Callable[[], Awaitable[ByteStream]] | None = None,
        on_notice: Callable[[str], None] | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
        limits: Limits | None = None,
    ) -> None:
        """Name the server, as in ``ws://127.0.0.1:8080``. Raises `ValueError` for an odd URI,
        header or proxy, and for arguments that do not go together.

        Taken are ``ws://``, ``wss://`` (TLS), and ``ws+unix:///path`` (a Unix socket; the path is
        percent-encoded). ``ssl_context`` says whom to trust with ``wss://``; by default, whom the
        system trusts. ``proxy`` is the URI of an HTTP proxy, ``http://[user:password@]host:port``,
        or ``"environment"``: what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say. ``headers``
        are added to the opening handshake.

        ``dialect`` is the family of the server: ``"instance"`` (0.2), ``"process-0.3"``
        (0.3 and 0.4), ``"process"`` (0.5), or by default ``"auto"``: it is found out. A URI without
        a path (or with ``/`` alone) then leads to ``/`` and, if there is nothing (HTTP 404), to
        ``/v1/ws``; with a family that is given, to where that listens; with a path, to that.
        ``identity``, TENANT/USER, says who you are to servers 0.5, which have it said in the
        opening handshake, and take it as it is; older ones ignore it.

        ``connect``, an async function, opens the byte stream to talk over, in place of all that: a
        tunnel, a proxy of another kind, or in memory. The client closes it, and puts nothing on
        top, no TLS either: the URI then says only what the opening handshake asks for. It is called
        a second time where there is a second path to ask for.

        ``on_notice`` is called with each notice that the server sends to the whole connection. It
        must return soon; what it raises is logged. Notices are logged (``pie_anyio``) in any case.

        ``timeout``, in seconds, is for every request that has none of its own.
        """
        limits = DEFAULT_LIMITS if limits is None else limits
        self._address = ServerAddress.parse(server_uri)
        self._timeout = timeout_of(timeout)
        self._openings = openings(
            self._address.target,
            dialect="auto" if dialect is None else dialect,
            identity=identity,
            headers=() if headers is None else headers,
        )
        if ssl_context is not None:
            from pie_files.tls import check_context  # noqa: PLC0415 - only if needed

            check_context(ssl_context, self._address)
        if connect is not None and (ssl_context is not None or proxy is not None):
            raise ValueError(
                "connect= opens the stream to talk over: ssl_context= and proxy= do not go with it"
            )
        self._connector = Connector(
            self._address,
            ssl_context=ssl_context,
            proxy=None if proxy is None else proxy_for(self._address, proxy),
            limits=limits,
        )
        self._connect_stream = connect or self._connector.connect
        self._on_notice = on_notice
        self._limits = limits
        self._driver: Driver | None = None
        self._background: Background | None = None
        self._used = False

    # ------------------------------------------------------------------------------------ lifetime

    @uninterrupted
    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    @uninterrupted
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.aclose()
        finally:
            await self._leave()

    async def connect(self) -> None:
        """Open the connection outside an ``async with``; on asyncio only. Close it with `aclose`.

        Raises `ConnectFailed`. Cancel-safe: nothing is left open.
        """
        if not on_asyncio():
            raise LocalProtocolError(
                "connect() works on asyncio only: on trio, 'async with' is the client's scope"
            )
        await self._connect()

    async def _connect(self) -> None:
        if self._used:
            raise LocalProtocolError("a PieClient connects once: make a new one")
        self._used = True
        started = anyio.current_time()
        for opening in self._openings:
            # What this raises is no answer of the server's, whatever it says: a proxy's, perhaps.
            stream = await self._stream(started + self._limits.handshake_timeout)
            try:
                await self._open(opening, stream, started)
            except ConnectFailed as exc:
                if not opening.leads_on(exc):
                    raise
            else:
                return

    async def _stream(self, deadline: float) -> ByteStream:
        try:
            return await run_until(deadline, self._connect_stream)
        except DeadlinePassed:
            raise self._connector.timed_out() from None

    async def _open(self, opening: Opening, stream: ByteStream, started: float) -> None:
        try:
            connection = opening.connection(
                self._address.host_header, now=started, limits=self._limits, blob_type=ReceivedBlob
            )
        except BaseException:  # a host that cannot stand in a request
            await anyio.aclose_forcefully(stream)
            raise
        driver = self._driver = Driver(
            stream, connection, self._on_notice, limits=self._limits, timeout=self._timeout
        )
        self._background = Background()
        await self._background.start(driver.run, f"PieClient {self._address.uri}")
        try:
            await driver.wait_open()
        except BaseException as exc:
            driver.cancel()
            await self._background.join()
            await self._leave()
            if isinstance(exc, ConnectFailed):
                raise exc.at(opening.named(self._address.uri)) from exc.__cause__
            raise

    async def aclose(self) -> None:
        """Close the connection; whoever still waits on it gets `ConnectionLost`. Idempotent.

        Messages accepted before are sent. Bounded by ``limits.close_timeout``, also with unread
        events and with a server that does not answer. Cancelled, it closes at once, and the
        cancellation goes on.
        """
        driver, background = self._driver, self._background
        if driver is None or background is None:
            await anyio.lowlevel.checkpoint()
            return
        driver.home.check("this client")
        try:
            driver.dispatcher.close(anyio.current_time())
            await driver.finished.wait()
        finally:
            driver.cancel()
            await background.join()

    async def _leave(self) -> None:
        if self._background is not None:
            await self._background.leave()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, as far as is known."""
        driver = self._driver
        return driver is not None and driver.connection.state is ConnectionState.OPEN

    def statistics(self) -> Statistics:
        """The numbers of this connection, as of now."""
        return self._connected().connection.statistics()

    @property
    def server(self) -> Capabilities | None:
        """What the server is and what it can do; ``None`` until it has said so.

        That is with `authenticate`, where its family is not given by ``dialect``.
        """
        return self._connected().connection.server

    @property
    def authentication(self) -> str | None:
        """How the server came to accept the user; ``None`` before it has.

        ``"proved"``: the user signed a challenge. ``"token"``: by the internal token.
        ``"asserted"``: the server takes any name, and asks for no proof.
        """
        how = self._connected().connection.authentication
        return None if how is None else how.value

    # ------------------------------------------------------------------------------ authentication

    async def authenticate(
        self,
        username: str,
        private_key: Signer | None = None,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> None:
        """Say who you are, and prove it with ``private_key`` if the server asks for proof.

        Any `Signer` will do: a key, an agent, a smart card. One that blocks is called in a worker
        thread. Raises `AuthenticationError` if the server does not accept the user, or wants a
        proof and there is no key; `RequestTimeout` if it does not answer within ``timeout`` seconds
        (by default ``limits.authentication_timeout``). After a rejection, a timeout, a cancellation
        or a failing signer the connection is of no more use, and is closed. A connection has one
        user: to authenticate it again as the same does nothing, as another is an
        `AuthenticationError`.

        How the user was accepted, `authentication` tells. A key given to a server that asks for no
        proof is warned of in the log, once.
        """
        check_signer(private_key)
        again = self.authentication is not None
        outcome = await self._request(c.Identify(username), timeout=timeout)
        if isinstance(outcome, e.ChallengeReceived):
            try:
                if private_key is None:
                    raise key_wanted(username)
                signature = await _sign(private_key, outcome.challenge)
                await self._request(c.AnswerChallenge(signature), timeout=timeout)
            except BaseException:
                # Nothing but the answer to this challenge may be sent now, and there is none.
                self._connected().dispatcher.close(anyio.current_time())
                raise
        elif private_key is not None and not again:
            _log.warning(KEY_NOT_USED)

    async def internal_authenticate(
        self, token: str, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> None:
        """Authenticate with the server's internal token; a wrong one is answered late.

        Servers 0.5 know none. Raises `AuthenticationError`; `RequestTimeout` after ``timeout``
        seconds. Cancelled, it closes the connection.
        """
        await self._request(c.AuthenticateWithToken(token), timeout=timeout)

    # ------------------------------------------------------------------------------------- programs

    async def upload_program(
        self,
        program: UploadContent,
        /,
        *,
        manifest: str | None = None,
        progress: Progress | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> str:
        """Upload a program; returns its hash, by which it is launched.

        ``program`` is the content (``bytes``, ``bytearray``, ``memoryview``: not copied, and not to
        be changed meanwhile) or the path of a file, which is read piece by piece.
        ``progress(sent, size)`` is called in this task, in bytes.

        ``manifest`` is for servers that know programs by name (0.3 and later; older ones take
        none): TOML text with the name and version of the program, and for source text with its
        language. It takes the place of what had that name and version. The program is then
        launched by its name, and by this client by its hash as well. Without one, or where it
        names nothing, the program is called after its hash, and any client finds it by that.
        Source text cannot be without.

        ``timeout`` bounds the time without progress, and then the wait for the answer: by default
        60 s and 300 s, since servers may compile the program first.

        Raises `UploadFailed`, also for a file that changes meanwhile; `RequestTimeout`;
        `LocalProtocolError` for a manifest that names no program as servers want it, and for
        content that needs one or is over the server's limit. Cancelled, it takes back what was
        sent, and the next upload is right.
        """
        driver = self._connected()
        announced = c.UploadProgram(size=0, hash="", manifest=manifest)
        with await open_content(program, announced, driver.connection.server) as content:
            await driver.upload(content, progress, timeout)
        return content.hash

    async def program_exists(
        self,
        hash: str,  # noqa: A002 - the guide's name
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> bool:
        """Whether the server has the program with this hash. Cancel-safe.

        Servers that know programs by name (0.3 and later) are asked for ``name@major.minor.patch``
        as well. There, a hash finds what was uploaded without a name, or by this client. Servers
        0.5 also say yes of a program that they could not compile.
        """
        outcome = await self._connected().expect(
            c.ProgramExists(hash), e.ProgramExistsAnswered, timeout=timeout
        )
        return outcome.exists

    # ------------------------------------------------------------------------------------ instances

    async def launch_instance(
        self,
        hash: str,  # noqa: A002 - the guide's name
        args: Sequence[str] | None = (),
        detached: bool | None = False,
        *,
        input: Mapping[str, object] | None = None,  # noqa: A002 - what it is called
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Instance:
        """Launch the uploaded program with this hash.

        Attached, its events come to this client. ``detached``, it runs on its own, and its output
        is kept until somebody attaches it (servers 0.3 and later keep none). Servers 0.3 and later
        give programs an object: ``input``, a mapping that JSON can say, or what ``args`` mean:
        ``["--prompt", "Hi", "--n", "3"]`` is ``{"prompt": "Hi", "n": 3}``. Older ones give them
        ``args``, and take no ``input``.

        Those later servers do not say which instance a detached launch has made. It is found in
        their list of instances, one launch at a time; so `LaunchFailed` may then also mean that it
        was launched and has ended before it was seen, or, with the ids, that others are new which
        could be it.

        Raises `LaunchFailed`; `LocalProtocolError` for arguments that mean no object to a server
        that wants one. Cancelled, an instance that was launched attached all the same is
        terminated; one launched detached runs on.
        """
        command = c.LaunchInstance(
            hash=hash,
            arguments=arguments_of(args),
            detached=detached or False,
            input=input_of(input),
        )
        return await self._launch(command, timeout)

    async def launch_instance_from_registry(
        self,
        name: str,
        args: Sequence[str] | None = (),
        detached: bool | None = False,
        *,
        input: Mapping[str, object] | None = None,  # noqa: A002 - what it is called
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Instance:
        """Launch a program that has a name: ``name``, ``name@version``, ….

        It is in the server's registry or, on servers 0.3 and later, was uploaded under that name.
        As `launch_instance` in everything else.
        """
        command = c.LaunchFromRegistry(
            name=name,
            arguments=arguments_of(args),
            detached=detached or False,
            input=input_of(input),
        )
        return await self._launch(command, timeout)

    async def _launch(
        self, command: c.LaunchInstance | c.LaunchFromRegistry, timeout: Timeout
    ) -> Instance:
        outcome = await self._connected().expect(command, e.Launched, timeout=timeout)
        return Instance(self._connected(), outcome.instance_id, detached=outcome.detached)

    async def launch_server_instance(
        self,
        hash: str,  # noqa: A002 - as for the other launches
        port: int,
        args: Sequence[str] | None = (),
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> None:
        """Launch the uploaded program with this hash as a server of its own on ``port``.

        It has no instance here. Servers 0.3 and later launch none: `LocalProtocolError`. Raises
        `LaunchFailed`; the embedded server declines. Cancelled, the program may run all the same.
        """
        command = c.LaunchServerInstance(hash=hash, port=port, arguments=arguments_of(args))
        await self._request(command, timeout=timeout)

    async def attach_instance(
        self, instance_id: str, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> Instance:
        """Take over a detached instance: its buffered output, then what it does from here on.

        Servers 0.3 and later have no output buffered, and end the instance with the connection that
        it is attached to. Do not try one that is attached elsewhere: servers 0.5 refuse, and end it
        when *this* connection ends.

        Raises `AttachFailed`. Cancelled, an instance that is attached all the same cannot be
        given back; its events are dropped.
        """
        await self._connected().expect(c.AttachInstance(instance_id), e.Attached, timeout=timeout)
        return Instance(self._connected(), instance_id, detached=False)

    async def list_instances(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> list[e.InstanceInfo]:
        """The user's instances that run, or have finished and were not claimed. Cancel-safe.

        Servers 0.3 and later list none that has finished, and servers 0.5 list everybody's.
        """
        outcome = await self._connected().expect(
            c.ListInstances(), e.InstancesListed, timeout=timeout
        )
        return list(outcome.instances)

    async def terminate_instance(
        self, instance_id: str, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> None:
        """Terminate an instance, attached or not; unread output of it is dropped, its end is not.

        Servers 0.5 let anybody terminate any; servers 0.3 and later refuse one that is not there.
        Raises `TerminateFailed`. Cancelled, also before, the instance is terminated all the same.
        """
        await self._request(c.TerminateInstance(instance_id), timeout=timeout)

    # --------------------------------------------------------------------------------------- server

    async def ping(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Check that the server answers. Cancel-safe.

        While so many events are unread that reading is paused, it fails with `RequestTimeout` after
        ``limits.request_grace``, and names the instance.
        """
        await self._request(c.Ping(), timeout=timeout)

    async def query(self, subject: str, record: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> str:
        """Ask the server about a subject; the text of its answer. Cancel-safe.

        Raises `QueryFailed`. Some servers never answer a query of a subject that they do not know:
        then it raises `RequestTimeout` after ``timeout`` seconds.
        """
        outcome = await self._connected().expect(
            c.Query(subject, record), e.QueryAnswered, timeout=timeout
        )
        return outcome.result

    # -------------------------------------------------------------------------------------- private

    def _connected(self) -> Driver:
        if self._driver is None:
            raise LocalProtocolError("the client is not connected: use it in an 'async with' block")
        self._driver.home.check("this client")
        return self._driver

    async def _request(self, command: c.Command, *, timeout: Timeout) -> e.Outcome:
        return await self._connected().request(command, timeout=timeout)


async def _sign(signer: Signer, challenge: bytes) -> bytes:
    if inspect.iscoroutinefunction(signer.sign):
        signature: bytes | Awaitable[bytes] = signer.sign(challenge)
    else:
        signature = await in_thread(partial(signer.sign, challenge))
    return await signature if inspect.isawaitable(signature) else signature
