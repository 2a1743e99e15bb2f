"""One instance as its user sees it: what may be asked of it now, and in which words it is refused.

The same for every driver; each turns a refusal into the exception that its users expect.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Generic, TypeAlias, assert_never

from pie_proto.dispatch import Dispatcher, W
from pie_proto.errors import InstanceEnded, InstanceFailed, LocalProtocolError
from pie_proto.events import Event, InstanceEvent
from pie_proto.json_text import JSONValue, json_or_text, read_json
from pie_proto.states import InstanceState

__all__ = [
    "EVENTS_PER_CHECKPOINT",
    "InstanceView",
    "Received",
    "Refusal",
    "arguments_of",
    "input_of",
]

Received: TypeAlias = tuple[Event, str | bytes]
"""The kind of an event, and its data: ``bytes`` for `Event.Blob`, else ``str``."""

EVENTS_PER_CHECKPOINT = 64
"""How many events an iteration may give before it lets other tasks run.

A checkpoint costs some 3 µs, an event less than 1: one in so many keeps other tasks running without
being what a busy stream spends its time on.
"""

# Where the user knows that it is over. If it has ended and the end is unread, a message is dropped.
_KNOWN_TO_BE_OVER = frozenset(
    {InstanceState.TERMINATING, InstanceState.TERMINATED, InstanceState.UNATTACHED}
)
_OVER = _KNOWN_TO_BE_OVER | {InstanceState.ENDED}


def input_of(given: Mapping[str, object] | None) -> str | None:
    """The JSON text of an input object. Raises `LocalProtocolError` for what JSON cannot say.

    A key is a text, or a number, ``True``, ``False`` or ``None``, which stand for the text that
    JSON has for them. Two keys of one object that are the same text are rejected, however deep.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise LocalProtocolError(f"an input is a mapping, not {type(given).__name__}")
    try:
        text = json.dumps(dict(given), allow_nan=False)
        read_json(text)  # finds keys that have become the same, and what is no Unicode
    except (TypeError, ValueError, RecursionError) as exc:
        raise LocalProtocolError(f"the input cannot be written as JSON: {exc}") from exc
    return text


def arguments_of(args: Sequence[str] | None) -> tuple[str, ...]:
    """What a launch is given as arguments, as its command takes them; ``None`` means none.

    Raises `LocalProtocolError` for what is no sequence, and for a text: its letters are not meant.
    """
    if args is None:
        return ()
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise LocalProtocolError(f"args must be a list of strings, not {args!r}")
    return tuple(args)


class Refusal(enum.Enum):
    """Why an instance cannot be read."""

    DETACHED = "was launched detached"
    BUSY = "is being read by another task"
    DISCARDED = "was left by its reader"
    ENDED = "has ended"


class InstanceView(Generic[W]):
    """What one user of an instance may do with it."""

    def __init__(self, dispatcher: Dispatcher[W], instance_id: str, *, detached: bool) -> None:
        self.id = instance_id
        """The server's name for it."""
        self.detached = detached
        """Whether it was launched detached, so that its events do not come here."""
        self.receiving = False
        """Whether a task is waiting for its next event."""
        self.end: InstanceEvent | None = None
        """Its terminal event, once that was read."""
        self.discarded = False
        """Whether its user wants no more of its events."""
        self.saves_blobs = False
        """Whether its blobs go elsewhere than into memory, by way of `piece`."""
        self.piece: bytes | None = None
        """What was read of a blob that is saved: a `BlobPiece`, or one that had come whole before.
        Nothing else is given until it is set to ``None``: so whoever is interrupted while saving it
        can do it again.
        """
        self._dispatcher = dispatcher

    def __repr__(self) -> str:
        kind = "detached " if self.detached else ""
        return f"<{kind}Instance {self.id}>"

    def refusal(self) -> Refusal | None:
        """Why its events cannot be read now, if so."""
        if self.detached:
            return Refusal.DETACHED
        if self.receiving:
            return Refusal.BUSY
        if self.end is not None:
            return Refusal.ENDED
        if self.discarded:
            return Refusal.DISCARDED
        return None

    def error(self, refusal: Refusal) -> LocalProtocolError | InstanceEnded:
        """A new exception that tells the refusal."""
        match refusal:
            case Refusal.DETACHED:
                return LocalProtocolError(
                    f"instance {self.id} was launched detached, so its events do not come here: "
                    "attach_instance() gives an instance that can be read"
                )
            case Refusal.BUSY:
                return LocalProtocolError(f"another task is reading instance {self.id}")
            case Refusal.DISCARDED:
                return LocalProtocolError(f"the events of instance {self.id} were discarded")
            case Refusal.ENDED:
                return self._ended()
            case _:
                assert_never(refusal)

    def take(self) -> Received | None:
        """Take one unread event; ``None`` if there is none now.

        None is there while `piece` is set, or after the instance was discarded. Raises how the
        connection ended, behind the last event.
        """
        if self.discarded or self.piece is not None:
            return None
        unread = self._dispatcher.read_instance(self.id)
        if unread is None:
            return None
        if self.saves_blobs and isinstance(unread.data, bytes):
            self.piece = unread.data
            return None
        if unread.event.is_terminal:
            self.end = unread
        return unread.event, unread.data

    def result(self) -> JSONValue:
        """The return value, when the terminal event was read; raises `InstanceFailed`.

        Where programs return JSON, what that says. A text that is no JSON is given as it is.
        """
        event, data = self._terminal()
        if event is not Event.Completed:
            raise InstanceFailed(
                f"instance {self.id} did not complete: {event.name}: {data}",
                event=event,
                data=data,
            )
        server = self._dispatcher.connection.server
        return json_or_text(data) if server is not None and server.returns_json else data

    def check_message(self) -> None:
        """Raise if no message can be sent: it is detached, or its user knows that it ended."""
        self._check_sending(_KNOWN_TO_BE_OVER)

    def check_blob(self) -> None:
        """Raise if no blob can be uploaded to it: it is detached, or it has ended."""
        self._check_sending(_OVER)

    def _check_sending(self, over: frozenset[InstanceState]) -> None:
        if self.detached:
            raise LocalProtocolError(
                f"instance {self.id} was launched detached: attach_instance() gives an instance "
                "that messages and blobs can be sent to"
            )
        state = self._dispatcher.connection.instance_state(self.id)
        if state in over and self._dispatcher.closed is None and not self.discarded:
            raise self._ended()

    def save_blobs(self) -> None:
        """Have blobs come as `piece`, from the next that is read."""
        self.saves_blobs = True
        self._dispatcher.connection.stream_blobs(self.id)

    def discard(self) -> None:
        """Drop what is unread and all that it still says; a task that waits looks again."""
        self.discarded = True
        self._dispatcher.discard(self.id)

    def _terminal(self) -> tuple[Event, str]:
        if self.end is None:
            raise AssertionError("the terminal event has not been read")
        return self.end.event, str(self.end.data)

    def _ended(self) -> InstanceEnded:
        if self.end is None:
            return InstanceEnded(
                f"instance {self.id} has ended or is being terminated; how, recv() tells",
                event=None,
            )
        event, data = self._terminal()
        return InstanceEnded(
            f"instance {self.id} has ended: {event.name}" + (f": {data}" if data else ""),
            event=event,
            data=data,
        )
