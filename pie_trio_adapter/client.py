"""`TrioPieClient`, a connection to a Pie server, for trio programs."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial

import trio

from pie_files import UploadContent
from pie_proto import ConnectionState, Signer, Statistics
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Capabilities
from pie_proto.errors import key_wanted
from pie_proto.instance_view import arguments_of, input_of
from pie_proto.keys import KEY_NOT_USED, check_signer
from pie_proto.limits import DEFAULT_TIMEOUT, Timeout
from pie_trio_adapter.driver import Driver
from pie_trio_adapter.instance import Instance
from pie_trio_adapter.requests import Progress, expect, request, upload
from pie_trio_adapter.sources import open_content
from pie_trio_adapter.threads import in_thread

__all__ = ["TrioPieClient"]

_log = logging.getLogger("pie_trio_adapter")


class TrioPieClient(trio.abc.AsyncResource):
    """A connection to a Pie server, made by `open_client`.

    Any number of tasks of one trio run may use it at the same time; in another thread or run, every
    method raises `LocalProtocolError` at once. Every async method is a checkpoint. Nothing
    here swallows a cancellation, and after any the connection is right: every method says what its
    own means; what was cancelled before it began has sent nothing.

    Once the connection is over, every method raises `ConnectionLost` (or `RemoteProtocolError`, if
    the server broke the protocol), after events already received were read. A method that does not
    fit the state raises `LocalProtocolError`, and nothing was sent.

    A method with ``timeout=`` raises `RequestTimeout` if the server does not answer within so many
    seconds. Without it, the ``timeout`` given to `open_client` holds; without that, 60 s for
    requests that servers answer at once, 300 s for launches and for the answer to an upload
    (`Limits.request_timeout`, `Limits.launch_timeout`). ``None`` means: wait for ever. A late
    answer is dropped, and what it made is undone as after a cancellation.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def aclose(self) -> None:
        """Close the connection; whoever still waits on it gets `ConnectionLost`. Idempotent.

        Messages accepted before are sent. Bounded by ``limits.close_timeout``, also with unread
        events and with a server that does not answer. Cancelled, it closes at once, and the
        cancellation goes on.
        """
        self._driver.home.check("this client")
        try:
            self._driver.dispatcher.close(trio.current_time())
            await self._driver.finished.wait()
        finally:
            self._driver.cancel()
            with trio.CancelScope(shield=True):
                await self._driver.finished.wait()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open, as far as is known."""
        return self._driver.connection.state is ConnectionState.OPEN

    def statistics(self) -> Statistics:
        """The numbers of this connection, as of now."""
        return self._driver.connection.statistics()

    @property
    def server(self) -> Capabilities | None:
        """What the server is and what it can do; ``None`` until it has said so.

        That is with `authenticate`, where its family is not given by ``dialect``.
        """
        return self._driver.connection.server

    @property
    def authentication(self) -> str | None:
        """How the server came to accept the user; ``None`` before it has.

        ``"proved"``: the user signed a challenge. ``"token"``: by the internal token.
        ``"asserted"``: the server takes any name, and asks for no proof.
        """
        how = self._driver.connection.authentication
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
        outcome = await request(self._driver, c.Identify(username), timeout=timeout)
        if isinstance(outcome, e.ChallengeReceived):
            try:
                if private_key is None:
                    raise key_wanted(username)
                signature = await _sign(private_key, outcome.challenge)
                await request(self._driver, c.AnswerChallenge(signature), timeout=timeout)
            except BaseException:
                # Nothing but the answer to this challenge may be sent now, and there is none.
                self._driver.dispatcher.close(trio.current_time())
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
        await request(self._driver, c.AuthenticateWithToken(token), timeout=timeout)

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
        announced = c.UploadProgram(size=0, hash="", manifest=manifest)
        with await open_content(program, announced, self.server) as content:
            await upload(self._driver, content, progress, timeout)
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
        outcome = await expect(
            self._driver, c.ProgramExists(hash), e.ProgramExistsAnswered, timeout=timeout
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
        outcome = await expect(self._driver, command, e.Launched, timeout=timeout)
        return Instance(self._driver, outcome.instance_id, detached=outcome.detached)

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
        `LaunchFailed`. Cancelled, the program may run all the same.
        """
        command = c.LaunchServerInstance(hash=hash, port=port, arguments=arguments_of(args))
        await request(self._driver, command, timeout=timeout)

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
        await expect(self._driver, c.AttachInstance(instance_id), e.Attached, timeout=timeout)
        return Instance(self._driver, instance_id, detached=False)

    async def list_instances(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> list[e.InstanceInfo]:
        """The user's instances that run, or have finished and were not claimed. Cancel-safe.

        Servers 0.3 and later list none that has finished, and servers 0.5 list everybody's.
        """
        outcome = await expect(self._driver, c.ListInstances(), e.InstancesListed, timeout=timeout)
        return list(outcome.instances)

    async def terminate_instance(
        self, instance_id: str, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> None:
        """Terminate an instance, attached or not; unread output of it is dropped, its end is not.

        Servers 0.5 let anybody terminate any; servers 0.3 and later refuse one that is not there.
        Raises `TerminateFailed`. Cancelled, also before, the instance is terminated all the same.
        """
        await request(self._driver, c.TerminateInstance(instance_id), timeout=timeout)

    # --------------------------------------------------------------------------------------- server

    async def ping(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Check that the server answers. Cancel-safe.

        While so many events are unread that reading is paused, it fails with `RequestTimeout` after
        ``limits.request_grace``, and names the instance.
        """
        await request(self._driver, c.Ping(), timeout=timeout)

    async def query(self, subject: str, record: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> str:
        """Ask the server about a subject; the text of its answer. Cancel-safe.

        Raises `QueryFailed`. Some servers never answer a query of a subject that they do not know:
        then it raises `RequestTimeout` after ``timeout`` seconds.
        """
        outcome = await expect(
            self._driver, c.Query(subject, record), e.QueryAnswered, timeout=timeout
        )
        return outcome.result


async def _sign(signer: Signer, challenge: bytes) -> bytes:
    if inspect.iscoroutinefunction(signer.sign):
        signature: bytes | Awaitable[bytes] = signer.sign(challenge)
    else:
        signature = await in_thread(partial(signer.sign, challenge))
    return await signature if inspect.isawaitable(signature) else signature
