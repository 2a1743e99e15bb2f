"""The real server as a process: how it fails, and that it never stays behind."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.table import PROGRAMS
from tests.real_server.core_peer import connected, upload
from tests.real_server.installation import installation
from tests.real_server.running import RealServer, running

SECONDS = 60

STARTS_ONE = """
import json, pathlib, sys
from tests.real_server.installation import installation
from tests.real_server.running import running
with running(installation(), pathlib.Path(sys.argv[1])) as server:
    print(json.dumps({"uri": server.uri, "pid": server.pid}), flush=True)
    sys.stdin.read()
"""


def test_a_server_that_does_not_boot_fails_with_its_last_words(tmp_path: Path) -> None:
    nowhere = installation()._replace(checkpoint=tmp_path / "nowhere")
    with pytest.raises(pytest.fail.Exception, match=r"did not boot \(1\):[\s\S]*nowhere"):
        with running(nowhere, tmp_path):
            pass


def test_a_server_ends_with_those_who_were_killed_even_while_a_program_spins(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        try:
            assert starter.stdout is not None
            server = RealServer(**json.loads(starter.stdout.readline()), log=tmp_path / "log")
            watch = os.pidfd_open(server.pid)
            with connected(server) as peer:
                upload(peer, PROGRAMS["loop"])
                instance_id = peer.launch(PROGRAMS["loop"])
                assert peer.next_event(instance_id).data == "looping"
                starter.kill()
                assert has_ended(watch)
        finally:
            starter.kill()


def has_ended(process: int) -> bool:
    """Wait until a process has ended, for some time; lets go of it."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    try:
        return bool(poll.poll(SECONDS * 1000))
    finally:
        os.close(process)
