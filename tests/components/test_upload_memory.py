"""A large file is uploaded piece by piece: the client never has all of it in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers.server_process import server_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak"),
]

MIB = 1024 * 1024
SIZE = 256 * MIB
ALLOWED = 16 * MIB

SCRIPT = Path(__file__).with_name("upload_script.py")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_uploading_256_mib_from_a_path_takes_less_than_16_mib_more_than_1_mib(
    backend: str, tmp_path: Path
) -> None:
    with server_process() as url:
        small = peak_of_an_upload(url, tmp_path / "small", MIB, backend)
        large = peak_of_an_upload(url, tmp_path / "large", SIZE, backend)
    assert large - small < ALLOWED, f"{large / MIB:.1f} MiB, and {small / MIB:.1f} for 1 MiB"


def peak_of_an_upload(url: str, path: Path, size: int, backend: str) -> int:
    """Upload a file of ``size`` bytes in a new process; how much memory that one took at most."""
    with path.open("wb") as file:
        file.truncate(size)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), url, str(path), backend],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # All of it has arrived, and was looked at: it is no program.
    assert told["reason"].startswith("not a WebAssembly component"), told
    return int(told["peak"])
