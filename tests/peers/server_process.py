"""An embedded server as others meet it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["server_process"]

_SECONDS = 20


@contextmanager
def server_process(*arguments: str) -> Iterator[str]:
    """Run ``python -m pie_anyio.server`` with ``arguments``; gives its URL.

    That it ends well, and says nothing on stderr, is a test of its own.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "pie_anyio.server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # A server that never says its line is killed, which ends the waiting for it.
        deadline = threading.Timer(_SECONDS, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            deadline.cancel()
            assert "listening on ws://" in line, f"the server did not start: {line!r}"
            yield line.split()[-1]
            process.terminate()
            out, err = process.communicate(timeout=_SECONDS)
            assert (out, err, process.returncode) == ("", "", 0)
        finally:
            deadline.cancel()
            process.kill()
