"""A Unix socket to listen on: its file, from making it to taking it away."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio import to_thread
from anyio.abc import SocketListener

__all__ = ["unix_listener"]

_MINE_ALONE = 0o600


@asynccontextmanager
async def unix_listener(path: str, *, private: bool) -> AsyncIterator[SocketListener]:
    """Listen on a socket at ``path``, an absolute one; its file is gone afterwards.

    A file that a server left behind is replaced, one on which somebody listens is not. A
    ``private`` socket is for this user of the machine alone. Raises `OSError`.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "there are no Unix sockets on this system")
    await _check_free(path)
    listener = await anyio.create_unix_listener(path, mode=_MINE_ALONE if private else None)
    try:
        made = await to_thread.run_sync(_identity, path)
        try:
            yield listener
        finally:
            await listener.aclose()
            # Whoever moved it away, or put another in its place, has their reasons.
            if made is not None and _identity(path) == made:
                _remove(path)
    finally:
        await anyio.aclose_forcefully(listener)


async def _check_free(path: str) -> None:
    """Raise `OSError` unless there is nothing, or a socket on which nobody listens."""
    try:
        kind = (await anyio.Path(path).lstat()).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EADDRINUSE, "this is a file, and no socket", path)
    if _is_listened_on(path):
        raise OSError(errno.EADDRINUSE, "a server listens there", path)


def _is_listened_on(path: str) -> bool:
    # By hand, since this is known at once, and anyio would wait for a server that is busy.
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # so busy that it takes no more
        return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - as the other calls here
