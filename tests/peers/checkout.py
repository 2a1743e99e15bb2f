"""This checkout as others have it: a wheel, installed in an environment beside other packages."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from tests.peers.environments import keep, run

__all__ = ["Environment", "requirements", "wheel"]

_ROOT: Final = Path(__file__).parents[2]

_INSTALL_SECONDS: Final = 240


def requirements(*extras: str, without: Sequence[str] = ()) -> list[str]:
    """What the package says that it needs, and its extras."""
    project: dict[str, Any] = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))
    project = project["project"]
    needed = list(project["dependencies"])
    for extra in extras:
        needed += project["optional-dependencies"][extra]
    return [one for one in needed if re.split(r"\W", one)[0] not in without]


@cache
def wheel() -> Path:
    """The wheel of this checkout, as of now."""
    folder = Path(mkdtemp(prefix="wheel-"))
    pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet"]
    run([*pip, "--no-deps", "--wheel-dir", str(folder), str(_ROOT)], seconds=_INSTALL_SECONDS)
    (built,) = folder.glob("pie_anyio-*.whl")
    return built


class Environment:
    """A virtual environment of a test's own, in which some requirements are met already."""

    def __init__(self, folder: Path, name: str, needed: Sequence[str]) -> None:
        """Make it in ``folder``: a copy of one that is kept, which is quicker than to install."""
        digest = hashlib.sha256(repr((sys.version, needed)).encode()).hexdigest()[:16]

        def install(kept: Path) -> None:
            run([sys.executable, "-m", "venv", str(kept / ".venv")])
            pip = [str(_python(kept)), "-m", "pip", "install", "--disable-pip-version-check"]
            run([*pip, "--quiet", *needed], seconds=_INSTALL_SECONDS)

        kept = keep(f"{name}-{digest}", install)
        shutil.copytree(kept / ".venv", folder / ".venv", symlinks=True)
        self._folder = folder
        # Alone: neither this checkout nor what the environment variables say is seen from there.
        self._python = [str(_python(folder)), "-I"]

    def pip(self, *arguments: str) -> None:
        """Have it installed or uninstalled."""
        pip = [*self._python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run([*pip, *arguments], folder=self._folder, seconds=_INSTALL_SECONDS)

    def python(self, *arguments: str, stdin: str = "") -> str:
        """Run Python there; what it prints. It is to end well and to say nothing on stderr."""
        done = subprocess.run(
            [*self._python, "-W", "error", *arguments],
            cwd=self._folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout


def _python(folder: Path) -> Path:
    if sys.platform == "win32":
        return folder / ".venv" / "Scripts" / "python.exe"
    return folder / ".venv" / "bin" / "python"
