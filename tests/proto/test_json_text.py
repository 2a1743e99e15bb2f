"""JSON that somebody else wrote is read without loss, or taken for text."""

from __future__ import annotations

import time

import pytest

from pie_proto.json_text import RepeatedKey, json_or_text, read_json

REPEATED = [
    '{"a": 1, "a": 2}',
    '{"a": 1, "a": 1}',
    '{"a": 1, "\\u0061": 2}',
    '{"": 1, "": 2}',
    '{"x": {"a": 1, "a": 2}}',
    '[[{"b": 0}, {"a": 1, "b": 2, "a": 3}]]',
    '{"a": {"b": 1, "b": 2}, "c": 3}',
]


@pytest.mark.parametrize("text", REPEATED)
def test_an_object_that_has_a_key_twice_is_not_read_but_stays_text(text: str) -> None:
    with pytest.raises(RepeatedKey, match="is there twice in one object"):
        read_json(text)
    assert json_or_text(text) == text


def test_the_key_is_named_but_not_at_any_length() -> None:
    key = "k" * 1000
    with pytest.raises(RepeatedKey) as caught:
        read_json(f'{{"a": 1, "{key}": 1, "{key}": 2}}')
    assert str(caught.value) == f"the key {'k' * 80!r} is there twice in one object"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "A": 2, "a ": 3}', {"a": 1, "A": 2, "a ": 3}),
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{"a": {"a": {"a": 1}}}', {"a": {"a": {"a": 1}}}),
        ('{"1": 1, "1.0": 2, "true": 3, "null": 4}', {"1": 1, "1.0": 2, "true": 3, "null": 4}),
        ("{}", {}),
        ("null", None),
    ],
)
def test_keys_that_differ_are_kept(text: str, value: object) -> None:
    assert read_json(text) == json_or_text(text) == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '"\\ud800"', "[" * 100_000, "{", "", "1 2"])
def test_what_is_no_json_stays_text(text: str) -> None:
    with pytest.raises(ValueError, match="."):  # noqa: RUF043 - whatever it says
        read_json(text)
    assert json_or_text(text) == text


def test_a_key_that_a_large_object_has_twice_is_found_in_time() -> None:
    pairs = ", ".join(f'"{number}": 0' for number in range(200_000))
    started = time.process_time()
    with pytest.raises(RepeatedKey, match="199999"):
        read_json(f'{{{pairs}, "199999": 1}}')
    assert time.process_time() - started < 10
