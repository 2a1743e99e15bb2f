"""What one instance says, on its way from the instance's thread to whoever listens.

The one place of the server where two threads meet. The instance's thread puts events in, the event
loop takes them out in batches, and is woken once for each time that there is something again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from pie_proto.events import Event

__all__ = ["OutputQueue"]

# A program that is this far ahead of its client waits, until half of it is gone (one wake-up then
# serves many writes). An event larger than that goes through whole.
_FULL: Final = 256 * 1024
_ROOM: Final = _FULL // 2

# What is kept is cut into events of this size, as large as what a program writes at once.
_KEPT_EVENT_CHARACTERS: Final = 64 * 1024

# What an event costs beside its data, so that empty ones count too.
_EVENT_COST: Final = 128

_STREAMS: Final = (Event.Stdout, Event.Stderr)


class OutputQueue:
    """Events of one instance, in order, bounded in bytes.

    While somebody is attached, events wait here to be taken, and a program that runs ahead of its
    client blocks. While nobody is, the program never blocks: the last ``kept_bytes`` of stdout and
    of stderr are kept, and messages and blobs are lost.

    ``readable`` is called without any lock, in the instance's thread, when there is something to
    take where there was nothing. `put` and `finish` are for that thread; the rest is for the event
    loop's, never blocks, and takes a lock that nobody holds for long.
    """

    def __init__(self, readable: Callable[[], object], kept_bytes: int) -> None:
        self._readable = readable
        self._kept_bytes = kept_bytes
        self._condition = threading.Condition(threading.Lock())
        self._attached = False
        self._closed = False
        self._told = False
        self._waiting: deque[tuple[Event, str | bytes, int]] = deque()
        self._waiting_bytes = 0
        self._kept = {stream: bytearray() for stream in _STREAMS}
        self._outcome: tuple[Event, str] | None = None
        self.blocked = False
        """Whether the program is waiting for room."""

    # ------------------------------------------------------------------ in the instance's thread

    def put(self, event: Event, data: str | bytes) -> None:
        """Take one event of the program; blocks while too much waits to be taken.

        `detach`, `close` and `take` end the waiting. After `close`, events are dropped.
        """
        with self._condition:
            while self._attached and self._waiting_bytes >= _FULL and not self._closed:
                self.blocked = True
                self._condition.wait()
            self.blocked = False
            if self._closed:
                return
            if not self._attached:
                self._keep(event, data)
                return
            tell = self._append(event, data)
        if tell:
            self._readable()

    def finish(self, event: Event, text: str) -> None:
        """Take how the instance ended; never blocks, and nothing follows."""
        with self._condition:
            self._outcome = (event, text)
            tell = self._attached and self._append(event, text)
        if tell:
            self._readable()

    # --------------------------------------------------------------------- in the event loop's

    @property
    def finished(self) -> bool:
        """Whether the instance has ended; its end may still wait to be taken."""
        return self._outcome is not None

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting)

    def take(self, max_bytes: int) -> list[tuple[Event, str | bytes]]:
        """Take the next events: at least one if there is any, and more up to ``max_bytes``."""
        taken: list[tuple[Event, str | bytes]] = []
        with self._condition:
            waiting = self._waiting
            room = max_bytes
            while waiting and room > 0:
                event, data, size = waiting.popleft()
                taken.append((event, data))
                room -= size
            self._waiting_bytes -= max_bytes - room
            self._told = bool(waiting)
            if self._waiting_bytes <= _ROOM:
                self._condition.notify()
        return taken

    def attach(self) -> None:
        """Let events wait to be taken; first those that were kept, then the end if it was met."""
        with self._condition:
            self._attached = True
            for stream, kept in self._kept.items():
                # The first character may have been cut through.
                text = kept.decode(errors="ignore")
                kept.clear()
                for start in range(0, len(text), _KEPT_EVENT_CHARACTERS):
                    self._append(stream, text[start : start + _KEPT_EVENT_CHARACTERS])
            if self._outcome is not None:
                self._append(*self._outcome)

    def detach(self) -> None:
        """Keep what was not taken, and what is put from now on."""
        with self._condition:
            self._attached = False
            self._told = False
            for event, data, _ in self._waiting:
                self._keep(event, data)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._condition.notify()

    def close(self) -> None:
        """Block no more, and drop what the program still says; its end is taken."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    # ----------------------------------------------------------------------- with the lock held

    def _append(self, event: Event, data: str | bytes) -> bool:
        size = _size(data) + _EVENT_COST
        self._waiting.append((event, data, size))
        self._waiting_bytes += size
        tell = not self._told
        self._told = True
        return tell

    def _keep(self, event: Event, data: str | bytes) -> None:
        kept = self._kept.get(event)
        if kept is None or isinstance(data, bytes):
            return
        kept += data.encode()
        if (surplus := len(kept) - self._kept_bytes) > 0:
            del kept[:surplus]


def _size(data: str | bytes) -> int:
    """The bytes of ``data`` on the wire, without encoding what is plain ASCII."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode())
