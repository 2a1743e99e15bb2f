"""`Instance`, a program that runs on the server: what it says, and what it is told."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from pie_anyio.driver import Driver, Progress
from pie_anyio.sources import open_content
from pie_anyio.threads import in_thread
from pie_files import BlobFolder, UploadContent
from pie_proto import commands as c
from pie_proto.events import Event
from pie_proto.instance_view import EVENTS_PER_CHECKPOINT, InstanceView, Refusal
from pie_proto.json_text import JSONValue
from pie_proto.limits import DEFAULT_TIMEOUT, Timeout

__all__ = ["Instance"]


class Instance:
    """A program that runs on the server.

    Its events are read with `recv`, `recv_nowait`, ``async for`` or `result`, by one task at a
    time. They wait in memory until they are read; when too many wait, all of the connection's
    reading pauses. Whoever does not want them says so: ``async with instance:`` drops what is
    unread when the block is left, and `terminate` drops all but how it ended.
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

    async def recv(self) -> tuple[Event, str | bytes]:
        """The next event: its kind, and its data (``bytes`` for `Event.Blob`, else ``str``).

        Those ``bytes`` are a `ReceivedBlob`, which has a name and can be saved to a file.

        Waits for one if there is none. The last event of an instance is a terminal one
        (`Event.is_terminal`); after it, and at once, this raises `InstanceEnded`. Events received
        before the connection ended are still given, then what that end means is raised. A detached
        instance, or a second `recv` at the same time, is a `LocalProtocolError`. Cancel-safe: no
        event is lost.
        """
        self._check_reading()
        view = self._view
        view.receiving = True
        try:
            await anyio.lowlevel.checkpoint()
            self._since_checkpoint = 0
            while (received := self._take()) is None:
                if self._blobs is not None and view.piece is not None:
                    path = await in_thread(self._blobs.writing(view.piece))
                    view.piece = None
                    self._blobs.settled()
                    if path is not None:
                        return Event.Blob, path
                elif view.discarded:
                    raise view.error(Refusal.DISCARDED)
                else:
                    await self._driver.dispatcher.readable(view.id).wait()
        finally:
            view.receiving = False
        return received

    def recv_nowait(self) -> tuple[Event, str | bytes]:
        """As `recv`, but raises ``anyio.WouldBlock`` if there is no event now.

        A blob that is saved to a file is a matter for `recv`.
        """
        self._check_reading()
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
        if self._view.end is not None:
            raise StopAsyncIteration
        if self._since_checkpoint < EVENTS_PER_CHECKPOINT:
            self._check_reading()
            received = self._take()
            if received is not None:
                self._since_checkpoint += 1
                return received
        return await self.recv()

    async def result(self) -> JSONValue:
        """Wait for the end, dropping what comes before it; the program's return value.

        Servers up to 0.2 give it as text. Later ones give JSON, which is read here; a string comes
        as it is, so a program that returns the text ``5`` and one that returns the number give 5.
        What is no JSON, ``""`` for nothing among it, stays text. The text itself is always the data
        of `Event.Completed`.

        Raises `InstanceFailed` if it did not complete. Cancel-safe: the end is not lost. Once the
        end was read, it is told again at any time.
        """
        async for _ in self:
            pass
        await anyio.lowlevel.checkpoint()
        return self._view.result()

    def _check_reading(self) -> None:
        self._driver.home.check(repr(self))
        if (refusal := self._view.refusal()) is not None:
            raise self._view.error(refusal)

    def _take(self) -> tuple[Event, str | bytes] | None:
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
        await anyio.lowlevel.checkpoint()
        command = c.SendMessage(self._view.id, message)
        await self._driver.room(command, timeout)
        self._view.check_message()
        self._driver.submit(command)

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

        ``blob``, ``progress`` and ``timeout`` as in `PieClient.upload_program`. Raises
        `UploadFailed`; `RequestTimeout`; `InstanceEnded` if the instance is over. Cancelled, it
        takes back what was sent.
        """
        self._driver.home.check(repr(self))
        self._view.check_blob()
        announced = c.UploadBlob(instance_id=self._view.id, size=0, hash="")
        with await open_content(blob, announced, self._driver.connection.server) as content:
            self._view.check_blob()
            await self._driver.upload(content, progress, timeout)

    # -------------------------------------------------------------------------------------- ending

    async def terminate(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Terminate the instance: its unread output is dropped, its terminal event is not.

        Raises `TerminateFailed`; `RequestTimeout`. Cancelled, also before, the instance is
        terminated all the same.
        """
        self._driver.home.check(repr(self))
        await self._driver.request(c.TerminateInstance(self._view.id), timeout=timeout)

    def discard(self) -> None:
        """Drop what is unread and all that the instance still says. It runs on.

        To the server it stays attached to this connection, so nobody can attach it before the
        connection or the instance has ended. A `recv` that is waiting raises `LocalProtocolError`.
        """
        self._driver.home.check(repr(self))
        self._view.discard()
        self._close_blobs()

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
