"""Uploads a file as a program, which it is not, and tells how much memory that took at most.

Run in a process of its own, by ``test_upload_memory``: URL, path, backend.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import anyio

from pie_anyio import PieClient, UploadFailed

SECONDS = 100


async def main(url: str, path: str) -> None:
    """Upload, and say what came of it."""
    with anyio.fail_after(SECONDS):
        async with PieClient(url) as client:
            await client.authenticate("ada")
            try:
                await client.upload_program(Path(path))
            except UploadFailed as failed:
                json.dump({"reason": failed.reason, "peak": peak()}, sys.stdout)


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:3], backend=sys.argv[3])
