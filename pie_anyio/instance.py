"""`Instance`, a program that runs on the server: what it says, and what it is told."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from pie_anyio.driver import Driver, Progress
from pie_anyio.sources import UploadContent, open_content
from pie_proto import commands as c
from pie_proto.errors import (
    InstanceEnded,
    InstanceFailed,
    LocalProtocolError,
)
from pie_proto.events import Event, InstanceEvent
from pie_proto.states import InstanceState

__all__ = ["Instance"]

# A checkpoint costs some 3 µs, an event less than 1: one in so many keeps other tasks running
# without being what a busy stream spends its time on.
_EVENTS_PER_CHECKPOINT = 64

_OVER = frozenset({InstanceState.TERMINATING, InstanceState.ENDED, InstanceState.UNATTACHED})


class Instance:
    """A program that runs on the server.

    Its events are read with `recv`, `recv_nowait`, ``async for`` or `result`, by one task at a
    time. They wait in memory until they are read; when too many wait, all of the connection's
    reading pauses. Whoever does not want them says so: ``async with instance:`` drops what is
    unread when the block is left, and `terminate` drops all but how it ended.
    """

    def __init__(self, driver: Driver, instance_id: str, *, detached: bool) -> None:
        self._driver = driver
        self._id = instance_id
        self._detached = detached
        self._receiving = False
        self._left = False
        self._end: InstanceEvent | None = None
        self._since_checkpoint = 0

    @property
    def id(self) -> str:
        """The server's name for the instance, by which it can be attached."""
        return self._id

    @property
    def detached(self) -> bool:
        """Whether it was launched detached, so that its events do not come here."""
        return self._detached

    def __repr__(self) -> str:
        kind = "detached " if self._detached else ""
        return f"<{kind}Instance {self._id}>"

    # ------------------------------------------------------------------------------------- reading

    async def recv(self) -> tuple[Event, str | bytes]:
        """The next event: its kind, and its data (``bytes`` for `Event.Blob`, else ``str``).

        Waits for one if there is none. The last event of an instance is a terminal one
        (`Event.is_terminal`); after it, and at once, this raises `InstanceEnded`. Events received
        before the connection ended are still given, then what that end means is raised. A detached
        instance, or a second `recv` at the same time, is a `LocalProtocolError`. Cancel-safe: no
        event is lost.
        """
        self._check_reader()
        self._receiving = True
        try:
            await anyio.lowlevel.checkpoint()
            self._since_checkpoint = 0
            while (received := self._take()) is None:
                await self._driver.readable(self._id)
        finally:
            self._receiving = False
        return received

    def recv_nowait(self) -> tuple[Event, str | bytes]:
        """As `recv`, but raises ``anyio.WouldBlock`` if there is no event now."""
        self._check_reader()
        received = self._take()
        if received is None:
            raise anyio.WouldBlock
        return received

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Event, str | bytes]:
        """The next event; the iteration ends behind the terminal one. As `recv` otherwise.

        A checkpoint at least every 64 events, and whenever there is none to give.
        """
        if self._end is not None:
            raise StopAsyncIteration
        if self._since_checkpoint < _EVENTS_PER_CHECKPOINT:
            self._check_reader()
            received = self._take()
            if received is not None:
                self._since_checkpoint += 1
                return received
        return await self.recv()

    async def result(self) -> str:
        """Wait for the end, dropping what comes before it; the program's return value.

        Raises `InstanceFailed` if it did not complete. Cancel-safe: the end is not lost.
        """
        async for _ in self:
            pass
        event, data = self._terminal()
        if event is not Event.Completed:
            raise InstanceFailed(
                f"instance {self._id} did not complete: {event.name}: {data}",
                event=event,
                data=data,
            )
        return data

    def _terminal(self) -> tuple[Event, str]:
        if self._end is None:
            raise AssertionError("the iteration ended without a terminal event")
        return self._end.event, str(self._end.data)

    def _check_reader(self) -> None:
        if self._detached:
            raise LocalProtocolError(
                f"instance {self._id} was launched detached, so its events do not come here: "
                "attach_instance() gives an instance that can be read"
            )
        if self._receiving:
            raise LocalProtocolError(f"another task is reading instance {self._id}")
        if self._end is not None:
            raise self._ended()
        if self._left:
            raise LocalProtocolError(f"the events of instance {self._id} were discarded")

    def _ended(self) -> InstanceEnded:
        if self._end is None:
            return InstanceEnded(
                f"instance {self._id} has ended or is being terminated; how, recv() tells",
                event=None,
            )
        event, data = self._terminal()
        return InstanceEnded(
            f"instance {self._id} has ended: {event.name}" + (f": {data}" if data else ""),
            event=event,
            data=data,
        )

    def _take(self) -> tuple[Event, str | bytes] | None:
        unread = self._driver.read_instance(self._id)
        if unread is None:
            if self._left:
                raise LocalProtocolError(f"the events of instance {self._id} were discarded")
            return None
        if unread.event.is_terminal:
            self._end = unread
        return unread.event, unread.data

    # ------------------------------------------------------------------------------------- telling

    async def send(self, message: str) -> None:
        """Send a text to the instance; returns when it is accepted for sending.

        Nothing tells whether the program receives it. Waits while too much is unsent. Raises
        `InstanceEnded` if the instance is over. Cancelled, nothing was sent.
        """
        self._check_told()
        await anyio.lowlevel.checkpoint()
        await self._driver.room()
        self._check_told()
        self._driver.submit(c.SendMessage(self._id, message))

    async def upload_blob(
        self, blob: UploadContent, /, *, progress: Progress | None = None
    ) -> None:
        """Upload binary data to the instance; returns when the server has handed it over.

        ``blob`` and ``progress`` as in `PieClient.upload_program`. Raises `UploadFailed`, and
        `InstanceEnded` if the instance is over. Cancelled, it takes back what was sent.
        """
        self._check_told()
        content = await open_content(blob)
        try:
            self._check_told()
            command = c.UploadBlob(
                instance_id=self._id, size=content.size, hash=content.hash, data=content.data
            )
            await self._driver.upload(command, content, progress)
        finally:
            content.close()

    def _check_told(self) -> None:
        if self._detached:
            raise LocalProtocolError(
                f"instance {self._id} was launched detached: attach_instance() gives an instance "
                "that can be spoken to"
            )
        state = self._driver.connection.instance_state(self._id)
        if state in _OVER and self._driver.closed is None and not self._left:
            raise self._ended()

    # -------------------------------------------------------------------------------------- ending

    async def terminate(self) -> None:
        """Terminate the instance: its unread output is dropped, its terminal event is not.

        Raises `TerminateFailed`. Cancelled, the instance is terminated all the same.
        """
        await self._driver.request(c.TerminateInstance(self._id))

    def discard(self) -> None:
        """Drop what is unread and all that the instance still says. It runs on.

        To the server it stays attached to this connection, so nobody can attach it before the
        connection or the instance has ended. A `recv` that is waiting raises `LocalProtocolError`.
        """
        self._left = True
        self._driver.connection.discard(self._id)
        self._driver.wake(self._id)
        self._driver.touched()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()
        await anyio.lowlevel.cancel_shielded_checkpoint()
