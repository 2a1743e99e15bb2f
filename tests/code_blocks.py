"""The Python in the documentation, and what its fences say it is.

The words behind a fence say what the block is, and so what a test does with it:

===========================  =====================================================================
``python``                   a whole program that needs nothing; it prints what its comments say
``python fragment``          a piece of a program; it compiles
``python PATH``              that file
``python sample NAME``       a whole program that wants a server; it is run against one
``python piece NAME``        what stands in place of the dots of its page's sample ``frame``
``python piece NAME FRAME``  the same, of the sample ``FRAME``
===========================  =====================================================================
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ROOT", "Block", "blocks", "prose"]

ROOT: Final = Path(__file__).parent.parent

_FENCE: Final = re.compile(r"^( *)```(\S[^\n]*)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: Path
    line: int
    info: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def kind(self) -> str:
        """What it is: the words of its fence, but names."""
        words = self.info.split(" ")
        if words[-1].endswith(".py"):
            return "python PATH"
        return " ".join(words[:2])

    @property
    def name(self) -> str:
        """The name of a sample or of a piece."""
        return self.info.split(" ")[2]

    @property
    def frame(self) -> str:
        """The name of the sample that a piece stands in."""
        return [*self.info.split(" "), "frame"][3]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of Python on a page."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        info = (found[2] or "").strip()
        if info.split(" ")[0] == "python":
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page, line, info, textwrap.dedent(found[3]))


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
