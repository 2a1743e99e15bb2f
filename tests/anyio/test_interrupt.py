"""Control-C on trio, at every line of the code that enters and leaves a client's scope."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from pie_anyio import PieClient, lifetime
from pie_anyio.server import serve
from tests.anyio.world import SOON

_MOST_LINES = 100


class Striking:
    """Sends SIGINT to this process before line number ``line`` of the module that is watched."""

    def __init__(self, line: int) -> None:
        self._left = line
        self.struck = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count lines, and strike, in the block."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._step if frame.f_code.co_filename == lifetime.__file__ else None

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and frame.f_code.co_name != "_live":
            self._left -= 1
            if self._left == 0:
                self.struck = True
                signal.raise_signal(signal.SIGINT)
        return self._step


async def _use(striking: Striking) -> None:
    with anyio.fail_after(SOON):
        async with serve() as server:
            with striking.watch():
                async with PieClient(server.url) as client:
                    await client.authenticate("ada")
            await anyio.lowlevel.checkpoint()


@pytest.fixture
def _control_c_raises() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_control_c_raises")
def test_an_interrupt_at_any_line_arrives_as_itself_and_leaves_the_scopes_in_order() -> None:
    for line in range(1, _MOST_LINES):
        striking = Striking(line)
        try:
            anyio.run(_use, striking, backend="trio")
        except KeyboardInterrupt:
            assert striking.struck
        else:
            assert not striking.struck
            break
    assert 10 < line < _MOST_LINES - 1
