"""What is uploaded, taken stock of without holding up the event loop."""

from __future__ import annotations

import os

import anyio.lowlevel
import anyio.to_thread

from pie_files.sources import Content, UploadContent

__all__ = ["open_content"]


async def open_content(content: UploadContent) -> Content:
    """Open and hash what is to be uploaded, in a worker thread unless it is small.

    Bytes are not copied. Raises `OSError` for a file that cannot be read or changes meanwhile,
    `LocalProtocolError` for what is neither bytes nor a path. Cancel-safe: no file is left open.
    """
    if isinstance(content, str | os.PathLike):
        opened = await anyio.to_thread.run_sync(Content, content)
    else:
        opened = Content(content)
    try:
        if opened.blocks:
            await anyio.to_thread.run_sync(opened.take_hash)
        else:
            await anyio.lowlevel.checkpoint()
            opened.take_hash()
    except BaseException:
        opened.close()
        raise
    return opened
