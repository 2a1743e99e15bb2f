"""Proves the table of the guide's promises: puts each bug in, and looks whether its test fails.

Nothing is changed here: the work is done in copies of the project, each row in one of them after
the other. The tests of all rows must pass in a copy that is as it was. Then, for each row, the bug
is put in, its test is run, and the bug is taken out. What counts is a test that fails: one that
cannot even be set up, or finds a name that is not there, shows that the row is wrong.

    python tests/prove_guide.py [--only ID ...] [--jobs N]
"""

# ruff: noqa: T201 - a program, which prints what it found

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Final
from xml.etree import ElementTree as ET

from tests.promises import ROOT, Promise, promises

MODULES: Final = ("pie", "pie_proto", "pie_files", "pie_anyio", "pie_trio_adapter", "tests")

TEST_SECONDS: Final = 20
"""How long one test may take. A bug that makes it hang is found by pytest's own time limit."""
ROW_SECONDS: Final = 90
"""How long pytest may take for one row, its time limit notwithstanding."""
ALL_SECONDS: Final = 300
"""How long the tests of all rows may take, without a bug."""

# What a test tells that meets no bug of the row's, but one of the row.
_NO_BUG: Final = re.compile(
    r"^(?:E[ \t|]*)?(?:[a-z_]+\.)*"
    r"((?:NameError|UnboundLocalError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError)"
    r"\b[^\n]*)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one row."""

    promise: Promise
    caught: bool
    words: str
    seconds: float


class Copy:
    """A copy of the project, for one bug at a time."""

    def __init__(self, folder: Path) -> None:
        """Make it: what git tracks, and what it would if it were asked to add all."""
        self._folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.split("\0"):
            # What is deleted and not yet committed is listed all the same.
            if name and (ROOT / name).is_file():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        self._check_imports()

    def _check_imports(self) -> None:
        """What is installed in the environment is the original: it must not be what is tested."""
        code = f"for name in {MODULES!r}: print(__import__(name).__file__)"
        found = self._run("-c", code, seconds=ROW_SECONDS).stdout.splitlines()
        assert len(found) == len(MODULES), found
        for path in found:
            assert Path(path).is_relative_to(self._folder), f"{path} is not in the copy"

    def _run(
        self, *arguments: str, seconds: float, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self._folder), **variables}
        # A group of its own: a test that is killed takes its servers along.
        with subprocess.Popen(
            command, cwd=self._folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=seconds)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(command, process.returncode, said, "")

    def pytest(
        self, *arguments: str, seconds: float, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run pytest, always in the same order."""
        options = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}")
        return self._run("-m", "pytest", *options, *arguments, seconds=seconds, **variables)

    def try_row(self, promise: Promise) -> Verdict:
        """Put the bug of a row in, run its test, take the bug out."""
        began = time.monotonic()
        path = self._folder / promise.file
        report = self._folder / "report.xml"
        report.unlink(missing_ok=True)
        original = path.read_text(encoding="utf-8")
        path.write_text(promise.with_bug(original), encoding="utf-8")
        # Compiled code goes by the second and the size: with bad luck, it is that of before. So
        # there is none of a file while a bug is in it.
        _forget_compiled(path)
        try:
            ended = self.pytest(
                "-x", f"--junit-xml={report}", promise.test,
                seconds=ROW_SECONDS, PYTHONDONTWRITEBYTECODE="1",
            )  # fmt: skip
            caught, words = _judged(ended.returncode, ended.stdout, report)
        except subprocess.TimeoutExpired:
            caught, words = False, f"pytest did not end within {ROW_SECONDS} s"
        finally:
            path.write_text(original, encoding="utf-8")
            _forget_compiled(path)
        return Verdict(promise, caught, words, time.monotonic() - began)


def _forget_compiled(path: Path) -> None:
    if path.suffix == ".py":
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


def _judged(exit_code: int, said: str, report: Path) -> tuple[bool, str]:
    """Whether a test failed as one does that finds a bug, and in which words."""
    if exit_code == 0:
        return False, "the test passes with the bug in the code"
    if exit_code != 1 or not report.exists():
        return False, f"pytest ended with {exit_code}: {said[-1500:]}"
    suite = ET.parse(report).getroot().find("testsuite")
    failures = [] if suite is None else [*suite.iter("failure")]
    if suite is None or int(suite.get("errors", "0")) or not failures:
        return False, f"the test cannot be set up with the bug in the code: {said[-1500:]}"
    message = failures[0].get("message", "")
    if wrong := _NO_BUG.search(message) or _NO_BUG.search(failures[0].text or ""):
        return False, f"not a bug, but a mistake of the row: {wrong[1]}"
    return True, " ".join(message.split())


def check_unchanged(copy: Copy, rows: Sequence[Promise]) -> None:
    """Run the tests of all rows without a bug: they must pass."""
    began = time.monotonic()
    tests = dict.fromkeys(row.test for row in rows)
    ended = copy.pytest(*tests, seconds=ALL_SECONDS)
    if ended.returncode != 0:
        sys.exit(f"{ended.stdout}\nthe tests do not pass as it is: nothing can be proved")
    took = time.monotonic() - began
    print(f"{len(tests)} tests pass without a bug ({took:.0f} s)", flush=True)


def try_rows(copies: Sequence[Copy], rows: Sequence[Promise]) -> list[Verdict]:
    """Try all rows, as many at a time as there are copies; tell each as it comes."""
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(row: Promise) -> Verdict:
        copy = free.get()
        try:
            return copy.try_row(row)
        finally:
            free.put(copy)

    verdicts = []
    width = max(len(row.id) for row in rows)
    with ThreadPoolExecutor(len(copies)) as threads:
        for future in as_completed([threads.submit(one, row) for row in rows]):
            verdict = future.result()
            verdicts.append(verdict)
            words = verdict.words[:100] if verdict.caught else verdict.words
            print(
                f"{'caught' if verdict.caught else 'NOT CAUGHT':<10}  "
                f"{verdict.promise.id:<{width}}  {verdict.seconds:5.1f} s  {words}",
                flush=True,
            )
    return verdicts


def main() -> int:
    """Prove the table, or some rows of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="ID", nargs="+", help="prove these rows only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="rows at a time")
    arguments = parser.parse_args()
    rows = [row for row in promises() if arguments.only is None or row.id in arguments.only]
    if unknown := set(arguments.only or ()) - {row.id for row in rows}:
        parser.error(f"there is no row {', '.join(sorted(unknown))}")
    began = time.monotonic()
    with TemporaryDirectory(prefix="prove-guide-") as folder:
        jobs = max(1, min(arguments.jobs, len(rows)))
        copies = [Copy(Path(folder).resolve() / str(number)) for number in range(jobs)]
        check_unchanged(copies[0], rows)
        verdicts = try_rows(copies, rows)
    caught = sum(verdict.caught for verdict in verdicts)
    slow = sorted(verdicts, key=lambda verdict: -verdict.seconds)[:3]
    print(f"slowest: {', '.join(f'{one.promise.id} {one.seconds:.1f} s' for one in slow)}")
    print(f"{caught} of {len(rows)} removals are caught ({time.monotonic() - began:.0f} s)")
    return 0 if caught == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
