"""What the examples print: in colour and with a moving bar on a terminal, plain in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from pie_anyio import Event
from pie_proto import hash_of

TERMINAL = sys.stdout.isatty()
BAR_WIDTH = 30
COLOURS = {"Stdout": "32", "Stderr": "33", "Message": "36", "Blob": "35", "Completed": "1;32"}


def paint(text: str, code: str) -> str:
    """Colour ``text``, on a terminal."""
    return f"\033[{code}m{text}\033[0m" if TERMINAL else text


def title(text: str) -> None:
    """A heading."""
    print(f"\n{paint(text, '1')}", flush=True)


def say(what: str, text: str) -> None:
    """One line: what happened, and to what."""
    print(f"{paint(f'{what:>14}', '2')}  {text}", flush=True)


class Screen:
    """Shows the events of one instance, a line at a time.

    What an instance prints comes in pieces of text, cut anywhere: a line is shown when it is whole.
    """

    def __init__(self) -> None:
        self._begun = {"Stdout": "", "Stderr": ""}

    def show(self, event: Event, data: str | bytes) -> None:
        """Show one event."""
        if isinstance(data, bytes):
            self._line(event.name, f"{len(data)} bytes, hash {hash_of(data)}")
        elif event.name in self._begun:
            *whole, self._begun[event.name] = (self._begun[event.name] + data).split("\n")
            for line in whole:
                self._line(event.name, line)
        else:
            for stream, rest in self._begun.items():
                if event.is_terminal and rest:
                    self._line(stream, rest)
            self._line(event.name, data)

    def _line(self, name: str, text: str) -> None:
        print(f"{paint(f'{name:>14}', COLOURS.get(name, '31'))}  {text}".rstrip(), flush=True)


class Progress:
    """A progress bar, to be passed as ``progress=``."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = -1

    def __call__(self, sent: int, size: int) -> None:
        """Show how far it has come: ``sent`` of ``size`` bytes."""
        percent = 100 * sent // max(size, 1)
        if not TERMINAL or percent == self._shown:
            return
        self._shown = percent
        filled = BAR_WIDTH * percent // 100
        bar = "#" * filled + "-" * (BAR_WIDTH - filled)
        print(f"\r{self._what:>14}  [{bar}] {percent:3} %  ", end="", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if TERMINAL:
            print(flush=True)
