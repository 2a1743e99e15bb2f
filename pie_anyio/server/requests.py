"""What a client may ask of the server, and what comes of it: one `Requests` for each connection.

It knows programs, instances and users, and nothing of bytes. What servers refuse, the dialect has
the words for; other texts are those of the real server, where it has any.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from pie_anyio.server.catalog import Catalog
from pie_anyio.server.instances import Instance, Instances, Listener
from pie_anyio.server.store import NotFound, ProgramStore, Registry
from pie_anyio.server.users import INTERNAL_USER, Users
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.arguments import arguments_from
from pie_proto.dialects import Dialect, ProgramsBy
from pie_proto.dialects.process.naming import is_identifier, name_of
from pie_proto.errors import LocalProtocolError
from pie_proto.server import Refusal
from pie_proto.states import ConnectionState, ServerAuthenticationState

if TYPE_CHECKING:
    from pie_anyio.server.runner import Execution, Program
    from pie_proto.server import ServerConnection

__all__ = ["Premises", "Requests"]

# How long a wrong token is left without an answer: guessing is slow, and takes a different time
# each time.
_WRONG_TOKEN_DELAY_S: Final = (1.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Premises:
    """What all connections of a server share."""

    dialect: Dialect
    users: Users
    programs: ProgramStore
    catalog: Catalog
    registry: Registry | None
    instances: Instances
    program_error: type[Exception]
    """What a program that does not compile raises (its module is loaded only by need)."""

    def table(self) -> str:
        """A few numbers, as a text table."""
        rows = (
            ("programs", len(self.programs)),
            ("instances running", self.instances.running),
            ("instances blocked", self.instances.blocked),
            ("models", 0),
        )
        return "\n".join(f"{name:<20}{value:>10}" for name, value in rows)


class _Refused(Exception):
    """What is asked is refused, in the words of the family of servers."""

    def __init__(self, why: Refusal, detail: str = "") -> None:
        super().__init__(why, detail)
        self.why = why
        self.detail = detail


class Requests:
    """The requests of one client: who asks, and what is done about it."""

    def __init__(
        self, premises: Premises, connection: ServerConnection, listener: Listener
    ) -> None:
        self._premises = premises
        self._abilities = premises.dialect.capabilities
        self._connection = connection
        self._listener = listener
        self._user = ""
        self._challenge = b""
        self.attached: dict[str, Instance] = {}
        """The instances that this client listens to."""

    def identified(self, user: str) -> None:
        """The opening request has said who the user is."""
        self._user = user

    # -------------------------------------------------------------------------- without delay

    def at_once(self, request: e.Request) -> bool:
        """Do what need not wait for the requests before it, and answer; false if it must wait.

        A launch may have to wait for the compiler: what is said to other instances, and a ping,
        does not wait with it.
        """
        request_id = request.request_id
        match request.command:
            case c.SendMessage(instance_id, message):
                if (execution := self._execution(instance_id)) is not None:
                    execution.send_message(message)
                return True
            case c.UploadBlob(instance_id=instance_id, data=data):
                if (execution := self._execution(instance_id)) is not None:
                    execution.send_blob(bytes(data or b""))
                if request_id is None:
                    return True
                if instance_id in self.attached:
                    self.answer(e.BlobUploaded(request_id))
                else:
                    self._refuse(request_id, Refusal.NOT_OWNED, instance_id)
            case _ if request_id is None:
                return True
            case c.Ping():
                self.answer(e.Pong(request_id))
            case c.TerminateInstance(instance_id):
                try:
                    self.answer(self._terminate(request_id, instance_id))
                except _Refused as no:
                    self._refuse(request_id, no.why)
            case _:
                return False
        return True

    def _execution(self, instance_id: str) -> Execution | None:
        instance = self.attached.get(instance_id)
        return None if instance is None else self._premises.instances.execution(instance)

    def _terminate(self, request_id: int, instance_id: str) -> e.Outcome:
        instance = self._premises.instances.find(self._user, _canonical(instance_id))
        if instance is not None:
            self._premises.instances.terminate(instance)
        elif not self._abilities.terminates_unknown:
            raise _Refused(Refusal.NOT_FOUND)
        return e.Terminated(request_id)

    # ------------------------------------------------------------------------------- in order

    async def settle(self, request: e.Request) -> None:
        """Do what is asked and answer it, or leave it unanswered as the real server does.

        To be called for one request after the other. Once an instance is attached, it is answered
        before anything else can happen: its output comes behind that. Cancelling is safe; what was
        asked may have been done then, or not.
        """
        request_id, command = request.request_id, request.command
        if request_id is None:
            return
        try:
            self.answer(await self._settle(request_id, command))
        except _Refused as no:
            self._refuse(request_id, no.why, no.detail)
        except (NotFound, self._premises.program_error, OSError, ValueError, RuntimeError) as error:
            # Whatever keeps this one program from running: bad arguments, an unreadable file, …
            self.answer(e.Failed(request_id, command, str(error)))

    def answer(self, outcome: e.Outcome) -> None:
        """Send an answer, if the connection still takes one."""
        if self._open:
            self._connection.answer(outcome)

    def _refuse(self, request_id: int, why: Refusal, detail: str = "") -> None:
        if self._open:
            self._connection.refuse(request_id, why, detail)

    @property
    def _open(self) -> bool:
        return self._connection.state is ConnectionState.OPEN

    async def _settle(self, request_id: int, command: c.Command) -> e.Outcome:
        premises = self._premises
        match command:
            case c.Identify() | c.AuthenticateWithToken() | c.AnswerChallenge():
                return await self._authenticate(request_id, command)
            case c.ProgramExists(text):
                return e.ProgramExistsAnswered(request_id, await self._exists(text))
            case c.UploadProgram():
                await self._upload(command)
                return e.ProgramUploaded(request_id, command.hash)
            case c.LaunchInstance(hash=content_hash):
                if self._abilities.programs_by is ProgramsBy.NAME:
                    name = str(name_of(content_hash))
                    return self._launch(request_id, command, *await self._find(name))
                program = await premises.programs.get(content_hash)
                return self._launch(request_id, command, program, content_hash)
            case c.LaunchFromRegistry(name=name):
                return self._launch(request_id, command, *await self._find(name))
            case c.LaunchServerInstance():
                reason = "This server runs no programs that are servers themselves"
                return e.Failed(request_id, command, reason)
            case c.AttachInstance(instance_id):
                return self._attach(request_id, instance_id)
            case c.ListInstances():
                return e.InstancesListed(request_id, premises.instances.listed(self._user))
            case c.Query(subject):
                return self._query(request_id, subject)
            case _:
                raise AssertionError(f"{type(command).__name__} is done at once")

    async def _exists(self, text: str) -> bool:
        premises = self._premises
        if self._abilities.programs_by is ProgramsBy.HASH:
            return await premises.programs.exists(text)
        if c.is_hash(text):
            # What has a name is found by that alone.
            return await premises.catalog.find(str(name_of(text))) is not None
        if not is_identifier(text):
            raise _Refused(Refusal.PROGRAM_NAME, text)
        if await premises.catalog.find(text) is not None:
            return True
        return premises.registry is not None and await premises.registry.exists(text)

    async def _upload(self, command: c.UploadProgram) -> None:
        premises = self._premises
        try:
            name = premises.dialect.registered_name(command)
        except LocalProtocolError as error:
            raise _Refused(Refusal.MANIFEST, str(error)) from None
        await premises.programs.upload(command.hash, bytes(command.data or b""))
        if self._abilities.programs_by is ProgramsBy.NAME:
            await premises.catalog.add(name or str(name_of(command.hash)), command.hash)

    async def _find(self, name: str) -> tuple[Program, str]:
        """The program that a name means, and its full name: uploads go before the registry."""
        premises = self._premises
        entry = await premises.catalog.find(name)
        if entry is not None:
            return await premises.programs.get(entry.hash), entry.program
        if premises.registry is None:
            raise NotFound(f"Program not found: {name} (the server has no registry)")
        return await premises.registry.find(name, premises.programs)

    async def _authenticate(
        self, request_id: int, command: c.Identify | c.AuthenticateWithToken | c.AnswerChallenge
    ) -> e.Outcome:
        users = self._premises.users
        if self._connection.authentication_state is ServerAuthenticationState.ACCEPTED:
            return e.Authenticated(request_id, e.Authentication.ALREADY)
        match command:
            case c.Identify(username):
                if not await users.knows(username):
                    return e.Failed(request_id, command, f"User {username!r} is not authorized")
                self._user = username
                if users.open:
                    return e.Authenticated(request_id, e.Authentication.ASSERTED)
                self._challenge = users.challenge()
                return e.ChallengeReceived(request_id, self._challenge)
            case c.AnswerChallenge(signature):
                if await users.verify(self._user, self._challenge, signature):
                    return e.Authenticated(request_id, e.Authentication.PROVED)
                return e.Failed(request_id, command, "Signature verification failed")
            case c.AuthenticateWithToken(token):
                if users.is_token(token):
                    self._user = INTERNAL_USER
                    return e.Authenticated(request_id, e.Authentication.TOKEN)
                await anyio.sleep(random.uniform(*_WRONG_TOKEN_DELAY_S))  # noqa: S311 - a delay
                return e.Failed(request_id, command, "Invalid internal token")

    def _launch(
        self,
        request_id: int,
        command: c.LaunchInstance | c.LaunchFromRegistry,
        program: Program,
        name: str,
    ) -> e.Outcome:
        # If the client has gone meanwhile, what it asked for still runs, as if it had gone after.
        if not (self._open or command.detached or self._abilities.keeps_instances):
            raise RuntimeError("the client has gone, and its instances with it")
        listener = self._listener if self._open and not command.detached else None
        if command.input is None:
            instance = self._premises.instances.launch(
                self._user, program, command.arguments, listener, name=name
            )
        else:
            instance = self._launch_with_input(program, name, command.input, listener)
        if listener is not None:
            self.attached[instance.id] = instance
        return e.Launched(request_id, instance.id, command.detached)

    def _launch_with_input(
        self, program: Program, name: str, given: str, listener: Listener | None
    ) -> Instance:
        """Launch with the arguments that an input means.

        What is wrong with an input is for the program to say, and so an error of the instance.
        """
        instances = self._premises.instances
        arguments = arguments_from(given)
        reason = "the input is no JSON object that can be written as arguments, --name value"
        # As it stands: no arguments mean it.
        if arguments != (given,):
            try:
                return instances.launch(
                    self._user, program, arguments, listener, name=name, given=given
                )
            except ValueError as error:
                reason = str(error)
        return instances.fail(self._user, listener, reason, name=name, given=given)

    def _attach(self, request_id: int, instance_id: str) -> e.Outcome:
        instance = self._premises.instances.find(self._user, _canonical(instance_id))
        if instance is None:
            raise _Refused(Refusal.NOT_FOUND)
        if instance.listener is not None:
            raise _Refused(Refusal.TAKEN)
        if self._open:
            self._premises.instances.attach(instance, self._listener)
            self.attached[instance.id] = instance
        return e.Attached(request_id, instance.id)

    def _query(self, request_id: int, subject: str) -> e.Outcome:
        if subject not in self._abilities.query_subjects:
            raise _Refused(Refusal.SUBJECT, subject)
        # There are no models.
        answer = self._premises.table() if subject == "backend_stats" else "{}"
        return e.QueryAnswered(request_id, answer)

    # ---------------------------------------------------------------------------------- output

    def told(self, instance: Instance) -> None:
        """The end of an instance has been sent to this client."""
        del self.attached[instance.id]
        self._premises.instances.claimed(instance)

    def detach_all(self) -> None:
        """The connection is over: nobody listens to its instances any more."""
        for instance in self.attached.values():
            self._premises.instances.detach(instance)
        self.attached.clear()


def _canonical(instance_id: str) -> str:
    """An instance id as the server writes it. Raises `_Refused` if it is none."""
    try:
        return str(uuid.UUID(instance_id))
    except ValueError:
        raise _Refused(Refusal.MALFORMED_ID) from None
