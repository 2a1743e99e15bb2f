"""What tests of the trio client share: a server process that asks for no proof, and a clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio.testing

from tests.programs import component


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server in another process; nobody is to do it harm."""
    registry = tmp_path_factory.mktemp("registry")
    (registry / "greeter.wasm").write_bytes(component("hello"))
    command = [sys.executable, "-m", "pie_anyio.server", "--registry", str(registry)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """A clock that jumps to what is next, when nothing else is to be done."""
    return trio.testing.MockClock(autojump_threshold=0)
