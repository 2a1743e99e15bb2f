"""Draws the pages that tell what stands in code and tables: each beside its `draw_` module.

Without arguments it writes them; with ``--check`` it fails if one is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

import draw_families
import draw_guide
import draw_limits
import draw_states

FOLDER = Path(__file__).parent

PAGES = {
    "families.md": draw_families.page,
    "guide.md": draw_guide.page,
    "limits.md": draw_limits.page,
    "states.md": draw_states.page,
}


def main(arguments: list[str]) -> int:
    """Write or check the pages."""
    drawn = {FOLDER / name: page() for name, page in PAGES.items()}
    if arguments == ["--check"]:
        old = [file.name for file, text in drawn.items() if file.read_text("utf-8") != text]
        if old:
            print(f"out of date: {', '.join(old)}; run `make docs`", file=sys.stderr)
        return len(old)
    for file, text in drawn.items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
