"""One run of the real server: a process of its own, in a home of its own, gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.real_server.checkpoint import SKU
from tests.real_server.installation import Installation

__all__ = ["RealServer", "running"]

_BOOT: Final = Path(__file__).with_name("boot.py")

_BOOT_SECONDS: Final = 60
"""Seen: 1 to 6 s."""
_STOP_SECONDS: Final = 10
"""Seen: 0.2 s, unless a program spins: then it never ends by itself."""
_LAST_LINES: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RealServer:
    """A server that runs. Programs stay on it until the run is over: give each its own name."""

    uri: str
    """Where it listens: ``ws://127.0.0.1:PORT``, without a path."""
    log: Path
    """What it has said on stdout and stderr."""
    pid: int
    """Its process: what it takes of the machine can be looked up."""

    @property
    def address(self) -> tuple[str, int]:
        """The same, for a socket."""
        host, _, port = self.uri.removeprefix("ws://").partition(":")
        return host, int(port)


@contextmanager
def running(installed: Installation, home: Path) -> Iterator[RealServer]:
    """Boot a server whose files are in the empty folder ``home``. It is tried once.

    A process can boot one server only, so each run is another. It ends with this one, however this
    one ends: it reads its stdin, which nobody else holds the other end of.
    """
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            # Isolated: there is a module of the name of the server's package where tests run.
            [str(installed.python), "-I", str(_BOOT), str(installed.checkpoint), SKU],
            cwd=home,
            env=_environment(installed, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    with process:
        try:
            yield RealServer(uri=_announced(process, log), log=log, pid=process.pid)
        finally:
            _stop(process)


def _environment(installed: Installation, home: Path) -> dict[str, str]:
    """What the server is told about the machine: all that it writes comes to ``home``.

    But for what it compiles. A program's language takes 20 s the first time, and 1 s when it is
    found in ``cache``; programs that are installed go beside that, into ``inferlets``.
    """
    pie_home, runtime = home / "pie", home / "runtime"
    pie_home.mkdir()
    runtime.mkdir(mode=0o700)
    (pie_home / "cache").symlink_to(installed.compiled, target_is_directory=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PIE_HOME": str(pie_home),
        "XDG_RUNTIME_DIR": str(runtime),
        "VK_DRIVER_FILES": str(installed.driver),
        # Nothing is to be fetched while tests run: what is missing must be noticed.
        "HF_HUB_OFFLINE": "1",
    }


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    # A server that never says its line is killed, which ends the waiting for it.
    deadline = threading.Timer(_BOOT_SECONDS, _kill, [process])
    deadline.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        deadline.cancel()
    if not line:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        _kill(process)
        words = "\n".join(log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:])
        pytest.fail(f"the server did not boot ({process.returncode}):\n{words}", pytrace=False)
    return str(json.loads(line)["url"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    _kill(process)
    process.wait(_STOP_SECONDS)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # All that it started is in its group, also when it has ended itself.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
