"""An embedded server in a thread of its own, for what has an event loop of its own or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from pie_anyio.server import Server, serve

__all__ = ["serving"]


@contextmanager
def serving(**options: Any) -> Iterator[Server]:
    """Serve in another thread, on asyncio, as long as the block lasts."""
    with start_blocking_portal("asyncio") as portal:
        with portal.wrap_async_context_manager(serve(**options)) as server:
            yield server
