"""Preparing what is uploaded without blocking the event loop."""

from __future__ import annotations

from trio.lowlevel import checkpoint

from pie_files.sources import Content, SourceChanged, UploadContent
from pie_proto.commands import UploadCommand
from pie_proto.dialects import Capabilities
from pie_trio_adapter.threads import in_thread

__all__ = ["open_content"]


async def open_content(
    content: UploadContent, announced: UploadCommand, server: Capabilities | None
) -> Content:
    """Open and hash what is to be uploaded, in a worker thread unless it is small.

    Bytes are not copied. ``announced`` says what is done with it; its size and hash are filled in.
    Raises `OSError` for a file that cannot be read, `UploadFailed` for one that changes meanwhile,
    `LocalProtocolError` for what is neither bytes nor a path and for more than ``server`` takes.
    Cancelled, it ends at once; a file that is open by then is closed by the thread that uses it.
    """
    opened = Content(content, announced, server)
    try:
        if opened.blocks:
            await in_thread(opened.prepare)
        else:
            await checkpoint()
            opened.prepare()
    except SourceChanged as exc:
        opened.close()
        raise opened.changed(exc) from exc
    except BaseException:
        opened.close()
        raise
    return opened
