"""The programs that both kinds of server can run, each as they want it.

Embedded servers run components, real ones of today Python sources. A program that is there as both
does the same as either, so that one test body serves for both, if the arguments are ``--name`` and
``value``, one after the other::

    program = PROGRAMS["flood"]
    await client.upload_program(program.component())
    await client.upload_program(program.source(), manifest=program.manifest())
    arguments = ["--count", "3"]

What differs is the text of an exception: a component's is its own words, a source's begins with the
type and goes on with the traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.programs import component

__all__ = ["PROGRAMS", "Program"]

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Program:
    """A program by the name of its files, ``name.wat`` and ``name.py``."""

    name: str
    version: str = "0.1.0"

    @property
    def identifier(self) -> str:
        """What servers call it that know programs by name."""
        return f"{self.name}@{self.version}"

    @property
    def is_component(self) -> bool:
        """Whether it is there as a component."""
        return _FOLDER.joinpath(f"{self.name}.wat").exists()

    def component(self) -> bytes:
        """The program as a binary component, which needs no manifest."""
        return component(self.name)

    def source(self) -> bytes:
        """The program as Python source, which has one function, of the program's name."""
        return _FOLDER.joinpath(f"{self.name}.py").read_bytes()

    def manifest(self) -> str:
        """What the source is to be called, and how it is to be run (TOML)."""
        return (
            f'[package]\nname = "{self.name}"\nversion = "{self.version}"\n\n'
            f'[runtime]\nlanguage = "python"\nentry = "{self.name}"\ncall = "kwargs"\n'
        )


PROGRAMS: Final[Mapping[str, Program]] = MappingProxyType(
    {
        path.stem: Program(path.stem)
        for path in sorted(_FOLDER.glob("*.py"))
        if path.stem not in {"__init__", "table"}
    }
)
"""All that have a source, by name; those with ``is_component`` are on both kinds of server."""
