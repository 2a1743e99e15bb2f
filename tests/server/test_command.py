"""``python -m pie_anyio.server``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pie_anyio.server.__main__ import main
from tests.server.server_peer import LINE, SECONDS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


def _command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pie_anyio.server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
async def test_the_command_serves_until_it_is_told_to_stop(
    tmp_path: Path, anyio_backend: str
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# joe's\n{LINE}\n")
    with _command("--backend", anyio_backend, "--authorized-keys", f"joe={keys}") as process:
        try:
            assert process.stdout is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline)
            assert line.startswith("pie server listening on ws://127.0.0.1:")
            port = int(line.rpartition(":")[2])
            with anyio.fail_after(SECONDS):
                stream = await anyio.connect_tcp("127.0.0.1", port)
            await stream.aclose()
            process.send_signal(signal.SIGTERM)
            out, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=SECONDS))
            assert (out, err, process.returncode) == ("", "", 0)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "0.0.0.0"), "with authentication off"),
        (("--port", "65536"), "'65536' is no port"),
        (("--authorized-keys", "joe"), "'joe' is to be a user and a file"),
        (("--authorized-keys", "joe=no-such-file"), "no-such-file"),
        (("--authorized-keys", f"joe={__file__}"), "the keys of user 'joe'"),
        (("--authorized-keys", f"joe={sys.executable}"), "is not text"),
        (("--internal-token-file", os.devnull), "holds no token"),
        (("--registry", "no-such-folder"), "is not a folder"),
        (("--programs", __file__), "is not a folder"),
        (("--users", "no-such-file"), "no-such-file"),
        (("--users", __file__), f"{__file__} is not TOML"),
        (("--users", "users.toml", "--authorized-keys", "joe=keys"), "not allowed with argument"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as wrong_usage:
        code = wrong_usage.code
    assert code == 2
    assert words in capsys.readouterr().err


def test_without_wasmtime_the_command_says_what_to_install() -> None:
    script = """\
import sys
sys.modules["wasmtime"] = None
from pie_anyio.server.__main__ import main
heavy = {"cryptography", "trio"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else main([]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'pie-anyio[server]'" in done.stderr
