"""Pending requests: those awaiting an answer, those cancelled whose late answer still matters, and
those that have timed out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf

from pie_proto import commands as c
from pie_proto.errors import LocalProtocolError, RemoteProtocolError
from pie_proto.limits import Timeout, timeout_of
from pie_proto.states import TransferState
from pie_proto.transfers import Upload

__all__ = ["CHUNKS_TO_COME", "SLOW", "Pending", "Requests", "check_timeout"]

CHUNKS_TO_COME = frozenset({TransferState.QUEUED, TransferState.SENDING})
"""Where an upload stands while it has chunks to send."""

# What may bring an instance here, whose events may come before the answer does.
_OPENING = (c.LaunchInstance, c.LaunchFromRegistry, c.AttachInstance)

SLOW = (
    c.LaunchInstance,
    c.LaunchFromRegistry,
    c.LaunchServerInstance,
    c.UploadProgram,
    c.UploadBlob,
)
"""The commands that a server may take long to answer."""

# A heap of deadlines is rebuilt when it has more entries than this for each pending request.
_STALE_RATIO = 4
_SMALL_HEAP = 64


def check_timeout(given: Timeout) -> Timeout:
    """Check the ``timeout`` of a request; infinity means ``None``. Raises `LocalProtocolError`."""
    try:
        return timeout_of(given)
    except (TypeError, ValueError) as exc:
        raise LocalProtocolError(str(exc)) from None


class Pending:
    """A request whose answer has not come. Timeouts are in seconds; ``None`` means no bound."""

    __slots__ = ("answer_timeout", "command", "progress_timeout", "request_id", "since", "upload")

    def __init__(
        self,
        request_id: int,
        command: c.Command,
        upload: Upload | None,
        since: float,
        answer_timeout: float | None,
        progress_timeout: float | None,
    ) -> None:
        self.request_id = request_id
        self.command = command
        self.upload = upload
        self.since = since
        """When it was accepted, or when the last of its messages left."""
        self.answer_timeout = answer_timeout
        """How long the server may take to answer, once everything was sent."""
        self.progress_timeout = progress_timeout
        """How long an upload that has begun may go without sending a chunk."""

    @property
    def timeout(self) -> float | None:
        """The timeout that applies now."""
        sending = self.upload is not None and self.upload.state is TransferState.SENDING
        return self.progress_timeout if sending else self.answer_timeout

    @property
    def shortest_timeout(self) -> float | None:
        """The shortest timeout that applies now or later."""
        bounds = (self.answer_timeout, self.progress_timeout if self.upload else None)
        return min((bound for bound in bounds if bound is not None), default=None)

    def waits_to_be_sent(self, unsent: Collection[int]) -> bool:
        """Whether something of it is still to be sent; ``unsent`` has the ids of such messages."""
        if self.upload is not None:
            return self.upload.state in CHUNKS_TO_COME
        return self.request_id in unsent

    @property
    def opens_instance(self) -> bool:
        """Whether it may bring an instance here."""
        return isinstance(self.command, _OPENING)


class Requests:
    """The requests of one conversation. Ids count up from 1; an answer to a lower one is late."""

    def __init__(self) -> None:
        self._awaited: dict[int, Pending] = {}
        # Nobody waits for these any more, but their answers still mean something.
        self._abandoned: dict[int, Pending] = {}
        # Those that may bring an instance here, awaited or not.
        self._opening: set[int] = set()
        # Those that a server may take long to answer, awaited or not.
        self._slow: set[int] = set()
        # (deadline, request id). The true deadline may be later, never earlier.
        self._deadlines: list[tuple[float, int]] = []
        self.next_id = 1
        self.late_answers = 0

    def __len__(self) -> int:
        """How many are kept: those awaited, and those whose late answers mean something."""
        return len(self._awaited) + len(self._abandoned)

    @property
    def awaited(self) -> int:
        """How many are awaited."""
        return len(self._awaited)

    @property
    def opening(self) -> bool:
        """Whether one is unanswered that may bring an instance here."""
        return bool(self._opening)

    @property
    def slow(self) -> bool:
        """Whether one is unanswered that a server may take long to answer."""
        return bool(self._slow)

    def take_id(self) -> int:
        """Use up the next id, for a request that nobody waits for."""
        self.next_id += 1
        return self.next_id - 1

    @property
    def kept(self) -> Iterator[Pending]:
        """Those awaited, and those whose late answers mean something."""
        return chain(self._awaited.values(), self._abandoned.values())

    def launching(self, below: int) -> bool:
        """Whether an attached launch with an id ``below`` is unanswered."""
        return any(
            pending.request_id < below
            and isinstance(pending.command, c.LaunchInstance | c.LaunchFromRegistry)
            and not pending.command.detached
            for pending in self.kept
        )

    def add(
        self,
        command: c.Command,
        upload: Upload | None,
        now: float,
        *,
        ids: int = 1,
        answer_timeout: float | None,
        progress_timeout: float | None,
    ) -> int:
        """Await the answer to a command; its id, the first of as many as it has."""
        pending = Pending(self.next_id, command, upload, now, answer_timeout, progress_timeout)
        self.next_id += ids
        self._awaited[pending.request_id] = pending
        if pending.opens_instance:
            self._opening.add(pending.request_id)
        if isinstance(command, SLOW):
            self._slow.add(pending.request_id)
        if pending.shortest_timeout is not None:
            self._schedule(now + pending.shortest_timeout, pending)
        return pending.request_id

    def find(self, request_id: int) -> Pending | None:
        """The request of this id, if it is awaited."""
        return self._awaited.get(request_id)

    def settled(self, request_id: int) -> None:
        """The answer has come, and everything it means has been done."""
        self._awaited.pop(request_id, None)
        self._opening.discard(request_id)
        self._slow.discard(request_id)

    def give_up(self, request_id: int) -> Pending | None:
        """Await a request no longer. `keep` it, if its answer will still mean something."""
        self._slow.discard(request_id)
        return self._awaited.pop(request_id, None)

    def keep(self, pending: Pending) -> None:
        """Remember a request that was given up until its answer comes."""
        self._abandoned[pending.request_id] = pending
        if isinstance(pending.command, SLOW):
            self._slow.add(pending.request_id)

    def answered_late(self, request_id: int) -> Pending | None:
        """An answer came that nobody awaits: the request, if it was kept.

        Raises `RemoteProtocolError` for one that was never made.
        """
        if not 0 < request_id < self.next_id:
            raise RemoteProtocolError(
                f"the server answered request {request_id}, which was never made"
            )
        self.late_answers += 1
        return self._abandoned.pop(request_id, None)

    def clear(self) -> None:
        """The conversation is over: no answer will come."""
        self._awaited.clear()
        self._abandoned.clear()
        self._opening.clear()
        self._slow.clear()
        self._deadlines.clear()

    # ------------------------------------------------------------------------------------ timeouts

    def sent(self, request_id: int, now: float) -> None:
        """A message of this request has left: from now on the server has time to answer."""
        pending = self._awaited.get(request_id)
        if pending is not None:
            pending.since = now

    def next_deadline(self) -> float | None:
        """When to call `timed_out`, at the latest. `None` if nothing can time out."""
        heap = self._deadlines
        while heap and heap[0][1] not in self._awaited:
            heappop(heap)
        return heap[0][0] if heap else None

    def timed_out(self, now: float, last_chunk_at: float, unsent: Collection[int]) -> list[Pending]:
        """The requests whose time is up.

        A request that waits to be sent has until its timeout after the last chunk of an upload,
        since it may wait for that upload. All others have until their timeout after they were sent.
        """
        overdue = []
        while (due := self.next_deadline()) is not None and due <= now:
            pending = self._awaited[heappop(self._deadlines)[1]]
            timeout = pending.timeout
            end = inf if timeout is None else _since(pending, last_chunk_at, unsent) + timeout
            if end <= now:
                overdue.append(pending)
            else:
                # A shorter timeout may apply before that: that of another phase of an upload.
                self._schedule(min(end, now + (pending.shortest_timeout or inf)), pending)
        return overdue

    def _schedule(self, due: float, pending: Pending) -> None:
        heap = self._deadlines
        if len(heap) > _SMALL_HEAP + _STALE_RATIO * len(self._awaited):
            heap[:] = [entry for entry in heap if entry[1] in self._awaited]
            heapify(heap)
        heappush(heap, (due, pending.request_id))

    def blocked(
        self, blocked_since: float, last_chunk_at: float, unsent: Collection[int], grace: float
    ) -> Iterator[tuple[float, Pending]]:
        """The requests that unread events block, each with the time at which its grace ends."""
        for pending in self._awaited.values():
            since = max(_since(pending, last_chunk_at, unsent), blocked_since)
            yield since + grace, pending


def _since(pending: Pending, last_chunk_at: float, unsent: Collection[int]) -> float:
    if pending.waits_to_be_sent(unsent):
        return max(pending.since, last_chunk_at)
    return pending.since
