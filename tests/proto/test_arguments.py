"""Arguments as an input, and back: every rule, and what has no meaning."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_proto.arguments import arguments_from, input_from
from pie_proto.errors import LocalProtocolError
from pie_proto.json_text import read_json


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], {}),
        (["--prompt", "Hi", "--n", "3", "--flag"], {"prompt": "Hi", "n": 3, "flag": True}),
        (["--flag", "--n", "-1"], {"flag": True, "n": -1}),
        (["--max-tokens", "5"], {"max_tokens": 5}),
        (["--a=1", "--b=", "--c=x=y", "--d", ""], {"a": 1, "b": "", "c": "x=y", "d": ""}),
        (["--a=--b"], {"a": "--b"}),
        (["--a", "-b"], {"a": "-b"}),
        (["--a=true", "--b", "false", "--c", "null"], {"a": True, "b": False, "c": None}),
        (["--a", "[1,2]", "--b", '{"c": 1.5}'], {"a": [1, 2], "b": {"c": 1.5}}),
        (["--a", '"7"'], {"a": "7"}),
        (["--a", "007", "--b", "1.", "--c", "NaN", "--d", "True"],
         {"a": "007", "b": "1.", "c": "NaN", "d": "True"}),
        (["--ü", "ß"], {"ü": "ß"}),
    ],
)  # fmt: skip
def test_arguments_are_an_object_by_the_rules(
    arguments: list[str], values: dict[str, object]
) -> None:
    assert json.loads(input_from(arguments)) == values


def test_a_number_keeps_the_digits_it_has() -> None:
    assert input_from(["--n", "1.000", "--m", "9" * 30]) == '{"n": 1.000, "m": ' + "9" * 30 + "}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["positional"], "belongs to no --name"),
        (["--a", "1", "2"], "'2' belongs to no --name"),
        (["-a", "1"], "belongs to no --name"),
        (["-ab", "1"], "belongs to no --name"),
        (["--"], "belongs to no --name"),
        (["--=1"], "belongs to no --name"),
        (["--a-b", "1", "--a_b", "2"], "--a_b is there twice"),
        (["--a_b", "1", "--a-b=2"], "--a_b is there twice"),
        (["--x", '{"a": 1, "a": 2}'], "--x cannot be read as JSON: the key 'a' is there twice"),
        (['--x-y=[{"a": 1, "a": 2}]'], "--x_y cannot be read as JSON: the key 'a' is there twice"),
    ],
)
def test_what_means_nothing_to_an_object_is_refused_with_what_to_do(
    arguments: list[str], words: str
) -> None:
    with pytest.raises(LocalProtocolError, match=words) as caught:
        input_from(arguments)
    assert "input=" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("{}", ()),
        ('{"a": "Hi", "n": 3, "f": true}', ("--a", "Hi", "--n", "3", "--f")),
        ('{"a": "--x", "b": "7", "c": false}', ("--a=--x", "--b", '"7"', "--c", "false")),
        ('{"a": "{\\"b\\": 1, \\"b\\": 2}"}', ("--a", '"{\\"b\\": 1, \\"b\\": 2}"')),
        ('{"a": 1e999}', ('{"a": 1e999}',)),
        *(
            (text, (text,))
            for text in ("", "no", "[1]", '{"a-b": 1}', '{"": 1}', '{"a=b": 1}', '{"a": 1, "a": 2}')
        ),
    ],
)
def test_an_input_is_shown_as_the_arguments_that_mean_it_or_as_it_stands(
    text: str, arguments: tuple[str, ...]
) -> None:
    assert arguments_from(text) == arguments


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_an_input_survives_being_shown(given: dict[str, object]) -> None:
    text = json.dumps(given)
    arguments = arguments_from(text)
    if arguments != (text,):
        assert json.loads(input_from(arguments)) == given


@given(
    st.lists(st.sampled_from(["--a", "--b=1", "--", "x", "-1", '"', "--c=[", "[1]"]) | st.text())
)
def test_any_arguments_make_an_object_or_are_refused(arguments: list[str]) -> None:
    try:
        made = input_from(arguments)
    except LocalProtocolError:
        return
    assert isinstance(read_json(made), dict)


@given(st.text() | st.sampled_from(["[" * 100_000, '{"a":' * 100_000, '"\\ud800"', "9" * 5000]))
def test_any_text_is_json_or_a_value_error_and_is_shown(text: str) -> None:
    try:
        read_json(text)
    except ValueError:
        assert arguments_from(text) == (text,)
