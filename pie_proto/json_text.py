"""Reading JSON that somebody else wrote: where the foreign exceptions of it arise, and end."""

from __future__ import annotations

import json
from collections import Counter
from typing import NoReturn, TypeAlias

__all__ = ["JSONValue", "RepeatedKey", "json_or_text", "read_json"]

JSONValue: TypeAlias = bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"] | None
"""What JSON can say."""


class RepeatedKey(ValueError):
    """An object has the same key twice, so that one of the two values would be lost."""


def read_json(text: str) -> JSONValue:
    """What a JSON text says. Raises `ValueError` for what is none, and nothing else.

    Stricter than the library: ``NaN`` and the infinities are not JSON, and half of a surrogate pair
    is no character, though JSON can spell it: such a string could neither be sent nor printed. A
    key that an object has twice is a `RepeatedKey`: readers of JSON differ in what it means.
    """
    try:
        value: JSONValue = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    return value


def json_or_text(text: str) -> JSONValue:
    """What a text says if it is JSON as `read_json` wants it, else the text as it is."""
    try:
        return read_json(text)
    except ValueError:
        return text


def _object(pairs: list[tuple[str, JSONValue]]) -> JSONValue:
    value = dict(pairs)
    if len(value) != len(pairs):
        (repeated, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise RepeatedKey(f"the key {repeated[:80]!r} is there twice in one object")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
