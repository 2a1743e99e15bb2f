"""`Instance`, a program that runs on the server: what it says, and what it is told."""

from __future__ import annotations

from types import TracebackType
from typing import TypeAlias

import trio

from pie_proto import commands as c
from pie_proto.errors import InstanceEnded, InstanceFailed, LocalProtocolError
from pie_proto.events import Event, InstanceEvent
from pie_proto.states import InstanceState
from pie_trio_adapter.driver import Driver
from pie_trio_adapter.requests import Progress, request, upload
from pie_trio_adapter.sources import UploadContent, open_content

__all__ = ["Instance", "Received"]

Received: TypeAlias = tuple[Event, str | bytes]
"""The kind of an event, and its data: ``bytes`` for `Event.Blob`, else ``str``."""

# A checkpoint costs some 3 µs, an event less than 1: one in so many keeps other tasks running
# without being what a busy stream spends its time on.
_EVENTS_PER_CHECKPOINT = 64

_OVER = frozenset({InstanceState.TERMINATING, InstanceState.ENDED, InstanceState.UNATTACHED})


class Instance(trio.abc.ReceiveChannel[Received]):
    """A program that runs on the server, and the channel on which its events come.

    Its events are read with `receive`, `receive_nowait`, ``async for``, `recv` or `result`, by one
    task at a time. They wait in memory until they are read; when too many wait, all of the
    connection's reading pauses. Whoever does not want them says so: `aclose`, or the end of an
    ``async with instance:``, drops what is unread, and `terminate` drops all but how it ended.
    """

    def __init__(self, driver: Driver, instance_id: str, *, detached: bool) -> None:
        self._driver = driver
        self._id = instance_id
        self._detached = detached
        self._receiving = False
        self._closed = False
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

    async def receive(self) -> Received:
        """The next event: its kind, and its data (``bytes`` for `Event.Blob`, else ``str``).

        Waits for one if there is none. The last one is terminal (`Event.is_terminal`); behind it
        this raises `trio.EndOfChannel`. Events received before the connection ended are still
        given, then what that end means is raised (`ConnectionLost` or `RemoteProtocolError`).
        Raises `trio.BusyResourceError` while another task reads, `trio.ClosedResourceError` after
        `aclose`, also in a task that was waiting, and `LocalProtocolError` for a detached instance.
        Cancel-safe: no event is lost.
        """
        self._check_reader()
        if self._end is not None:
            raise trio.EndOfChannel
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            self._since_checkpoint = 0
            while (received := self._take()) is None:
                await self._driver.readable(self._id)
        finally:
            self._receiving = False
        return received

    def receive_nowait(self) -> Received:
        """As `receive`, but raises `trio.WouldBlock` if there is no event now."""
        self._check_reader()
        if self._end is not None:
            raise trio.EndOfChannel
        received = self._take()
        if received is None:
            raise trio.WouldBlock
        return received

    async def recv(self) -> Received:
        """The guide's `receive`: behind the end, it raises `InstanceEnded`, which tells how."""
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise self._ended() from None

    async def __anext__(self) -> Received:
        """The next event; the iteration ends behind the terminal one. As `receive` otherwise.

        A checkpoint at least every 64 events, and whenever there is none to give.
        """
        try:
            if self._since_checkpoint < _EVENTS_PER_CHECKPOINT:
                self._since_checkpoint += 1
                return self.receive_nowait()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        except trio.WouldBlock:
            pass
        return await super().__anext__()

    async def result(self) -> str:
        """Wait for the end, dropping what comes before it; the program's return value.

        Raises `InstanceFailed` if it did not complete. Cancel-safe: the end is not lost. Once the
        end was read, it is told again at any time.
        """
        if self._end is None:
            async for _ in self:
                pass
        else:
            await trio.lowlevel.checkpoint()
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
        if self._closed:
            raise trio.ClosedResourceError(f"the events of instance {self._id} were discarded")
        if self._receiving:
            raise trio.BusyResourceError(f"another task is reading instance {self._id}")

    def _ended(self) -> InstanceEnded:
        if self._end is None:
            return InstanceEnded(
                f"instance {self._id} has ended or is being terminated; how, receive() tells",
                event=None,
            )
        event, data = self._terminal()
        return InstanceEnded(
            f"instance {self._id} has ended: {event.name}" + (f": {data}" if data else ""),
            event=event,
            data=data,
        )

    def _take(self) -> Received | None:
        if self._closed:
            raise trio.ClosedResourceError(f"the events of instance {self._id} were discarded")
        unread = self._driver.read_instance(self._id)
        if unread is None:
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
        await trio.lowlevel.checkpoint()
        await self._driver.room()
        self._check_told()
        self._driver.submit(c.SendMessage(self._id, message))

    async def upload_blob(
        self, blob: UploadContent, /, *, progress: Progress | None = None
    ) -> None:
        """Upload binary data to the instance; returns when the server has handed it over.

        ``blob`` and ``progress`` as in `TrioPieClient.upload_program`. Raises `UploadFailed`, and
        `InstanceEnded` if the instance is over. Cancelled, it takes back what was sent.
        """
        self._check_told()
        with await open_content(blob) as content:
            self._check_told()
            command = c.UploadBlob(
                instance_id=self._id, size=content.size, hash=content.hash, data=content.data
            )
            await upload(self._driver, command, content, progress)

    def _check_told(self) -> None:
        if self._detached:
            raise LocalProtocolError(
                f"instance {self._id} was launched detached: attach_instance() gives an instance "
                "that can be spoken to"
            )
        state = self._driver.connection.instance_state(self._id)
        if state in _OVER and self._driver.closed is None and not self._closed:
            raise self._ended()

    # -------------------------------------------------------------------------------------- ending

    async def terminate(self) -> None:
        """Terminate the instance: its unread output is dropped, its terminal event is not.

        Raises `TerminateFailed`. Cancelled, also before, the instance is terminated all the same.
        """
        await request(self._driver, c.TerminateInstance(self._id))

    def discard(self) -> None:
        """`aclose`, at once: drop what is unread and all that the instance still says. It runs on.

        To the server it stays attached to this connection, so nobody can attach it before the
        connection or the instance has ended. Idempotent.
        """
        self._closed = True
        self._driver.connection.discard(self._id)
        self._driver.wake(self._id)
        self._driver.touched()

    async def aclose(self) -> None:
        """`discard`, and a checkpoint. Cancelled, it is closed all the same."""
        self.discard()
        await trio.lowlevel.checkpoint()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not aclose(): a cancellation would take the place of what the body raised.
        self.discard()
        await trio.lowlevel.cancel_shielded_checkpoint()
