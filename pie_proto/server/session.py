"""One conversation with a client, message by message, as a Pie server has it.

`ServerSession` says what the client asks (`Request` events) and takes what the application answers
(`answer`, `refuse`) and what its instances say (`emit`). It makes nothing up: challenges, ids and
verdicts are given to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Literal, TypeAlias, assert_never

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects import Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.errors import LocalProtocolError, error_for
from pie_proto.lanes import Parts
from pie_proto.limits import DEFAULT_LIMITS, Limits
from pie_proto.messages import Refusal, Unknown, UploadChunk
from pie_proto.states import (
    SERVER_AUTHENTICATION,
    ServerAuthenticationInput,
    ServerAuthenticationState,
    next_state,
)
from pie_proto.transfers import Assembly, ChunkFault, ChunkProblem, chunk_count, cut

__all__ = ["Outgoing", "ServerSession"]

Outgoing: TypeAlias = Parts | str
"""One message to send: the parts of a binary one, or a text message."""

_UNDECIDED = frozenset({ServerAuthenticationState.DECIDING, ServerAuthenticationState.VERIFYING})


class ServerSession:
    """One conversation with a client, in whole messages. Not thread-safe: one thread at a time.

    Where a family asks for no proof of who the user is, the opening request has said it, and the
    client is accepted from the start.
    """

    def __init__(self, *, dialect: Dialect = INSTANCE, limits: Limits = DEFAULT_LIMITS) -> None:
        self._dialect = dialect
        self._limits = limits
        self._authentication = (
            ServerAuthenticationState.AWAITING_IDENTITY
            if dialect.capabilities.proof
            else ServerAuthenticationState.ACCEPTED
        )
        self._heard = False
        self._inbox: deque[bytes | str] = deque()
        self._events: deque[e.ServerEvent] = deque()
        self._outbox: deque[Outgoing] = deque()
        self._pending: dict[int, c.Command] = {}
        self._owned: set[str] = set()
        self._uploads: dict[Hashable, Assembly] = {}
        self._assembling_bytes = 0
        self._ending: e.ConnectionClosed | None = None
        self._end: e.ConnectionClosed | None = None
        self._finished = False
        self.unsent_bytes = 0
        """Messages accepted and not yet handed out."""

    # ----------------------------------------------------------------------------------------- feed

    def receive_message(self, payload: bytes | str) -> None:
        """Take one whole message as it came. Only buffers; never raises."""
        if not self._finished:
            self._inbox.append(payload)

    def receive_end(self, closed: e.ConnectionClosed) -> None:
        """Note that the connection is over, and how. What was received before is told first."""
        if self._ending is None:
            self._ending = closed

    # ---------------------------------------------------------------------------------------- drain

    def next_event(self) -> e.ServerEvent | Literal[e.NeedData.NEED_DATA]:
        """What the client asks next, or `NEED_DATA`.

        While a verdict on the client is owed, nothing more is decoded: servers work in order. So
        call this again after such an answer. The last event is `ConnectionClosed`; after it, this
        raises what that event means.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._end is not None:
                raise error_for(self._end)
            if self._finished or not self._inbox or self._authentication in _UNDECIDED:
                if self._ending is None:
                    return e.NEED_DATA
                # No verdict can be given any more, and without one nothing behind it is heard.
                self._end = self._ending
                self._inbox.clear()
                self._pending.clear()
                self._uploads.clear()
                return self._ending
            self._receive(self._inbox.popleft())

    def message_to_send(self) -> Outgoing | None:
        """The next message to send, or ``None`` if there is none now.

        The parts of a binary message are to be concatenated; a ``str`` is a text message.
        """
        if not self._outbox:
            return None
        message = self._outbox.popleft()
        self.unsent_bytes -= _length(message)
        return message

    # ------------------------------------------------------------------------------------------ say

    def answer(self, outcome: e.Outcome) -> None:
        """Answer a request with what settles it; a client of this library gets an equal event.

        Raises `LocalProtocolError` if no such request is pending, or the outcome does not fit it.
        After the end this, `emit` and `notify` raise what the end means.
        """
        self._check_end()
        request_id = outcome.request_id
        command = self._pending_command(request_id)
        message = self._dialect.encode_outcome(command, outcome)
        self._follow_verdict(command, outcome)
        del self._pending[request_id]
        self._put((message,))
        match outcome:
            case e.Launched(instance_id=instance_id, detached=False):
                self._owned.add(instance_id)
            case e.Attached(instance_id=instance_id):
                self._owned.add(instance_id)
            case _:
                self._done()

    def refuse(self, request_id: int, why: Refusal, detail: str = "") -> None:
        """Answer a request with no, in the words of this family of servers.

        Where they leave such a request without an answer, so does this. Raises
        `LocalProtocolError` if no such request is pending, or is never refused for that.
        """
        self._check_end()
        command = self._pending_command(request_id)
        words = self._dialect.refusal(command, why, detail)
        if words is None:
            self.forget(request_id)
        else:
            self.answer(e.Failed(request_id, command, words))

    def forget(self, request_id: int) -> None:
        """Leave a request without an answer, as real servers do with a query they do not know."""
        self._pending.pop(request_id, None)

    def emit(self, event: e.InstanceEvent) -> None:
        """Send what an instance says to the client it is attached to.

        Blobs are cut into chunks, not copied; an empty blob is nothing on the wire. The name of a
        `Blob` is told where the dialect has a place for it. After a terminal event the instance is
        no longer the client's. Raises `LocalProtocolError` if the
        instance is not attached to this connection.
        """
        self._check_end()
        if event.instance_id not in self._owned:
            raise LocalProtocolError(f"instance {event.instance_id} is not attached here")
        kind = bytes if event.event is e.Event.Blob else str
        if not isinstance(event.data, kind):
            raise LocalProtocolError(
                f"the data of a {event.event.name} must be {kind.__name__}, "
                f"not {type(event.data).__name__}"
            )
        if isinstance(event.data, bytes):
            content_hash = c.hash_of(event.data)
            name = event.data.name if isinstance(event.data, e.Blob) else None
            unit = self._dialect.capabilities.chunk_bytes
            total = chunk_count(len(event.data), unit)
            for position, piece in enumerate(cut(event.data, unit)):
                head = self._dialect.blob_chunk(
                    event.instance_id, content_hash, position, total, len(piece), name=name
                )
                self._put((head, piece))
            return
        self._put((self._dialect.encode_event(event),))
        if event.event.is_terminal:
            self._owned.discard(event.instance_id)
            self._done()

    def notify(self, text: str) -> None:
        """Send a notice for the whole connection."""
        self._check_end()
        notice = self._dialect.encode_notice(text)
        self._put(notice if isinstance(notice, str) else (notice,))

    # ----------------------------------------------------------------------------------------- look

    @property
    def authentication_state(self) -> ServerAuthenticationState:
        """How far the server has come in finding out who its client is."""
        return self._authentication

    @property
    def finished(self) -> bool:
        """Whether the server has nothing more to say or hear: send what is left, then close."""
        return self._finished

    @property
    def writing_paused(self) -> bool:
        """Whether too much is unsent: let the instances wait."""
        return self.unsent_bytes >= self._limits.unsent_bytes

    def owns(self, instance_id: str) -> bool:
        """Whether the instance is attached to this connection."""
        return instance_id in self._owned

    # ------------------------------------------------------------------------- what the client says

    def _receive(self, payload: bytes | str) -> None:
        if isinstance(payload, str):
            message = self._dialect.decode_request_text(payload)
        else:
            message = self._dialect.decode_request(payload)
        if isinstance(message, Unknown):
            self._unread(message)
            return
        self._heard = True
        if self._ends_here(message):
            self._finish()
            return
        match message:
            case UploadChunk():
                self._receive_chunk(message)
            case e.Request(request_id=None, command=c.SendMessage(instance_id)):
                if instance_id in self._owned:
                    self._events.append(message)
                self._done()
            case e.Request(request_id=request_id, command=command):
                self._request(request_id, command)
            case _:
                assert_never(message)

    def _unread(self, unknown: Unknown) -> None:
        """Drop what cannot be read, in any state: a client may say it to find out who we are.

        So nothing is said about it before something could be read.
        """
        self._events.append(e.UnknownMessage(unknown.name))
        words = self._dialect.encode_unread(unknown)
        if words is None or (not self._heard and not unknown.too_large):
            return
        self._put(words)
        if not self._heard:
            self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._inbox.clear()

    def _ends_here(self, message: e.Request | UploadChunk) -> bool:
        """Follow the table; true where a server ends the session without a word."""
        happened = ServerAuthenticationInput.COMMAND
        if isinstance(message, e.Request):
            happened = _INPUTS.get(type(message.command), happened)
        state = next_state(SERVER_AUTHENTICATION, self._authentication, happened)
        if state is None:
            return True
        self._authentication = state
        return False

    def _request(self, request_id: int | None, command: c.Command) -> None:
        if request_id is None or request_id in self._pending:
            self._events.append(e.UnknownMessage(f"a second request {request_id} at a time"))
            return
        self._pending[request_id] = command
        self._events.append(e.Request(request_id, command))

    def _follow_verdict(self, command: c.Command, outcome: e.Outcome) -> None:
        if type(command) not in _INPUTS:
            return
        match outcome:
            case e.ChallengeReceived():
                verdict = ServerAuthenticationInput.CHALLENGE
            case e.Authenticated():
                verdict = ServerAuthenticationInput.ACCEPT
            case _:
                verdict = ServerAuthenticationInput.REFUSE
        state = next_state(SERVER_AUTHENTICATION, self._authentication, verdict)
        if state is None:
            raise LocalProtocolError(
                f"{type(outcome).__name__} cannot be sent while {self._authentication.value}"
            )
        self._authentication = state
        if state is ServerAuthenticationState.REFUSED:
            self._finished = True

    # ------------------------------------------------------------------------------------- uploads

    def _receive_chunk(self, chunk: UploadChunk) -> None:
        if chunk.instance_id is not None and chunk.instance_id not in self._owned:
            # Refused before the slot is looked at: what it holds, it keeps.
            self._refuse(chunk, self._dialect.not_owned(chunk.instance_id))
            return
        slot = self._dialect.upload_slot(chunk)
        assembly = self._uploads.pop(slot, None)
        if assembly is None:
            assembly = Assembly(chunk.hash, chunk.total)
        else:
            self._assembling_bytes -= assembly.cost
        problem = self._add(assembly, chunk)
        if problem is not None:
            self._refuse(chunk, self._dialect.describe(problem))
        elif assembly.complete:
            command = _upload(chunk, assembly.hash, assembly.content())
            if chunk.request_id is None:
                self._events.append(e.Request(None, command))
                self._done()
            else:
                self._request(chunk.request_id, command)
        else:
            self._uploads[slot] = assembly
            self._assembling_bytes += assembly.cost
            self._done()

    def _add(self, assembly: Assembly, chunk: UploadChunk) -> ChunkProblem | None:
        limit = self._dialect.capabilities.chunk_bytes
        if len(chunk.data) > limit:
            return ChunkProblem(ChunkFault.CHUNK_SIZE, limit, len(chunk.data))
        together = self._assembling_bytes + assembly.cost + len(chunk.data)
        if together > self._limits.assembling_bytes:
            return ChunkProblem(ChunkFault.SIZE, self._limits.assembling_bytes, together)
        return assembly.add(chunk.position, chunk.total, chunk.data, self._limits.upload_bytes)

    def _refuse(self, chunk: UploadChunk, reason: str) -> None:
        if chunk.request_id is not None and self._dialect.answers_misfit(chunk):
            command = _upload(chunk, chunk.hash, chunk.data)
            outcome = e.Failed(chunk.request_id, command, reason)
            self._put((self._dialect.encode_outcome(command, outcome),))
        self._done()

    def _pending_command(self, request_id: int) -> c.Command:
        command = self._pending.get(request_id)
        if command is None:
            raise LocalProtocolError(f"request {request_id} is not pending")
        return command

    def _done(self) -> None:
        """Nothing more is to be said to one message of the client's."""
        words = self._dialect.encode_done()
        if words is not None:
            self._put(words)

    def _check_end(self) -> None:
        if self._end is not None:
            raise error_for(self._end)

    def _put(self, message: Outgoing) -> None:
        self.unsent_bytes += _length(message)
        self._outbox.append(message)


_INPUTS: dict[type[c.Command], ServerAuthenticationInput] = {
    c.Identify: ServerAuthenticationInput.IDENTIFY,
    c.AuthenticateWithToken: ServerAuthenticationInput.TOKEN,
    c.AnswerChallenge: ServerAuthenticationInput.ANSWER,
}


def _upload(chunk: UploadChunk, content_hash: str, data: bytes) -> c.UploadCommand:
    if chunk.instance_id is None:
        return c.UploadProgram(
            size=len(data), hash=content_hash, data=data, manifest=chunk.manifest
        )
    return c.UploadBlob(instance_id=chunk.instance_id, size=len(data), hash=content_hash, data=data)


def _length(message: Outgoing) -> int:
    if isinstance(message, str):
        return len(message.encode())
    # Not `nbytes`: what is put together here is bytes, and views of bytes.
    return sum(map(len, message))
