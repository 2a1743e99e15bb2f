"""What a running instance and the world outside it share: its inboxes, its handles, its end.

No WebAssembly here, and no wire: the host functions (`wasi`, `inferlet`) act on a `Host` from the
instance's own thread, and the server speaks to it from any other.
"""

from __future__ import annotations

import codecs
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from pie_proto.events import Event

__all__ = [
    "Err",
    "Host",
    "HostError",
    "HostFunction",
    "HostFunctions",
    "Inbox",
    "LimitExceeded",
    "Outcome",
    "Output",
    "OutputClosed",
    "Pollable",
    "Receipt",
    "Resource",
    "Unwind",
]

T = TypeVar("T")

Output: TypeAlias = Callable[[Event, str | bytes], None]
"""Takes what an instance says: ``bytes`` with `Event.Blob`, ``str`` with all others."""

Outcome: TypeAlias = tuple[Event, str]
"""How an instance ended: a terminal event and its text."""

HostFunction: TypeAlias = Callable[..., object]
"""Called with the `Host` and the program's arguments; gives the result as a plain Python value."""

HostFunctions: TypeAlias = Mapping[str, HostFunction]
"""Host functions by ``interface#function``, the interface without its version."""

# What an empty item costs us to keep, roughly: a million of them must not be free.
_ITEM_COST: Final = 64

# Waiting for longer than this at a time gains nothing, and `Condition.wait` refuses 2**63 ns.
_LONGEST_WAIT_S: Final = 3600.0


class OutputClosed(Exception):
    """Raised by an `Output` that takes nothing more: the instance ends as Aborted."""


class HostError(Exception):
    """A host function cannot do what it was asked to: the instance ends with this text."""


class LimitExceeded(HostError):
    """The program asked for more than it may have: the instance ends as ServerError."""


class Unwind(Exception):
    """Leaves the program, whose outcome has been decided already."""


class Err(NamedTuple):
    """The error case of a ``result``; any other value that a host function gives is its ok case."""

    payload: object = None


class Resource:
    """What a handle of a program refers to."""

    __slots__ = ()

    def close(self) -> None:
        """The program has dropped its handle, or the function that it gave it to is done."""


class Pollable(Resource):
    """Something to wait for: ready once ``is_ready`` says so, or from ``deadline`` on."""

    __slots__ = ("deadline", "is_ready")

    def __init__(
        self, is_ready: Callable[[], bool] | None = None, deadline: int | None = None
    ) -> None:
        self.is_ready = is_ready
        self.deadline = deadline
        """In nanoseconds of `time.monotonic_ns`."""

    def ready(self, now: int) -> bool:
        """Whether there is nothing to wait for at ``now``; called with the condition held."""
        if self.deadline is not None:
            return now >= self.deadline
        return self.is_ready is None or self.is_ready()


class Host:
    """One instance, as its host functions and its server see it.

    `end`, `kill` and `Inbox.put` are for any thread and never wait for the program; everything
    else is for the instance's own thread.
    """

    def __init__(
        self,
        *,
        instance_id: str,
        arguments: Sequence[str],
        output: Output,
        shared: object,
        held_bytes: int,
        call_bytes: int,
        interrupt: Callable[[Host], None],
    ) -> None:
        self.instance_id = instance_id
        self.arguments = tuple(arguments)
        self.shared = shared
        self.call_bytes = call_bytes
        self.condition = threading.Condition()
        self.outcome: Outcome | None = None
        self.return_value = ""
        self.interruption: BaseException | None = None
        self.messages: Inbox[str] = Inbox(self)
        self.blobs: Inbox[bytes] = Inbox(self)
        self._output = output
        self._interrupt = interrupt
        self._held_limit = held_bytes
        self._held = 0
        self._handles: dict[int, Resource] = {}
        self._numbers = count(1)
        decoder = codecs.getincrementaldecoder("utf-8")
        # A program cuts its output where it likes: half a character waits here for the other.
        self._decoders = {
            Event.Stdout: decoder(errors="replace"),
            Event.Stderr: decoder(errors="replace"),
        }

    # ------------------------------------------------------------------------------------- the end

    def end(self, event: Event, text: str) -> bool:
        """Decide how the instance ends; the first word stands. Says whether this was it."""
        with self.condition:
            if self.outcome is not None:
                return False
            self.outcome = (event, text)
            self.condition.notify_all()
            return True

    def kill(self, event: Event, text: str) -> None:
        """`end` from outside: also makes a program that runs find out."""
        if self.end(event, text):
            self._interrupt(self)

    def check(self) -> None:
        """Leave the program if its end has been decided."""
        if self.outcome is not None:
            raise Unwind

    # ------------------------------------------------------------------------------------- waiting

    def wait(self, pollables: Sequence[Pollable]) -> list[int]:
        """Wait until one of ``pollables`` is ready, or the end; the positions of all that are."""
        with self.condition:
            while True:
                self.check()
                now = time.monotonic_ns()
                ready = [i for i, pollable in enumerate(pollables) if pollable.ready(now)]
                if ready:
                    return ready
                deadlines = [p.deadline for p in pollables if p.deadline is not None]
                timeout = (min(deadlines) - now) / 1e9 if deadlines else _LONGEST_WAIT_S
                self.condition.wait(min(timeout, _LONGEST_WAIT_S))

    # -------------------------------------------------------------------------------------- output

    def write(self, event: Event, data: bytes) -> None:
        """Put out bytes that the program wrote to stdout or stderr, as text."""
        text = self._decoders[event].decode(data)
        if text:
            self.emit(event, text)

    def flush(self) -> None:
        """Put out what the program left unfinished, at its end."""
        for event, decoder in self._decoders.items():
            text = decoder.decode(b"", final=True)
            if text:
                self.emit(event, text)

    def emit(self, event: Event, data: str | bytes) -> None:
        """Hand ``data`` to the output, which may block.

        Raises `Unwind` when the instance is over, or is by the time the output has taken it.
        """
        self.check()
        try:
            self._output(event, data)
        except OutputClosed as closed:
            self.end(Event.Aborted, str(closed) or "Output closed")
        except Exception as error:  # noqa: BLE001 - not the program's fault: tell, and end it
            self.end(Event.ServerError, f"output failed: {type(error).__name__}: {error}")
        self.check()

    # ------------------------------------------------------------------------------------- handles

    def open(self, resource: Resource) -> int:
        """Give ``resource`` a number, for a handle of the program."""
        number = next(self._numbers)
        self._handles[number] = resource
        return number

    def resource(self, number: int) -> Resource:
        """What a handle refers to."""
        return self._handles[number]

    def take(self, number: int) -> Resource:
        """What a handle refers to, which is no longer the program's."""
        return self._handles.pop(number)

    def drop(self, number: int) -> None:
        """The program has dropped a handle."""
        self._handles.pop(number).close()

    # ------------------------------------------------------------------------------- memory of ours

    def hold(self, size: int) -> None:
        """Account for ``size`` bytes kept for the instance outside its own memory.

        Over the limit the instance ends as ServerError: whoever calls finds out by `check`.
        """
        with self.condition:
            self._held += size + _ITEM_COST
            if self._held > self._held_limit:
                self.kill(
                    Event.ServerError,
                    f"the instance holds more than {self._held_limit} bytes of messages and blobs"
                    " (limit held_bytes)",
                )

    def release(self, size: int) -> None:
        """Undo one `hold`."""
        with self.condition:
            self._held -= size + _ITEM_COST


class Inbox(Generic[T]):
    """Items for one instance, handed to those who ask for one in the order they asked."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._items: deque[tuple[T, int]] = deque()
        self._waiting: deque[Receipt[T]] = deque()

    def put(self, item: T, size: int) -> None:
        """Add an item of ``size`` bytes; thread-safe. An instance that is over gets no more."""
        host = self._host
        with host.condition:
            if host.outcome is None:
                self._items.append((item, size))
                host.hold(size)
                self._match()
                host.condition.notify_all()

    def receive(self) -> Receipt[T]:
        """Ask for the next item."""
        receipt = Receipt(self)
        with self._host.condition:
            self._waiting.append(receipt)
            self._match()
        return receipt

    def _match(self) -> None:
        while self._items and self._waiting:
            self._waiting.popleft().entry = self._items.popleft()

    def _collect(self, receipt: Receipt[T]) -> T | None:
        with self._host.condition:
            if receipt.entry is None:
                return None
            (item, size), receipt.entry = receipt.entry, None
            self._host.release(size)
            return item

    def _give_back(self, receipt: Receipt[T]) -> None:
        with self._host.condition:
            if receipt.entry is not None:
                # Nobody took it: a program that waits for a message or a timer, and drops the
                # loser, must not lose the message with it.
                self._items.appendleft(receipt.entry)
                receipt.entry = None
                self._match()
            elif receipt in self._waiting:
                self._waiting.remove(receipt)


class Receipt(Resource, Generic[T]):
    """A place in the queue before an `Inbox`."""

    __slots__ = ("_inbox", "entry")

    def __init__(self, inbox: Inbox[T]) -> None:
        self._inbox = inbox
        self.entry: tuple[T, int] | None = None

    def pollable(self) -> Pollable:
        """Ready once the item is there."""
        return Pollable(lambda: self.entry is not None)

    def get(self) -> T | None:
        """The item, the first time that it is there."""
        return self._inbox._collect(self)  # noqa: SLF001 - two halves of one thing

    def close(self) -> None:
        """Leave the queue; an item not taken goes to the next."""
        self._inbox._give_back(self)  # noqa: SLF001 - two halves of one thing
