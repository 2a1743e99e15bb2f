"""The table of the guide's promises: what `guide_table.toml` says, row by row.

A row is a promise of the user guide, the test that proves it, and a bug: what is to be put into the
code so that the promise is broken. `tests/prove_guide.py` puts it in and looks whether that test
fails, `docs/draw_guide.py` draws the page.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "TABLE", "Promise", "promises"]

ROOT: Final = Path(__file__).parent.parent
TABLE: Final = Path(__file__).with_name("guide_table.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One row of the table."""

    id: str
    """By which the row is chosen."""
    group: str
    """The part of the guide that it belongs to."""
    about: str
    """What it is about, as one writes it in code: a method, a parameter, a kind of event."""
    promise: str
    test: str
    """The pytest node id of the test that proves it, perhaps with parameters."""
    bug: str
    """What that test would find."""
    file: str
    """Where the bug is put in, from the root of the project."""
    old: str
    new: str
    count: int = 1
    """How often ``old`` occurs in the file. Each is replaced."""

    def __post_init__(self) -> None:
        if not all((self.id, self.group, self.about, self.promise, self.bug)):
            raise ValueError(f"{TABLE.name}: {self.id or self} leaves something out")

    @property
    def test_file(self) -> str:
        """The file of the test, from the root of the project."""
        return self.test.partition("::")[0]

    @property
    def test_name(self) -> str:
        """The name of the test function."""
        return self.test.partition("::")[2].partition("[")[0]

    def with_bug(self, text: str) -> str:
        """The content of the file with the bug in it; raises `ValueError` if it does not fit."""
        if (found := text.count(self.old)) != self.count:
            raise ValueError(
                f"{self.id}: what is to be replaced in {self.file} is there {found} times, "
                f"not {self.count}"
            )
        broken = text.replace(self.old, self.new)
        if broken == text:
            raise ValueError(f"{self.id}: the bug changes nothing in {self.file}")
        if self.file.endswith(".py"):
            try:
                ast.parse(broken)
            except SyntaxError as exc:
                raise ValueError(f"{self.id}: with the bug, {self.file} is no Python") from exc
        return broken


@cache
def promises() -> tuple[Promise, ...]:
    """Every row of the table, in its order."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(
        Promise(group=group["name"], **row) for group in table["group"] for row in group["row"]
    )
