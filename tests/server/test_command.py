"""``python -m pie_anyio.server``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest

from pie_anyio import AuthenticationError, PieClient
from pie_anyio.server.__main__ import _read, main
from pie_proto import hash_of
from tests.programs import component
from tests.server.server_peer import LINE, SECONDS

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


def _command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pie_anyio.server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_of_keys_is_read_in_the_encoding_that_it_has(tmp_path: Path, encoding: str) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(f"# joe's\r\n{LINE}\r\n".encode(encoding))
    assert _read(keys) == f"# joe's\n{LINE}\n"


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


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_keeps_programs_and_knows_its_users(
    stop: signal.Signals, anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process and thread, since signals go to the main one; clients are in another."""
    program = component("hello")
    (tmp_path / "users.toml").write_text(f"[joe]\nkeys = ['{LINE}']")
    (tmp_path / "token").write_text("s3cret\n")
    found: list[bool] = []

    async def use(url: str) -> None:
        async with PieClient(url) as client:
            await client.internal_authenticate("s3cret")
            found.append(await client.program_exists(hash_of(program)))
            await client.upload_program(program)
        async with PieClient(url) as client:
            with pytest.raises(AuthenticationError, match="'ann' is not authorized"):
                await client.authenticate("ann")

    def be_client(reader: int) -> None:
        with os.fdopen(reader, encoding="utf-8") as lines:
            url = lines.readline().split()[-1]
        try:
            anyio.run(use, url)
        finally:
            # It serves, so it hears the signal.
            os.kill(os.getpid(), stop)

    for _ in range(2):
        reader, writer = os.pipe()
        thread = threading.Thread(target=be_client, args=(reader,))
        thread.start()
        with os.fdopen(writer, "w", encoding="utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            code = main(
                [
                    *("--backend", anyio_backend, "--users", str(tmp_path / "users.toml")),
                    *("--internal-token-file", str(tmp_path / "token")),
                    *("--programs", str(tmp_path / "programs")),
                ]
            )
            monkeypatch.undo()
        thread.join(SECONDS)
        assert code == 0
    assert found == [False, True]


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
        (("--dialect", "esperanto"), "process-0.3"),
        (("--dialect", "process", "--internal-token-file", __file__), "know no internal token"),
        (("--users", "no-such-file"), "no-such-file"),
        (("--users", __file__), f"{__file__} is not TOML"),
        (("--users", "users.toml", "--authorized-keys", "joe=keys"), "--users"),
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
    # Before its "error: ", argparse prints how the command is used, with every option.
    assert words in capsys.readouterr().err.rpartition("error: ")[2]


def test_without_wasmtime_the_command_says_what_to_install() -> None:
    script = """\
import sys
sys.modules["wasmtime"] = None
from pie_anyio.server.__main__ import _read, main
heavy = {"cryptography", "trio"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else main([]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'pie-anyio[server]'" in done.stderr
