"""The table of what holds with which family: `table.toml`, row by row, and its columns."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pie_proto.dialects import Capabilities
from pie_proto.dialects.abilities import ABILITIES, Ability
from pie_proto.families import family_named

__all__ = ["COLUMNS", "Column", "Row", "rows"]

_TABLE: Final = Path(__file__).with_name("table.toml")
_FIELDS: Final = {"test", "about", "ability", "only", "note"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Servers of one family, of one make."""

    id: str
    title: str
    family: str
    file: str
    """Where its tests are collected, from the root of the project."""
    parameter: str
    """What stands in the ids of its tests."""
    own_file: str = ""
    """Where tests are that no other column has."""

    @property
    def can(self) -> Capabilities:
        """What the family can."""
        return family_named(self.family).capabilities


def _embedded(family: str) -> Column:
    return Column(
        id=family,
        title=f"`{family}`",
        family=family,
        file="tests/families/test_embedded.py",
        parameter=f"{family}-asyncio",
    )


COLUMNS: Final = (
    _embedded("instance"),
    _embedded("process-0.3"),
    _embedded("process"),
    Column(
        id="real",
        title="`process`, pie-server 0.5.2",
        family="process",
        file="tests/real_server/test_behaviours.py",
        parameter="asyncio",
        own_file="tests/real_server/test_client.py",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Something that one does, and the test that shows it."""

    group: str
    test: str
    """The name of the test function."""
    about: str
    ability: Ability | None
    only: str
    note: str

    def proof(self, column: Column) -> str | None:
        """The id of the test in a column; of one with more parameters, its beginning."""
        if self.only and self.only != column.id:
            return None
        file = column.own_file if self.only else column.file
        return f"{file}::{self.test}[{column.parameter}"

    def holds(self, column: Column) -> bool:
        """Whether the servers of a column can do it."""
        return self.ability is None or self.ability.has(column.can)


@cache
def rows() -> tuple[Row, ...]:
    """All rows, in the table's order. Raises `ValueError` for one that says too little."""
    groups = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["group"]
    return tuple(_row(group["name"], row) for group in groups for row in group["row"])


def _row(group: str, row: dict[str, str]) -> Row:
    if not row.keys() <= _FIELDS or ("about" in row) is ("ability" in row):
        raise ValueError(f"{_TABLE.name}: {row} wants a test, and either about or ability")
    ability = ABILITIES[row["ability"]] if "ability" in row else None
    return Row(
        group=group,
        test=row["test"],
        about=row["about"] if ability is None else ability.about,
        ability=ability,
        only=row.get("only", ""),
        note=row.get("note", ""),
    )
