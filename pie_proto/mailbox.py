"""Unread events, one mailbox per instance, accounted in bytes; and what each instance is to us."""

from __future__ import annotations

from collections import deque

from pie_proto.errors import RemoteProtocolError
from pie_proto.events import Blob, BlobPiece, Event, InstanceEvent
from pie_proto.limits import Limits
from pie_proto.messages import BlobChunk
from pie_proto.states import INSTANCE, InstanceInput, InstanceState, next_state
from pie_proto.transfers import Assembly

__all__ = ["Mailboxes"]

_UNATTACHED = InstanceState.UNATTACHED
_OVER = frozenset({InstanceState.ENDED, InstanceState.TERMINATED})

# PATH_MAX of Linux: what is longer could be the name of nothing.
_NAME_LENGTH = 4096


class _Mailbox:
    __slots__ = ("blobs", "events", "state", "streams_blobs", "unread_bytes")

    def __init__(self) -> None:
        self.state = _UNATTACHED
        self.events: deque[InstanceEvent] = deque()
        self.unread_bytes = 0
        self.blobs: dict[str, Assembly] = {}
        self.streams_blobs = False


class Mailboxes:
    """The instances of one conversation, with what they said and nobody has read.

    Reading pauses when the unread bytes of all mailboxes together reach ``limits.unread_bytes``,
    and resumes when they are down to ``limits.unread_low_bytes``.
    """

    def __init__(self, limits: Limits, blob_type: type[Blob] = Blob) -> None:
        self._limits = limits
        self._blob_type = blob_type
        self._boxes: dict[str, _Mailbox] = {}
        self._held: dict[str, list[InstanceEvent | BlobChunk]] = {}
        self._held_bytes = 0
        self.unread_bytes = 0
        self.assembling_bytes = 0
        self.paused = False
        self.dropped_events = 0
        self._holding = False
        self.dropping = False
        """Whether whatever still comes is dropped: the connection is being closed."""

    def state(self, instance_id: str) -> InstanceState:
        """What the instance is to this connection."""
        box = self._boxes.get(instance_id)
        return _UNATTACHED if box is None else box.state

    def allows(self, instance_id: str, happened: InstanceInput) -> bool:
        """Whether ``happened`` is legal now."""
        return next_state(INSTANCE, self.state(instance_id), happened) is not None

    def happened(self, instance_id: str, what: InstanceInput) -> None:
        """Follow the table, and drop what the new state does not keep."""
        box = self._boxes.get(instance_id)
        state = next_state(INSTANCE, _UNATTACHED if box is None else box.state, what)
        if state is None:
            raise AssertionError(f"{what} in {self.state(instance_id)}")
        if box is None:
            if state is _UNATTACHED:
                return
            box = self._boxes[instance_id] = _Mailbox()
        box.state = state
        if state in _OVER:
            self._drop_blobs(box)
            if what is InstanceInput.TERMINATE:
                self._keep_only_the_end(box)
        elif state is not InstanceState.ATTACHED and state is not InstanceState.ATTACHING:
            self._empty(box)
            if state is _UNATTACHED:
                del self._boxes[instance_id]

    def _empty(self, box: _Mailbox) -> None:
        self.dropped_events += len(box.events)
        box.events.clear()
        self._drop_blobs(box)
        self._less(box, box.unread_bytes)

    def _keep_only_the_end(self, box: _Mailbox) -> None:
        end = box.events.pop()
        self.dropped_events += len(box.events)
        box.events.clear()
        box.events.append(end)
        self._less(box, box.unread_bytes - _size(end, self._limits.event_cost_bytes))

    def _drop_blobs(self, box: _Mailbox) -> None:
        for assembly in box.blobs.values():
            self.assembling_bytes -= assembly.cost
        box.blobs.clear()

    def _less(self, box: _Mailbox, size: int) -> None:
        box.unread_bytes -= size
        self.unread_bytes -= size
        if self.unread_bytes <= self._limits.unread_low_bytes:
            self.paused = False

    # ------------------------------------------------------------------------------------ coming in

    def deliver(self, message: InstanceEvent | BlobChunk) -> bool:
        """Put what an instance sent where it belongs.

        True if a mailbox went from empty to non-empty. Raises `RemoteProtocolError` for a blob that
        does not fit together.
        """
        box = self._boxes.get(message.instance_id)
        if self.dropping:
            self.dropped_events += 1
            return False
        if box is None or box.state is InstanceState.ATTACHING:
            self._hold(message)
            return False
        if isinstance(message, BlobChunk):
            event = self._assemble(box, message)
            return event is not None and self._append(box, event)
        if message.event.is_terminal:
            return self._end(box, message)
        return self._append(box, message)

    def _end(self, box: _Mailbox, event: InstanceEvent) -> bool:
        if box.state in _OVER:
            self.dropped_events += 1
            return False
        wanted = box.state is not InstanceState.DISCARDED
        self.happened(event.instance_id, InstanceInput.END)
        return wanted and self._append(box, event)

    def _append(self, box: _Mailbox, event: InstanceEvent) -> bool:
        ends = event.event.is_terminal
        if box.state is not InstanceState.ATTACHED and not (ends and box.state in _OVER):
            self.dropped_events += 1
            return False
        size = _size(event, self._limits.event_cost_bytes)
        was_empty = not box.events
        box.events.append(event)
        box.unread_bytes += size
        self.unread_bytes += size
        if self.unread_bytes >= self._limits.unread_bytes:
            self.paused = True
        return was_empty

    def _assemble(self, box: _Mailbox, chunk: BlobChunk) -> InstanceEvent | None:
        if box.state is not InstanceState.ATTACHED:
            self.dropped_events += 1
            return None
        assembly = box.blobs.get(chunk.hash)
        if assembly is None:
            name = chunk.name if len(chunk.name or "") <= _NAME_LENGTH else None
            assembly = Assembly(chunk.hash, chunk.total, name=name, streamed=box.streams_blobs)
            box.blobs[chunk.hash] = assembly
            self.assembling_bytes += assembly.cost
        kept, offset = 0 if assembly.streamed else len(chunk.data), assembly.size
        if self.assembling_bytes + kept > self._limits.assembling_bytes:
            raise RemoteProtocolError(
                f"blobs being received pass {self._limits.assembling_bytes} bytes together",
                close_code=1009,
            )
        problem = assembly.add(chunk.position, chunk.total, chunk.data, self._limits.blob_bytes)
        if problem is not None:
            raise RemoteProtocolError(
                f"blob {chunk.hash} of instance {chunk.instance_id}: {problem}"
            )
        self.assembling_bytes += kept
        if assembly.complete:
            del box.blobs[chunk.hash]
            self.assembling_bytes -= assembly.cost
        if assembly.streamed:
            data: bytes = BlobPiece(
                chunk.data,
                hash=chunk.hash,
                offset=offset,
                is_last=assembly.complete,
                name=assembly.name,
            )
        elif assembly.complete:
            data = self._blob_type(assembly.content(), hash=chunk.hash, name=assembly.name)
        else:
            return None
        return InstanceEvent(chunk.instance_id, Event.Blob, data)

    def stream_blobs(self, instance_id: str) -> None:
        """Give what is yet to come of an instance's blobs in pieces, and keep none of them."""
        if (box := self._boxes.get(instance_id)) is not None:
            box.streams_blobs = True

    # ------------------------------------------------------- events that come before their instance

    def _hold(self, message: InstanceEvent | BlobChunk) -> None:
        if not self._holding:
            self.dropped_events += 1
            return
        self._held_bytes += self._held_cost(message)
        if self._held_bytes > self._limits.held_bytes:
            raise RemoteProtocolError(
                f"more than {self._limits.held_bytes} bytes of events came for instances that were "
                "not yet announced"
            )
        self._held.setdefault(message.instance_id, []).append(message)

    def _held_cost(self, message: InstanceEvent | BlobChunk) -> int:
        name = message.name if isinstance(message, BlobChunk) else None
        cost = self._limits.event_cost_bytes + len(message.instance_id) + len(message.data)
        return cost + len(name or "")

    def release_held(self, instance_id: str) -> bool:
        """Deliver what was held for an instance that is now known. True as for `deliver`."""
        readable = False
        for message in self._held.pop(instance_id, ()):
            self._held_bytes -= self._held_cost(message)
            readable = self.deliver(message) or readable
        return readable

    def hold(self, *, wanted: bool) -> None:
        """Hold events of unknown instances, or not: while a launch or an attach is unanswered.

        With the last of these answered, what is still held belongs to nobody, and is dropped.
        """
        if self._holding and not wanted:
            self._drop_held()
        self._holding = wanted

    def _drop_held(self) -> None:
        self.dropped_events += sum(map(len, self._held.values()))
        self._held.clear()
        self._held_bytes = 0

    def drop_unfinished(self) -> None:
        """Nothing more will be delivered: blobs not yet whole and events held are let go of."""
        for box in self._boxes.values():
            box.blobs.clear()
        self.assembling_bytes = 0
        self._drop_held()

    # ------------------------------------------------------------------------------------ going out

    def read(self, instance_id: str) -> InstanceEvent | None:
        """Take one unread event, or ``None``."""
        box = self._boxes.get(instance_id)
        if box is None or not box.events:
            return None
        event = box.events.popleft()
        self._less(box, _size(event, self._limits.event_cost_bytes))
        if not box.events and box.state in _OVER:
            self.happened(instance_id, InstanceInput.DRAINED)
        return event

    def read_many(self, instance_id: str, max_events: int) -> list[InstanceEvent]:
        """Take up to ``max_events`` unread events."""
        events: list[InstanceEvent] = []
        while len(events) < max_events and (event := self.read(instance_id)) is not None:
            events.append(event)
        return events

    def most_unread(self) -> tuple[str, int]:
        """The instance with the most unread bytes, and how many; asked while reading is paused."""
        instance_id, box = max(self._boxes.items(), key=lambda item: item[1].unread_bytes)
        return instance_id, box.unread_bytes


def _size(event: InstanceEvent, cost: int) -> int:
    # Characters stand for bytes: exact for ASCII, within a factor of four otherwise, and free.
    data = event.data
    if isinstance(data, Blob | BlobPiece):
        return cost + len(data) + len(data.name or "")
    return cost + len(data)
