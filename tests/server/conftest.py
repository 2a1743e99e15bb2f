"""What tests of the server share: a server, and that nothing of it is left."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from pie_anyio.server import Server, serve


@pytest.fixture
def tidy(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No fault of the server's own was logged, and no thread of its is left."""
    yield
    assert [record.getMessage() for record in caplog.records if record.name.startswith("pie")] == []
    for thread in threading.enumerate():
        if thread.name.startswith("pie"):
            # What has done its last act may still be on its way out.
            thread.join(0.1)
            assert not thread.is_alive(), thread


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that asks for no proof."""
    async with serve() as server:
        yield server
