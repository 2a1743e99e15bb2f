"""Requests under way: whose answer is awaited, whose will be late, and who has waited too long."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from pie_proto import commands as c
from pie_proto.errors import RemoteProtocolError
from pie_proto.states import TransferState
from pie_proto.transfers import Upload

__all__ = ["CHUNKS_TO_COME", "Pending", "Requests"]

CHUNKS_TO_COME = frozenset({TransferState.QUEUED, TransferState.SENDING})
"""Where an upload stands while it has chunks to send."""

# What may bring an instance here, whose events may come before the answer does.
_OPENING = (c.LaunchInstance, c.LaunchFromRegistry, c.AttachInstance)


class Pending:
    """A request whose answer has not come."""

    __slots__ = ("command", "request_id", "since", "upload")

    def __init__(
        self, request_id: int, command: c.Command, upload: Upload | None, since: float
    ) -> None:
        self.request_id = request_id
        self.command = command
        self.upload = upload
        self.since = since

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

    def add(self, command: c.Command, upload: Upload | None, now: float, *, ids: int = 1) -> int:
        """Await the answer to a command; its id, the first of as many as it has."""
        pending = Pending(self.next_id, command, upload, now)
        self.next_id += ids
        self._awaited[pending.request_id] = pending
        if pending.opens_instance:
            self._opening.add(pending.request_id)
        return pending.request_id

    def find(self, request_id: int) -> Pending | None:
        """The request of this id, if it is awaited."""
        return self._awaited.get(request_id)

    def settled(self, request_id: int) -> None:
        """The answer has come, and everything it means has been done."""
        self._awaited.pop(request_id, None)
        self._opening.discard(request_id)

    def give_up(self, request_id: int) -> Pending | None:
        """Await a request no longer. `keep` it, if its answer will still mean something."""
        return self._awaited.pop(request_id, None)

    def keep(self, pending: Pending) -> None:
        """Remember a request that was given up until its answer comes."""
        self._abandoned[pending.request_id] = pending

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

    # -------------------------------------------------------------- who has waited too long behind

    def next_deadline(
        self, blocked_since: float, last_chunk_at: float, grace: float
    ) -> float | None:
        """When the first of those awaited will have waited for ``grace``, if there is one.

        Waiting counts from when it was sent or blocked; for an upload, from its line's last chunk.
        """
        return min(
            (
                _since(pending, blocked_since, last_chunk_at) + grace
                for pending in self._awaited.values()
            ),
            default=None,
        )

    def overdue(
        self, blocked_since: float, last_chunk_at: float, grace: float, now: float
    ) -> list[Pending]:
        """Those awaited that have waited for ``grace`` by now."""
        return [
            pending
            for pending in self._awaited.values()
            if _since(pending, blocked_since, last_chunk_at) + grace <= now
        ]


def _since(pending: Pending, blocked_since: float, last_chunk_at: float) -> float:
    since = max(pending.since, blocked_since)
    if pending.upload is not None and pending.upload.state in CHUNKS_TO_COME:
        since = max(since, last_chunk_at)
    return since
