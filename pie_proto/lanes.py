"""The order in which messages leave: lanes keep it where it means something, and nowhere else.

A small message leaves at once, ahead of every chunk. A *lane* is held up by an upload that is not
yet wholly handed out: what is put on the same lane behind it (the launch of the program, a message
to the instance that gets the blob) waits, and nothing else does. Uploads that are under way take
turns, a chunk each. A *slot* is the server's room for an upload: uploads with equal slots go one
after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from pie_proto.commands import (
    Buffer,
    Command,
    LaunchFromRegistry,
    LaunchInstance,
    LaunchServerInstance,
    SendMessage,
    UploadBlob,
    UploadCommand,
    UploadProgram,
)
from pie_proto.dialects import Dialect
from pie_proto.states import TransferInput, TransferState
from pie_proto.transfers import ChunkWanted, Upload

__all__ = ["Outbox", "Parts", "lane_of"]

Parts = tuple[Buffer, ...]
"""One message, to be sent as the concatenation of its parts."""

# How many uploads may be asked for a chunk at one time: enough to keep the line busy while a file
# is read, and at most 1 MiB in memory.
_READ_AHEAD = 4


class _Message(NamedTuple):
    """A small message, and the request that it makes, 0 for none."""

    payload: bytes
    request_id: int


class _Slot:
    """The server's room for one upload at a time, and who waits for it."""

    __slots__ = ("cleared_for", "holder", "leftover", "waiting")

    def __init__(self) -> None:
        self.holder: Upload | None = None
        self.waiting: deque[Upload] = deque()
        self.leftover: Upload | None = None
        """A refused upload whose chunks the server may still keep in this slot."""
        self.cleared_for: Upload | None = None
        """The upload for which it was told to drop them; that holds once its first chunk leaves."""


class Outbox:
    """Messages accepted and not yet handed out."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._urgent: deque[_Message] = deque()
        self._lanes: dict[Hashable, deque[_Message | Upload]] = {}
        self._slots: dict[Hashable, _Slot] = {}
        self._active: deque[Upload] = deque()
        self.unsent_bytes = 0
        """Small messages not yet handed out; content of uploads does not count."""
        self.unsent_requests: set[int] = set()
        """The requests whose small messages are not yet handed out."""
        self.last_request = 0
        """The request that the message handed out last belongs to, 0 for none."""
        self.sent: deque[Upload] = deque()
        """Uploads whose last chunk was handed out, for whoever wants to know; it empties it."""

    # ------------------------------------------------------------------------------------ coming in

    def put(self, payload: bytes, lane: Hashable = None, request_id: int = 0) -> None:
        """Accept a small message; it waits if its lane is held up."""
        message = _Message(payload, request_id)
        self.unsent_bytes += len(payload)
        self.unsent_requests.add(request_id)
        held_up = self._lanes.get(lane)
        if held_up is None:
            self._urgent.append(message)
        else:
            held_up.append(message)

    def put_upload(self, upload: Upload) -> None:
        """Accept an upload; it holds its lane up until its last chunk is handed out."""
        upload.lane = lane_of(self.dialect, upload.command)
        held_up = self._lanes.get(upload.lane)
        if held_up is None:
            self._lanes[upload.lane] = deque((upload,))
            self._request_slot(upload)
        else:
            held_up.append(upload)

    def _request_slot(self, upload: Upload) -> None:
        slot = self._slots.setdefault(self.dialect.slot(upload.command), _Slot())
        if slot.holder is None:
            self._occupy(slot, upload)
        else:
            slot.waiting.append(upload)

    def _occupy(self, slot: _Slot, upload: Upload) -> None:
        slot.holder = upload
        self._active.append(upload)

    # ------------------------------------------------------------------------------------ going out

    def next_message(self) -> Parts | None:
        """The message to send next, if any can be sent now."""
        if self._urgent:
            payload, request_id = self._urgent.popleft()
            self.unsent_bytes -= len(payload)
            self.unsent_requests.discard(request_id)
            self.last_request = request_id
            return (payload,)
        for _ in range(len(self._active)):
            upload = self._active.popleft()
            if not upload.ready:
                self._active.append(upload)
                continue
            if upload.state is TransferState.QUEUED:
                clearing = self._clear_slot(upload)
                if clearing is not None:
                    self._active.appendleft(upload)
                    self.last_request = 0
                    return (clearing,)
            index, data = upload.take()
            self.last_request = upload.request_id
            if upload.state is TransferState.SENT:
                self._handed_out(upload)
            else:
                self._active.append(upload)
            head = self.dialect.chunk(
                upload.command, upload.request_id, index, upload.total, memoryview(data).nbytes
            )
            return (head, data)
        return None

    def _clear_slot(self, upload: Upload) -> bytes | None:
        """The chunk that must go before the first one of ``upload``, if the slot is not empty."""
        slot = self._slots[self.dialect.slot(upload.command)]
        leftover = slot.leftover
        if leftover is None:
            return None
        if slot.cleared_for is upload:
            slot.leftover = slot.cleared_for = None
            return None
        # An index past the end fits no upload that is under way, so the server drops it. It goes to
        # the instance of what follows: if that is gone, too, what follows is refused and left over
        # in its turn. It has the old request's id, so that the answer is a late one to that.
        slot.cleared_for = upload
        return self._abort_chunk(leftover, leftover.total, upload.command)

    def _abort_chunk(self, upload: Upload, index: int, command: UploadCommand) -> bytes:
        return self.dialect.chunk(command, upload.request_id, index, upload.total, 0)

    def chunks_wanted(self) -> tuple[ChunkWanted, ...]:
        """The chunks that are about to be sent and are not at hand, in turn."""
        wanted = (upload.wanted for upload in self._active if not upload.ready)
        return tuple(item for item, _ in zip(wanted, range(_READ_AHEAD), strict=False))

    @property
    def has_message(self) -> bool:
        """Whether `next_message` would return one."""
        return bool(self._urgent) or any(upload.ready for upload in self._active)

    # --------------------------------------------------------------------------------- what happens

    def cancel(self, upload: Upload) -> None:
        """Give an upload up: forgotten if no chunk has left, aborted if some have."""
        before = upload.state
        index = upload.index
        upload.happened(TransferInput.CANCEL)
        if upload.state is TransferState.ABORTING:
            self._active.remove(upload)
            self.put(self._abort_chunk(upload, index + 1, upload.command))
            self._advance(upload)
            if not self.dialect.slot_needs_answer(upload.command):
                upload.happened(TransferInput.ABORT_CHUNK)
                self._free(upload)
        elif before is TransferState.QUEUED:
            self._withdraw(upload)
        # else: all is sent; the slot is free already, or will be with the answer.

    def answered(self, upload: Upload, refusal: str | None) -> None:
        """The server has answered; ``refusal`` is what it said if it said no."""
        if upload.state is TransferState.SENDING:
            self._active.remove(upload)
            self._advance(upload)
        if upload.state is not TransferState.ENDED:
            upload.happened(TransferInput.ANSWER)
        slot = self._slots.get(self.dialect.slot(upload.command))
        if slot is None or slot.holder is not upload:
            return
        if refusal is not None and self.dialect.slot_stays_taken(upload.command, refusal):
            slot.leftover = upload
        self._free(upload)

    def drop_uploads(self) -> None:
        """Forget every upload and what waits behind it: the connection is being closed."""
        for lane in self._lanes.values():
            for item in lane:
                if isinstance(item, Upload):
                    item.happened(TransferInput.CANCEL)
                else:
                    self.unsent_bytes -= len(item.payload)
        self._lanes.clear()
        self._slots.clear()
        self._active.clear()

    def _handed_out(self, upload: Upload) -> None:
        self.sent.append(upload)
        self._advance(upload)
        if not self.dialect.slot_needs_answer(upload.command):
            self._free(upload)

    def _withdraw(self, upload: Upload) -> None:
        slot = self._slots.get(self.dialect.slot(upload.command))
        if slot is not None and slot.holder is upload:
            self._active.remove(upload)
            self._advance(upload)
            self._free(upload)
        elif slot is not None and upload in slot.waiting:
            slot.waiting.remove(upload)
            self._advance(upload)
        else:
            self._lanes[upload.lane].remove(upload)

    def _advance(self, upload: Upload) -> None:
        """The upload at the head of its lane holds it up no longer."""
        lane = self._lanes[upload.lane]
        lane.popleft()
        while lane:
            following = lane[0]
            if isinstance(following, Upload):
                self._request_slot(following)
                return
            self._urgent.append(following)
            lane.popleft()
        del self._lanes[upload.lane]

    def _free(self, upload: Upload) -> None:
        key = self.dialect.slot(upload.command)
        slot = self._slots[key]
        slot.holder = None
        if slot.waiting:
            self._occupy(slot, slot.waiting.popleft())
        elif slot.leftover is None:
            del self._slots[key]


def lane_of(dialect: Dialect, command: Command) -> Hashable:
    """What the order of ``command`` is kept with: its program, its instance, or nothing."""
    match command:
        case UploadProgram() | LaunchInstance() | LaunchFromRegistry() | LaunchServerInstance():
            return ("program", dialect.program_of(command))
        case UploadBlob() | SendMessage():
            return ("instance", command.instance_id)
        case _:
            return None
