"""Reading JSON that somebody else wrote: where the foreign exceptions of it arise, and end."""

from __future__ import annotations

import json
from typing import NoReturn, TypeAlias

__all__ = ["JSONValue", "json_or_text", "read_json"]

JSONValue: TypeAlias = bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"] | None
"""What JSON can say."""


def read_json(text: str) -> JSONValue:
    """What a JSON text says. Raises `ValueError` for what is none, and nothing else.

    Stricter than the library: ``NaN`` and the infinities are not JSON, and half of a surrogate pair
    is no character, though JSON can spell it: such a string could neither be sent nor printed.
    """
    try:
        value: JSONValue = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    return value


def json_or_text(text: str) -> JSONValue:
    """What a text says if it is JSON, else the text as it is."""
    try:
        return read_json(text)
    except ValueError:
        return text


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
