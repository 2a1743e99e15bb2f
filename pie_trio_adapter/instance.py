"""`Instance`, a program that runs on the server: what it says, and what it is told."""

from __future__ import annotations

import os
from types import TracebackType
from typing import assert_never

import trio

from pie_files import BlobFolder, UploadContent
from pie_proto import commands as c
from pie_proto.events import Event
from pie_proto.instance_view import EVENTS_PER_CHECKPOINT, InstanceView, Received, Refusal
from pie_proto.json_text import JSONValue
from pie_proto.limits import DEFAULT_TIMEOUT, Timeout
from pie_trio_adapter.driver import Driver
from pie_trio_adapter.requests import Progress, request, upload
from pie_trio_adapter.sources import open_content
from pie_trio_adapter.threads import in_thread

__all__ = ["Instance", "Received"]


class Instance(trio.abc.ReceiveChannel[Received]):
    """A program that runs on the server, and the channel on which its events come.

    Its events are read with `receive`, `receive_nowait`, ``async for``, `recv` or `result`, by one
    task at a time. They wait in memory until they are read; when too many wait, all of the
    connection's reading pauses. Whoever does not want them says so: `aclose`, or the end of an
    ``async with instance:``, drops what is unread, and `terminate` drops all but how it ended.
    """

    def __init__(self, driver: Driver, instance_id: str, *, detached: bool) -> None:
        self._driver = driver
        self._view = InstanceView(driver.dispatcher, instance_id, detached=detached)
        self._since_checkpoint = 0
        self._blobs: BlobFolder | None = None

    @property
    def id(self) -> str:
        """The server's name for the instance, by which it can be attached."""
        return self._view.id

    @property
    def detached(self) -> bool:
        """Whether it was launched detached, so that its events do not come here."""
        return self._view.detached

    def __repr__(self) -> str:
        return repr(self._view)

    # ------------------------------------------------------------------------------------- reading

    async def receive(self) -> Received:
        """The next event: its kind, and its data (``bytes`` for `Event.Blob`, else ``str``).

        Those ``bytes`` are a `ReceivedBlob`, which has a name and can be saved to a file.

        Waits for one if there is none. The last one is terminal (`Event.is_terminal`); behind it
        this raises `trio.EndOfChannel`. Events received before the connection ended are still
        given, then what that end means is raised (`ConnectionLost` or `RemoteProtocolError`).
        Raises `trio.BusyResourceError` while another task reads, `trio.ClosedResourceError` after
        `aclose`, also in a task that was waiting, and `LocalProtocolError` for a detached instance.
        Cancel-safe: no event is lost.
        """
        self._check_reading()
        view = self._view
        view.receiving = True
        try:
            await trio.lowlevel.checkpoint()
            self._since_checkpoint = 0
            while (received := self._take()) is None:
                if self._blobs is not None and view.piece is not None:
                    path = await in_thread(self._blobs.writing(view.piece))
                    view.piece = None
                    self._blobs.settled()
                    if path is not None:
                        return Event.Blob, path
                elif view.discarded:
                    raise trio.ClosedResourceError(str(view.error(Refusal.DISCARDED)))
                else:
                    await self._driver.dispatcher.readable(view.id).wait()
        finally:
            view.receiving = False
        return received

    def receive_nowait(self) -> Received:
        """As `receive`, but raises `trio.WouldBlock` if there is no event now.

        A blob that is saved to a file is a matter for `receive`.
        """
        self._check_reading()
        received = self._take()
        if received is None:
            raise trio.WouldBlock
        return received

    async def recv(self) -> Received:
        """The guide's `receive`: behind the end, it raises `InstanceEnded`, which tells how."""
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise self._view.error(Refusal.ENDED) from None

    def recv_nowait(self) -> Received:
        """`receive_nowait`, but behind the end it raises `InstanceEnded`, which tells how."""
        try:
            return self.receive_nowait()
        except trio.EndOfChannel:
            raise self._view.error(Refusal.ENDED) from None

    async def __anext__(self) -> Received:
        """The next event; the iteration ends behind the terminal one. As `receive` otherwise.

        A checkpoint at least every 64 events, and whenever there is none to give.
        """
        try:
            if self._since_checkpoint < EVENTS_PER_CHECKPOINT:
                self._since_checkpoint += 1
                return self.receive_nowait()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        except trio.WouldBlock:
            pass
        return await super().__anext__()

    async def result(self) -> JSONValue:
        """Wait for the end, dropping what comes before it; the program's return value.

        Servers up to 0.2 give it as text. Later ones give JSON, which is read here; a string comes
        as it is, so a program that returns the text ``5`` and one that returns the number give 5.
        What is no JSON, ``""`` for nothing among it, stays text. The text itself is always the data
        of `Event.Completed`.

        Raises `InstanceFailed` if it did not complete. Cancel-safe: the end is not lost. Once the
        end was read, it is told again at any time.
        """
        if self._view.end is None:
            async for _ in self:
                pass
        else:
            await trio.lowlevel.checkpoint()
        return self._view.result()

    def _check_reading(self) -> None:
        self._driver.home.check(repr(self))
        refusal = self._view.refusal()
        match refusal:
            case None:
                return
            case Refusal.DETACHED:
                raise self._view.error(refusal)
            case Refusal.BUSY:
                raise trio.BusyResourceError(str(self._view.error(refusal)))
            case Refusal.DISCARDED:
                raise trio.ClosedResourceError(str(self._view.error(refusal)))
            case Refusal.ENDED:
                raise trio.EndOfChannel
            case _:
                assert_never(refusal)

    def _take(self) -> Received | None:
        try:
            received = self._view.take()
        except BaseException:
            self._close_blobs()
            raise
        if self._view.end is not None:
            self._close_blobs()
        return received

    def save_blobs(self, folder: str | os.PathLike[str]) -> None:
        """Receive blobs into files of ``folder``, piece by piece, instead of into memory.

        From now on the data of an `Event.Blob` is a path, ``folder/HASH``, where HASH is the BLAKE3
        hash of the content, which has been checked. They may be of any size; while one is being
        received it is a file that ends in ``.part``, which is removed if it never becomes whole.
        Files are written, in a worker thread, when events are read; what the system says no to
        (`OSError`) is raised there, nothing is lost by it, and the next read tries again.

        Raises `NotADirectoryError` if there is no such folder. Nothing changes for a blob of which
        this client has pieces already, but that it is written to its file when it is whole.
        """
        self._driver.home.check(repr(self))
        self._blobs = BlobFolder(folder)
        self._view.save_blobs()

    def _close_blobs(self) -> None:
        # Blobs that never become whole are rare, and a file is removed in microseconds.
        if self._blobs is not None:
            self._blobs.close()

    # ------------------------------------------------------------------------------------- telling

    async def send(self, message: str, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Send a text to the instance; returns when it is accepted for sending.

        Nothing tells whether the program receives it. If the program has ended and its end is
        unread, the message is dropped: `recv` will tell. Waits while too much is unsent; raises
        `RequestTimeout` if that takes longer than ``timeout`` seconds. Raises `InstanceEnded` after
        the end was read, and after `terminate`. Cancelled, nothing was sent.
        """
        self._driver.home.check(repr(self))
        self._view.check_message()
        await trio.lowlevel.checkpoint()
        command = c.SendMessage(self._view.id, message)
        await self._driver.room(command, timeout)
        self._view.check_message()
        self._driver.dispatcher.submit(command, trio.current_time())

    async def upload_blob(
        self,
        blob: UploadContent,
        /,
        *,
        progress: Progress | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> None:
        """Upload binary data to the instance; returns when the server has handed it over.

        Where ``client.server.confirms_blobs`` is false (servers 0.3 and later), it returns when the
        last chunk is on its way, unconfirmed: nothing tells whether the program gets it, nor that
        it does not. Have the program say that it waits, and that it got it.

        ``blob``, ``progress`` and ``timeout`` as in `TrioPieClient.upload_program`. Raises
        `UploadFailed`; `RequestTimeout`; `InstanceEnded` if the instance is over. Cancelled, it
        takes back what was sent.
        """
        self._driver.home.check(repr(self))
        self._view.check_blob()
        announced = c.UploadBlob(instance_id=self._view.id, size=0, hash="")
        with await open_content(blob, announced, self._driver.connection.server) as content:
            self._view.check_blob()
            await upload(self._driver, content, progress, timeout)

    # -------------------------------------------------------------------------------------- ending

    async def terminate(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Terminate the instance: its unread output is dropped, its terminal event is not.

        Raises `TerminateFailed`; `RequestTimeout`. Cancelled, also before, the instance is
        terminated all the same.
        """
        await request(self._driver, c.TerminateInstance(self._view.id), timeout=timeout)

    def discard(self) -> None:
        """`aclose`, at once: drop what is unread and all that the instance still says. It runs on.

        To the server it stays attached to this connection, so nobody can attach it before the
        connection or the instance has ended. Idempotent.
        """
        self._driver.home.check(repr(self))
        self._view.discard()
        self._close_blobs()

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
