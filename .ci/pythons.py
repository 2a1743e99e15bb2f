"""Run the tests on every other supported Python that this machine has.

The supported ones are those that the classifiers of ``pyproject.toml`` name. Each is looked for in
the PATH and among the versions of pyenv, and gets an environment of its own under ``.cache``. Those
that are not found are named, and are no failure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_CLASSIFIER = re.compile(r'"Programming Language :: Python :: (3\.[0-9]+)"')
# A Python that makes no virtual environments is of no use here: Debian has such.
_PROBE = "import ensurepip, sys, venv; print(*sys.version_info[:3], sep='.')"
_SECONDS = 30


def _candidates(minor: str) -> Iterator[str]:
    if on_path := shutil.which(f"python{minor}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    patches = {int(path.name.rpartition(".")[2]): path for path in pyenv.glob("versions/3.*.*")
               if re.fullmatch(re.escape(minor) + r"\.[0-9]+", path.name)}  # fmt: skip
    for _, path in sorted(patches.items(), reverse=True):
        yield str(path / "bin" / "python")


def _find(minor: str) -> tuple[str, str] | None:
    """The path and the full version of the first that runs: a shim of pyenv may lead nowhere."""
    for path in _candidates(minor):
        try:
            probe = subprocess.run(
                [path, "-c", _PROBE], capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = probe.stdout.strip()
        if probe.returncode == 0 and version.startswith(f"{minor}."):
            return path, version
    return None


def main() -> int:
    """Run ``make test`` with each; 1 if one fails."""
    own = ".".join(map(str, sys.version_info[:2]))
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    others = [minor for minor in _CLASSIFIER.findall(text) if minor != own]
    found = {minor: python for minor in others if (python := _find(minor))}
    missing = [minor for minor in others if minor not in found]
    print(f"supported: {', '.join([own, *others])}; this one: {sys.version.split()[0]}")
    print(f"found: {', '.join(version for _, version in found.values()) or 'no other'}")
    print(f"not found here, so not tested: {', '.join(missing) or 'none'}", flush=True)
    results: list[str] = []
    failed = False
    for minor, (path, version) in found.items():
        start = time.monotonic()
        print(f"== Python {version}", flush=True)
        make = [os.environ.get("MAKE", "make"), "test"]
        options = [f"PYTHON={path}", f"VENV=.cache/python/{minor}"]
        status = subprocess.run([*make, *options], cwd=_ROOT, check=False).returncode
        failed = failed or status != 0
        said = "passed" if status == 0 else "failed"
        results.append(f"Python {version}: {said} after {time.monotonic() - start:.0f} s")
    print(*results, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
