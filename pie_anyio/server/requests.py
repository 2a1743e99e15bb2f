"""What a client may ask of the server, and what comes of it: one `Requests` for each connection.

It knows programs, instances and users, and nothing of bytes. The texts are those of the real
server, where it has any.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from pie_anyio.server.instances import Instance, Instances, Listener
from pie_anyio.server.store import NotFound, ProgramStore, Registry
from pie_anyio.server.users import INTERNAL_USER, Users
from pie_proto import commands as c
from pie_proto import events as e
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

    users: Users
    programs: ProgramStore
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


class Requests:
    """The requests of one client: who asks, and what is done about it."""

    def __init__(
        self, premises: Premises, connection: ServerConnection, listener: Listener
    ) -> None:
        self._premises = premises
        self._connection = connection
        self._listener = listener
        self._user = ""
        self._challenge = b""
        self.attached: dict[str, Instance] = {}
        """The instances that this client listens to."""

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
            case _ if request_id is None:
                return True
            case c.Ping():
                self.answer(e.Pong(request_id))
            case c.UploadBlob(instance_id=instance_id, data=data):
                if instance_id not in self.attached:
                    reason = f"Instance not owned by client: {instance_id}"
                    self.answer(e.Failed(request_id, request.command, reason))
                    return True
                if (execution := self._execution(instance_id)) is not None:
                    execution.send_blob(bytes(data or b""))
                self.answer(e.BlobUploaded(request_id))
            case c.TerminateInstance(instance_id):
                self.answer(self._terminate(request_id, request.command, instance_id))
            case _:
                return False
        return True

    def _execution(self, instance_id: str) -> Execution | None:
        instance = self.attached.get(instance_id)
        return None if instance is None else self._premises.instances.execution(instance)

    def _terminate(self, request_id: int, command: c.Command, instance_id: str) -> e.Outcome:
        canonical = _canonical(instance_id)
        if canonical is None:
            return e.Failed(request_id, command, "Malformed instance ID")
        instance = self._premises.instances.find(self._user, canonical)
        if instance is not None:
            self._premises.instances.terminate(instance)
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
            outcome = await self._settle(request_id, command)
        except (NotFound, self._premises.program_error, OSError, ValueError, RuntimeError) as error:
            # Whatever keeps this one program from running: bad arguments, an unreadable file, …
            outcome = e.Failed(request_id, command, str(error))
        if outcome is None:
            self._connection.forget(request_id)
        else:
            self.answer(outcome)

    def answer(self, outcome: e.Outcome) -> None:
        """Send an answer, if the connection still takes one."""
        if self._open:
            self._connection.answer(outcome)

    @property
    def _open(self) -> bool:
        return self._connection.state is ConnectionState.OPEN

    async def _settle(self, request_id: int, command: c.Command) -> e.Outcome | None:
        premises = self._premises
        match command:
            case c.Identify() | c.AuthenticateWithToken() | c.AnswerChallenge():
                return await self._authenticate(request_id, command)
            case c.ProgramExists(content_hash):
                return e.ProgramExistsAnswered(
                    request_id, await premises.programs.exists(content_hash)
                )
            case c.UploadProgram(hash=content_hash, data=data):
                await premises.programs.upload(content_hash, bytes(data or b""))
                return e.ProgramUploaded(request_id, content_hash)
            case c.LaunchInstance(hash=content_hash):
                program = await premises.programs.get(content_hash)
                return self._launch(request_id, command, program)
            case c.LaunchFromRegistry(name=name):
                if premises.registry is None:
                    raise NotFound(f"Program not found: {name} (the server has no registry)")
                program = await premises.registry.find(name, premises.programs)
                return self._launch(request_id, command, program)
            case c.LaunchServerInstance():
                reason = "This server runs no programs that are servers themselves"
                return e.Failed(request_id, command, reason)
            case c.AttachInstance(instance_id):
                return self._attach(request_id, command, instance_id)
            case c.ListInstances():
                return e.InstancesListed(request_id, premises.instances.listed(self._user))
            case c.Query(subject):
                return self._query(request_id, subject)
            case _:
                raise AssertionError(f"{type(command).__name__} is done at once")

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
        self, request_id: int, command: c.LaunchInstance | c.LaunchFromRegistry, program: Program
    ) -> e.Outcome:
        # If the client has gone meanwhile, what it asked for still runs, as if it had gone after.
        listener = self._listener if self._open and not command.detached else None
        instance = self._premises.instances.launch(self._user, program, command.arguments, listener)
        if listener is not None:
            self.attached[instance.id] = instance
        return e.Launched(request_id, instance.id, command.detached)

    def _attach(self, request_id: int, command: c.Command, instance_id: str) -> e.Outcome:
        canonical = _canonical(instance_id)
        if canonical is None:
            return e.Failed(request_id, command, "Invalid instance_id")
        instance = self._premises.instances.find(self._user, canonical)
        if instance is None:
            return e.Failed(request_id, command, "Instance not found")
        if instance.listener is not None:
            return e.Failed(request_id, command, "Instance already attached")
        if self._open:
            self._premises.instances.attach(instance, self._listener)
            self.attached[instance.id] = instance
        return e.Attached(request_id, instance.id)

    def _query(self, request_id: int, subject: str) -> e.Outcome | None:
        match subject:
            case "model_status":
                return e.QueryAnswered(request_id, "{}")
            case "backend_stats":
                return e.QueryAnswered(request_id, self._premises.table())
            case _:
                return None  # as the real server does

    # ---------------------------------------------------------------------------------- output

    def told(self, instance: Instance) -> None:
        """The end of an instance has been sent to this client."""
        del self.attached[instance.id]
        self._premises.instances.claimed(instance)

    def detach_all(self) -> None:
        """The connection is over: its instances run on, and what they say is kept."""
        for instance in self.attached.values():
            self._premises.instances.detach(instance)
        self.attached.clear()


def _canonical(instance_id: str) -> str | None:
    """An instance id as the server writes it; ``None`` if it is none."""
    try:
        return str(uuid.UUID(instance_id))
    except ValueError:
        return None
