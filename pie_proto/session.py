"""One conversation with a Pie server, message by message, for those who have a WebSocket.

`ClientSession` knows commands, answers, instances and uploads. It knows no byte of the wire (the
dialect does), no WebSocket (`connection` does) and no clock: whoever drives it says the time.
Unread events, the order of what leaves and the requests under way have modules of their own; what
is left is the one place where they meet, so that what an answer means is done in one step.

Feed it with `receive_message`, drain it with `next_event` and `message_to_send`, ask with `send`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard, assert_never

from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.authentication import AUTHENTICATING, ClientAuthentication
from pie_proto.detached import DetachedLaunches, unfound
from pie_proto.detection import Detection
from pie_proto.dialects import Capabilities, Dialect
from pie_proto.dialects.instance import INSTANCE
from pie_proto.errors import LocalProtocolError, RemoteProtocolError, error_for
from pie_proto.lanes import Outbox, Parts, lane_of
from pie_proto.limits import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUT,
    DefaultTimeout,
    Limits,
    Timeout,
)
from pie_proto.mailbox import Mailboxes
from pie_proto.messages import (
    Answer,
    BlobChunk,
    Nothing,
    Notice,
    ServerMessage,
    Unattributed,
    Unknown,
)
from pie_proto.requests import CHUNKS_TO_COME, SLOW, Pending, Requests, check_timeout
from pie_proto.states import (
    AuthenticationState,
    InstanceInput,
    InstanceState,
    TransferState,
)
from pie_proto.transfers import ChunkWanted, Upload

__all__ = ["ClientSession", "Statistics"]

_COMMANDS = c.Command.__args__
_LAUNCHING = (c.LaunchInstance, c.LaunchFromRegistry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Numbers for people who watch a conversation. Counts since its start, sizes in bytes now."""

    requests_sent: int
    requests_pending: int
    late_answers: int
    """Answers to requests that were cancelled, timed out or answered before."""
    dropped_events: int
    """Events of instances that nobody here had, or that were discarded or terminated."""
    unknown_messages: int
    unread_bytes: int
    unsent_bytes: int
    reading_paused: bool


class ClientSession:
    """One conversation with a Pie server, in whole messages.

    ``dialect`` is that of the server's family, or several: then the first word on who the client is
    finds out which. Every call is immediate. ``now`` is any clock that does not go back, in
    seconds; deadlines are told on the same one. Blobs come as a ``blob_type``. ``server`` is how
    errors name the server. Not thread-safe: one thread at a time.
    """

    def __init__(
        self,
        *,
        dialect: Dialect | Sequence[Dialect] | None = None,
        limits: Limits | None = None,
        blob_type: type[e.Blob] = e.Blob,
        server: str = "the server",
    ) -> None:
        dialect = INSTANCE if dialect is None else dialect
        families = tuple(dialect) if isinstance(dialect, Sequence) else (dialect,)
        self._detection = Detection(families) if len(families) > 1 else None
        self._dialect = families[0]
        self._limits = limits = DEFAULT_LIMITS if limits is None else limits
        self._server = server
        self._authentication = ClientAuthentication()
        self._requests = Requests()
        self._inbox: deque[bytes | str] = deque()
        self._undecoded_bytes = 0
        self._events: deque[e.ClientEvent] = deque()
        self._mailboxes = Mailboxes(limits, blob_type)
        self._outbox = Outbox(self._dialect)
        self._detached = DetachedLaunches(self._outbox, self._requests)
        self._names: dict[str, str] = {}
        self._now = 0.0
        self._paused_since: float | None = None
        self._grace_end = 0.0  # when to look again for requests that unread events block
        self._last_chunk_at = 0.0
        self._last_upload = 0
        self._input_complete = False
        self._closing = False
        self._ending: e.ConnectionClosed | None = None
        self._end: e.ConnectionClosed | None = None
        self._unknown_messages = 0

    # ----------------------------------------------------------------------------------------- feed

    def receive_message(self, payload: bytes | str, now: float) -> None:
        """Take one whole message: ``bytes`` of a binary, ``str`` of a text one. Only buffers."""
        self._see(now)
        self._inbox.append(payload)
        self._undecoded_bytes += len(payload)

    def receive_end(self, closed: e.ConnectionClosed, now: float) -> None:
        """Note that the connection is over, and how. What was received before is told first."""
        self._see(now)
        self.input_complete()
        if self._ending is None:
            self._ending = closed

    def input_complete(self) -> None:
        """Note that no more will be received: what is there is bounded, and is read to its end."""
        self._input_complete = True
        self._paused_since = None

    # ---------------------------------------------------------------------------------------- drain

    def next_event(self) -> e.ClientEvent | Literal[e.NeedData.NEED_DATA]:
        """What happened next, or `NEED_DATA`: nothing more can be told now.

        Decodes messages until one makes an event, and none while ``reading_paused``. The last event
        is `ConnectionClosed`; after it, this raises what that event means.
        """
        while True:
            if self._events:
                return self._events.popleft()
            if self._end is not None:
                raise error_for(self._end)
            if self._inbox and not self.reading_paused:
                payload = self._inbox.popleft()
                self._undecoded_bytes -= len(payload)
                self._receive(payload)
            elif self._ending is not None and not self._inbox:
                self._finish(self._ending)
            else:
                return e.NEED_DATA

    def read_instance(self, instance_id: str) -> e.InstanceEvent | None:
        """Take one unread event of an instance; ``None`` if there is none now.

        After the end of the connection, what was received is still given; then this raises what
        the end means. If ``reading_paused`` turns false, call `next_event` again.
        """
        event = self._mailboxes.read(instance_id)
        if event is None and self._end is not None:
            raise error_for(self._end)
        self._update_pause()
        return event

    def read_instance_many(self, instance_id: str, max_events: int) -> list[e.InstanceEvent]:
        """Take up to ``max_events`` unread events of an instance at once; as `read_instance`."""
        events = self._mailboxes.read_many(instance_id, max_events)
        if not events and self._end is not None:
            raise error_for(self._end)
        self._update_pause()
        return events

    def message_to_send(self, now: float) -> Parts | None:
        """The next message to send, as parts to be concatenated; ``None`` if there is none now.

        Made on demand: a chunk exists from the moment it is asked for. A message handed out is
        never taken back. Parts may be the caller's own buffers.
        """
        self._see(now)
        parts = self._outbox.next_message()
        if parts is not None:
            self._requests.sent(self._outbox.last_request, self._now)
            if len(parts) > 1:
                self._last_chunk_at = self._now
                self._last_upload = self._outbox.last_request
        while self._outbox.sent:
            self._all_sent(self._outbox.sent.popleft())
        return parts

    def note_progress(self, now: float) -> None:
        """Note that a part of the last chunk has left: on a slow line that is progress, too."""
        self._see(now)
        self._last_chunk_at = self._now
        self._requests.sent(self._last_upload, self._now)

    def chunks_wanted(self) -> tuple[ChunkWanted, ...]:
        """The pieces of uploads that are about to be sent and are the caller's to give."""
        return self._outbox.chunks_wanted()

    def provide_chunk(self, request_id: int, data: c.Buffer) -> None:
        """Give the piece of an upload that was wanted. Ignored for one that is over.

        ``data`` is let go of when the message made of it has been sent, or the upload is cancelled.
        Raises `LocalProtocolError` if no piece, or one of another length, is wanted.
        """
        pending = self._requests.find(request_id)
        if pending is None and 0 < request_id < self._requests.next_id:
            return
        upload = pending.upload if pending is not None else None
        if problem := c.buffer_problem(data):
            raise LocalProtocolError(f"a chunk {problem}")
        if upload is None or upload.ready or upload.state not in CHUNKS_TO_COME:
            raise LocalProtocolError(f"request {request_id} wants no chunk now")
        if memoryview(data).nbytes != upload.wanted.length:
            raise LocalProtocolError(
                f"request {request_id} wants {upload.wanted.length} bytes from {upload.offset}, "
                f"not {memoryview(data).nbytes}"
            )
        if upload.index == 0 and (
            objection := self._dialect.objection_to_content(upload.command, data)
        ):
            raise LocalProtocolError(objection)
        upload.provide(data)

    # ------------------------------------------------------------------------------------------ ask

    def send(
        self, command: c.Command, now: float, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> int | None:
        """Accept a command; the id of its request, or ``None`` where nothing answers it.

        ``timeout`` is how long the server may take to answer, in seconds from the moment the
        command has left, or ``None`` for ever; an upload may take that long between two chunks. By
        default it is ``limits.request_timeout``, ``launch_timeout`` or ``authentication_timeout``.
        Afterwards the request is cancelled and its outcome is `TimedOut`.

        A message to an instance that has ended is dropped while its end is unread, since the user
        cannot know of it. Raises `LocalProtocolError` if this state does not allow the command or
        its fields cannot be sent (then nothing was sent), and after the end what the end means.
        Nothing else.
        """
        self._see(now)
        if self._end is not None:
            raise error_for(self._end)
        if self._closing:
            raise error_for(_CLOSED_HERE)
        if type(command) not in _COMMANDS:
            raise LocalProtocolError(f"{type(command).__name__} is not a command")
        command = c.in_lower_case(command)
        if problem := c.problem_with(command):
            raise LocalProtocolError(problem)
        command = self._by_name(command)
        if self._detection is None and (objection := self._dialect.objection(command)):
            raise LocalProtocolError(objection)
        self._authentication.check(command)
        change = self._check_instance(command)
        if isinstance(command, c.SendMessage):
            if self._mailboxes.state(command.instance_id) is not InstanceState.ENDED:
                self._check_room(command)
                self._put(command, 0)
            return None
        answer_timeout, progress_timeout = self._timeouts(command, timeout)
        self._check_room(command)
        request_id, ids = self._requests.next_id, 1
        upload = None
        if isinstance(command, c.UploadCommand):
            unit = self._dialect.capabilities.chunk_bytes
            upload = Upload(request_id, command, unit)
            command = upload.command
            self._outbox.put_upload(upload)
        elif self._has_to_be_found(command):
            self._detached.add(request_id, command, self._encode(command, request_id))
        elif isinstance(command, c.Identify | c.AuthenticateWithToken):
            ids = self._introduce(command, request_id)
        else:
            self._put(command, request_id)
        self._authentication.said(command)
        if change is not None:
            self._mailboxes.happened(*change)
            self._update_pause()
        self._requests.add(
            command,
            upload,
            self._now,
            ids=ids,
            answer_timeout=answer_timeout,
            progress_timeout=progress_timeout,
        )
        self._mailboxes.hold(wanted=self._requests.opening)
        self._detached.proceed()
        return request_id

    def cancel(self, request_id: int, now: float) -> None:
        """Wait for a request no longer: no outcome will be told. Unknown ids are ignored.

        What that means to the server depends on the command: a launch that still succeeds is
        terminated, an upload under way is aborted, an attach is discarded; cancelling an
        authentication closes the connection, since its answer could no longer be told apart.
        """
        self._see(now)
        pending = self._requests.give_up(request_id)
        if pending is None or self._closing:
            return
        upload = pending.upload
        if isinstance(pending.command, AUTHENTICATING):
            self.close(now)
        elif self._detached.has(request_id):
            if self._detached.cancel(request_id):
                self._requests.keep(pending)
            else:
                self._requests.settled(request_id)
        elif pending.opens_instance:
            self._requests.keep(pending)
        elif upload is not None:
            untouched = upload.state is TransferState.QUEUED
            self._outbox.cancel(upload)
            if not untouched and self._dialect.slot_needs_answer(upload.command):
                self._requests.keep(pending)

    def abandon(self, outcome: e.Outcome, now: float) -> None:
        """Undo an outcome that was told but reached nobody, because its waiter was cancelled.

        An instance launched attached is terminated, an attached one discarded. A challenge closes
        the connection: nothing but its answer may be sent now, and nobody has it.
        """
        self._see(now)
        if self._closing or self._end is not None:
            return
        match outcome:
            case e.ChallengeReceived():
                self.close(now)
            case e.Launched(instance_id=instance_id, detached=False):
                self._put(c.TerminateInstance(instance_id), self._requests.take_id())
                self.discard(instance_id)
            case e.Attached(instance_id=instance_id):
                self.discard(instance_id)
            case _:
                pass

    def discard(self, instance_id: str) -> None:
        """Drop what an instance said and nobody has read, and all that it will say."""
        if self._mailboxes.allows(instance_id, InstanceInput.DISCARD):
            self._mailboxes.happened(instance_id, InstanceInput.DISCARD)
            self._update_pause()

    def stream_blobs(self, instance_id: str) -> None:
        """Give an instance's blobs piece by piece, as `BlobPiece`, from the next that begins.

        They are then bounded by nothing but what is unread: ``limits.blob_bytes`` is for blobs that
        are put together here. Ignored for an instance that is not attached.
        """
        self._mailboxes.stream_blobs(instance_id)

    def close(self, now: float) -> None:
        """Stop: accept no command, drop uploads and all that instances still say.

        Messages accepted before are still handed out. Idempotent.
        """
        self._see(now)
        if self._closing:
            return
        self._closing = True
        self._mailboxes.dropping = True
        self._mailboxes.drop_unfinished()
        self._outbox.drop_uploads()
        self._detached.clear()
        self._update_pause()

    # ----------------------------------------------------------------------------------------- time

    def next_deadline(self) -> float | None:
        """When `handle_timeout` must be called, if nothing happens before."""
        if self._closing or not self._requests.awaited:
            return None
        deadline = self._requests.next_deadline()
        if self._paused_since is None:
            return deadline
        return self._grace_end if deadline is None else min(deadline, self._grace_end)

    def handle_timeout(self, now: float) -> None:
        """Fail the requests that have timed out, and those that unread events block for too long.

        Call it after everything that has arrived was fed and drained.
        """
        self._see(now)
        if self._closing:
            return
        unsent, last_chunk_at = self._outbox.unsent_requests, self._last_chunk_at
        for pending in self._requests.timed_out(self._now, last_chunk_at, unsent):
            self._time_out(pending, self._why_timed_out(pending))
        if self._paused_since is not None and self._grace_end <= self._now:
            self._fail_blocked(self._paused_since)

    def _fail_blocked(self, paused_since: float) -> None:
        grace = self._limits.request_grace
        blocked = list(
            self._requests.blocked(
                paused_since, self._last_chunk_at, self._outbox.unsent_requests, grace
            )
        )
        for end, pending in blocked:
            if end <= self._now:
                reason = f"timed out after {grace:g} s: {self._what_blocks()}"
                self._time_out(pending, reason)
        later = (end for end, _ in blocked if end > self._now)
        self._grace_end = min(later, default=self._now + grace)

    def _time_out(self, pending: Pending, reason: str) -> None:
        self.cancel(pending.request_id, self._now)
        self._events.append(e.TimedOut(pending.request_id, pending.command, reason))

    def _what_blocks(self) -> str:
        instance_id, unread_bytes = self._mailboxes.most_unread()
        return (
            f"instance {instance_id} has {unread_bytes} bytes of unread events, which block the "
            "connection; read, discard or terminate it"
        )

    def _why_timed_out(self, pending: Pending) -> str:
        seconds, command = f"{pending.timeout:g} s", pending.command
        if pending.waits_to_be_sent(self._outbox.unsent_requests):
            reason = f"{self._server} took nothing of it for {seconds}"
        else:
            reason = f"{self._server} did not answer within {seconds}"
        if self._paused_since is not None:
            return f"{reason}; {self._what_blocks()}"
        if isinstance(command, c.Identify | c.AuthenticateWithToken):
            if self._detection is not None:
                return f"{reason} to any identification of this client: is it a Pie server?"
            servers = self._dialect.capabilities.servers
            return f"{reason}: is it a server {servers}, as dialect= says?"
        if isinstance(command, c.Query) and not self._dialect.capabilities.answers_every_query:
            subjects = ", ".join(sorted(self._dialect.capabilities.query_subjects))
            return (
                f"{reason} (these servers never answer a query of a subject that they do not know; "
                f"they know {subjects})"
            )
        return reason

    # ----------------------------------------------------------------------------------------- look

    @property
    def authentication_state(self) -> AuthenticationState:
        """How far the client has come in proving who it is."""
        return self._authentication.state

    @property
    def authentication(self) -> e.Authentication | None:
        """How the server came to accept the user; ``None`` before it has."""
        return self._authentication.method

    @property
    def server(self) -> Capabilities | None:
        """What family of servers this is and what it can do; ``None`` before that is known."""
        return self._dialect.capabilities if self._detection is None else None

    def instance_state(self, instance_id: str) -> InstanceState:
        """What an instance is to this connection."""
        return self._mailboxes.state(instance_id)

    @property
    def reading_paused(self) -> bool:
        """Whether too much is unread: receive nothing more until it is false."""
        return self._mailboxes.paused and not self._input_complete and not self._closing

    @property
    def undecoded_bytes(self) -> int:
        """The size of the messages that were received and not decoded."""
        return self._undecoded_bytes

    @property
    def writing_paused(self) -> bool:
        """Whether too much is unsent: `send` refuses all but what makes room."""
        return self._outbox.unsent_bytes >= self._limits.unsent_bytes

    @property
    def has_message_to_send(self) -> bool:
        """Whether `message_to_send` would give one."""
        return self._outbox.has_message

    @property
    def closing(self) -> bool:
        """Whether this side has closed the conversation."""
        return self._closing

    def upload_progress(self, request_id: int) -> int | None:
        """How many bytes of an upload have been handed out; ``None`` once it is over."""
        pending = self._requests.find(request_id)
        return None if pending is None or pending.upload is None else pending.upload.offset

    def statistics(self) -> Statistics:
        """The numbers of this conversation, as of now."""
        return Statistics(
            requests_sent=self._requests.next_id - 1,
            requests_pending=self._requests.awaited,
            late_answers=self._requests.late_answers,
            dropped_events=self._mailboxes.dropped_events,
            unknown_messages=self._unknown_messages,
            unread_bytes=self._mailboxes.unread_bytes,
            unsent_bytes=self._outbox.unsent_bytes,
            reading_paused=self.reading_paused,
        )

    # --------------------------------------------------------------------- what a command must meet

    def _check_instance(self, command: c.Command) -> tuple[str, InstanceInput] | None:
        if not isinstance(command, _TO_INSTANCE):
            return None
        happened, instance_id = _INSTANCE_INPUTS[type(command)], command.instance_id
        if not self._mailboxes.allows(instance_id, happened):
            state = self._mailboxes.state(instance_id)
            raise LocalProtocolError(
                f"{type(command).__name__} cannot be sent: to this connection, instance "
                f"{instance_id} is {state.value}" + _INSTANCE_ADVICE.get(state, "")
            )
        return instance_id, happened

    def _timeouts(self, command: c.Command, timeout: Timeout) -> tuple[float | None, float | None]:
        """How long the answer to ``command`` may take, and a pause between chunks of an upload."""
        given = check_timeout(timeout)
        if not isinstance(given, DefaultTimeout):
            return given, given
        limits = self._limits
        if isinstance(command, AUTHENTICATING):
            return limits.authentication_timeout, None
        if isinstance(command, SLOW) or self._requests.slow:
            return limits.launch_timeout, limits.request_timeout
        return limits.request_timeout, None

    def _check_room(self, command: c.Command) -> None:
        if not isinstance(command, c.SendMessage):
            under_way = len(self._requests)
            if under_way >= self._limits.pending_requests:
                raise LocalProtocolError(f"{under_way} requests are under way: wait for some")
            if self._requests.next_id > self._dialect.capabilities.max_request_id:
                raise LocalProtocolError(
                    "this connection has used up its request ids: open a new one"
                )
        if isinstance(command, c.UploadCommand):
            limit = self._dialect.capabilities.upload_bytes
            if command.size > limit:
                raise LocalProtocolError(
                    f"{type(command).__name__} has {command.size} bytes; the server takes {limit}"
                )
        if self.writing_paused and not isinstance(command, c.TerminateInstance):
            raise LocalProtocolError(
                f"{self._outbox.unsent_bytes} bytes are accepted and unsent: "
                "wait until writing_paused is false"
            )

    def _by_name(self, command: c.Command) -> c.Command:
        """A program uploaded here under a name is meant by that, where servers go by names."""
        match command:
            case c.LaunchInstance(hash=program_hash) if program_hash in self._names:
                return c.LaunchFromRegistry(
                    name=self._names[program_hash],
                    arguments=command.arguments,
                    detached=command.detached,
                    input=command.input,
                )
            case c.ProgramExists(program_hash) if program_hash in self._names:
                return c.ProgramExists(self._names[program_hash])
            case _:
                return command

    def _encode(self, command: c.Command, request_id: int) -> bytes:
        message = self._dialect.encode(command, request_id)
        limit = self._dialect.capabilities.frame_bytes
        if len(message) > limit:
            raise LocalProtocolError(
                f"{type(command).__name__} makes a message of {len(message)} bytes; "
                f"the server takes {limit}"
            )
        return message

    def _put(self, command: c.Command, request_id: int) -> None:
        message = self._encode(command, request_id)
        self._outbox.put(message, lane_of(self._dialect, command), request_id)

    def _introduce(self, command: c.Identify | c.AuthenticateWithToken, request_id: int) -> int:
        """Say who the client is, in all vocabularies it may be; how many ids that took."""
        if self._detection is None:
            messages = [self._encode(command, request_id)]
        else:
            messages = self._detection.messages(command, request_id)
        for own_id, message in enumerate(messages, request_id):
            self._outbox.put(message, None, own_id)
        return len(messages)

    def _has_to_be_found(
        self, command: c.Command
    ) -> TypeGuard[c.LaunchInstance | c.LaunchFromRegistry]:
        return (
            isinstance(command, _LAUNCHING)
            and command.detached
            and not self._dialect.capabilities.detached_launch_has_id
        )

    # ------------------------------------------------------------------------------ what comes back

    def _receive(self, payload: bytes | str) -> None:
        try:
            message = self._read(payload)
            match message:
                case e.InstanceEvent() | BlobChunk():
                    if self._mailboxes.deliver(message):
                        self._events.append(e.InstanceReadable(message.instance_id))
                    self._update_pause()
                case Answer():
                    self._answered(message)
                case Notice(text):
                    self._events.append(e.ServerNotice(text))
                case Unattributed(text):
                    self._unattributed(text)
                case Unknown(name):
                    self._unknown_messages += 1
                    self._events.append(e.UnknownMessage(name))
                case Nothing():
                    pass
                case _:
                    assert_never(message)
        except RemoteProtocolError as exc:
            self._finish(
                e.ConnectionClosed(by=e.Closer.LOCAL, code=exc.close_code, violation=str(exc))
            )

    def _read(self, payload: bytes | str) -> ServerMessage:
        detection = self._detection
        if detection is not None:
            message = detection.read(payload)
            if detection.found is not None:
                self._dialect = self._outbox.dialect = detection.found
                self._detection = None
            return message
        if isinstance(payload, bytes):
            return self._dialect.decode(payload)
        return self._dialect.decode_text(payload)

    def _answered(self, answer: Answer) -> None:
        if self._detached.asked(answer.request_id):
            self._detached.listed(answer)
            self._tell_found()
            return
        pending = self._requests.find(answer.request_id)
        if pending is None:
            self._answered_late(answer)
            return
        if objection := self._found_unable(pending.command):
            outcome: e.Outcome = e.Failed(
                answer.request_id, pending.command, objection, by_server=False
            )
        else:
            outcome = self._dialect.interpret(pending.command, answer)
        if self._closing and isinstance(outcome, e.LaunchedUnnamed):
            outcome = unfound(answer.request_id, pending.command)
        if pending.upload is not None:
            self._upload_answered(pending.upload, outcome)
        if not self._detached.answered(answer.request_id, outcome):
            self._conclude(pending, outcome)

    def _found_unable(self, command: c.Command) -> str | None:
        """Why the server cannot do what it was asked before it was known what it is."""
        if not isinstance(command, c.AuthenticateWithToken):
            return None
        return self._dialect.objection(command)

    def _conclude(self, pending: Pending, outcome: e.Outcome) -> None:
        """Do what an outcome means, and tell it."""
        if isinstance(pending.command, AUTHENTICATING):
            outcome = self._authentication.judged(pending.request_id, pending.command, outcome)
        self._settle(pending.command, outcome)
        self._events.append(outcome)
        if isinstance(outcome, e.Launched | e.Attached) and self._mailboxes.release_held(
            outcome.instance_id
        ):
            self._events.append(e.InstanceReadable(outcome.instance_id))
        self._update_pause()
        self._settled(pending.request_id)
        self._tell_found()

    def _tell_found(self) -> None:
        """Settle the detached launch of which is known by now what it has made."""
        if (outcome := self._detached.settled()) is not None:
            self._events.append(outcome)
            self._settled(outcome.request_id)

    def _answered_late(self, answer: Answer) -> None:
        pending = self._requests.answered_late(answer.request_id)
        if pending is None:
            return
        outcome = self._dialect.interpret(pending.command, answer)
        if pending.upload is not None:
            self._outbox.answered(pending.upload, _refusal(outcome))
        else:
            # One that is not awaited is not looked for: now it is over.
            self._detached.answered(answer.request_id, outcome)
            self._settle(pending.command, outcome)
            self.abandon(outcome, self._now)
            if isinstance(outcome, e.Launched | e.Attached):
                self._mailboxes.release_held(outcome.instance_id)
        self._settled(answer.request_id)
        self._tell_found()

    def _unattributed(self, text: str) -> None:
        """An error that names no request is that of the one there is; otherwise it is a notice."""
        meant = [pending for pending in self._requests.kept if self._may_be_meant(pending)]
        pending = self._requests.find(meant[0].request_id) if len(meant) == 1 else None
        if pending is None:
            self._events.append(e.ServerNotice(text))
            return
        if pending.upload is not None:
            self._outbox.answered(pending.upload, text)
        self._detached.failed(pending.request_id)
        self._conclude(pending, e.Failed(pending.request_id, pending.command, text))

    def _may_be_meant(self, pending: Pending) -> bool:
        """Whether something of a request was sent, and the answer to it has not come."""
        if pending.upload is not None:
            return pending.upload.state is not TransferState.QUEUED
        if self._detached.has(pending.request_id):
            return self._detached.awaits(pending.request_id)
        return pending.request_id not in self._outbox.unsent_requests

    def _all_sent(self, upload: Upload) -> None:
        """The last chunk of an upload has left: where nothing answers it, that is its outcome."""
        is_program = isinstance(upload.command, c.UploadProgram)
        answered = is_program or self._dialect.capabilities.confirms_blobs
        pending = self._requests.find(upload.request_id)
        if pending is not None and not answered:
            self._conclude(pending, e.BlobUploaded(upload.request_id))

    def _upload_answered(self, upload: Upload, outcome: e.Outcome) -> None:
        refusal = _refusal(outcome)
        if upload.state is TransferState.QUEUED:
            raise RemoteProtocolError("the server answered an upload before its first chunk")
        if refusal is None and upload.state is not TransferState.SENT:
            raise RemoteProtocolError("the server accepted an upload before its last chunk")
        self._outbox.answered(upload, refusal)

    def _settle(self, command: c.Command, outcome: e.Outcome) -> None:
        """Bring the state that an outcome creates into being, before anything else is looked at."""
        match command, outcome:
            case c.UploadProgram(), e.ProgramUploaded():
                name = self._dialect.registered_name(command)
                if name is not None:
                    self._names[command.hash] = name
            case _, e.Launched(instance_id=instance_id, detached=False):
                if not self._mailboxes.allows(instance_id, InstanceInput.LAUNCHED):
                    raise RemoteProtocolError(
                        f"the server launched instance {instance_id}, which it had already"
                    )
                self._mailboxes.happened(instance_id, InstanceInput.LAUNCHED)
                self._detached.launched(instance_id)
            case c.AttachInstance(instance_id), e.Attached():
                if not self._mailboxes.allows(instance_id, InstanceInput.ATTACHED):
                    raise RemoteProtocolError(
                        f"the server attached instance {instance_id}, which was attached already"
                    )
                self._mailboxes.happened(instance_id, InstanceInput.ATTACHED)
            case c.AttachInstance(instance_id), e.Failed():
                # Refused, too, when the answer to its launch has come meanwhile.
                if self._mailboxes.allows(instance_id, InstanceInput.ATTACH_REFUSED):
                    self._mailboxes.happened(instance_id, InstanceInput.ATTACH_REFUSED)
            case _:
                pass

    # --------------------------------------------------------------------------------- book-keeping

    def _finish(self, closed: e.ConnectionClosed) -> None:
        self._end = closed
        self._inbox.clear()
        self._undecoded_bytes = 0
        self._requests.clear()
        self._detached.clear()
        self._paused_since = None
        self._outbox.drop_uploads()
        self._mailboxes.drop_unfinished()
        self._events.append(closed)

    def _see(self, now: float) -> None:
        self._now = max(self._now, now)

    def _update_pause(self) -> None:
        if not self.reading_paused:
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = self._now
            self._grace_end = self._now + self._limits.request_grace

    def _settled(self, request_id: int) -> None:
        """An answer was consumed. With the last that may open an instance, none is held for."""
        self._requests.settled(request_id)
        self._mailboxes.hold(wanted=self._requests.opening)


_CLOSED_HERE = e.ConnectionClosed(by=e.Closer.LOCAL, reason="closed by the caller")

_TO_INSTANCE = (c.SendMessage, c.UploadBlob, c.AttachInstance, c.TerminateInstance)

_INSTANCE_INPUTS: dict[type[c.Command], InstanceInput] = {
    c.SendMessage: InstanceInput.MESSAGE,
    c.UploadBlob: InstanceInput.BLOB,
    c.AttachInstance: InstanceInput.ATTACH,
    c.TerminateInstance: InstanceInput.TERMINATE,
}

_INSTANCE_ADVICE = {
    InstanceState.UNATTACHED: ": it was launched detached, has ended, or was never attached here",
    InstanceState.ENDED: ": it has ended, and its last events are unread",
    InstanceState.TERMINATED: ": its end is unread",
}


def _refusal(outcome: e.Outcome) -> str | None:
    return outcome.reason if isinstance(outcome, e.Failed) else None
