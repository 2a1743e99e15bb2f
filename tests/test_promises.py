"""The table of the guide's promises fits the code: nothing is left out, every bug can be put in.

That the tests find the bugs takes longer, and is a matter for `make prove`.
"""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from pie import Event, Instance, ParsedPrivateKey, PieClient
from tests.promises import ROOT, Promise, promises

ABOUT = {promise.about for promise in promises()}


@cache
def functions(file: str) -> frozenset[str]:
    """Every function of a file that pytest would collect."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise.id)
def test_the_bug_of_a_row_can_be_put_in_and_its_test_is_there(promise: Promise) -> None:
    assert promise.with_bug((ROOT / promise.file).read_text(encoding="utf-8"))
    assert not promise.file.startswith("tests/"), "a bug in the tests proves nothing"
    assert promise.test_name in functions(promise.test_file)


def test_no_two_rows_are_the_same() -> None:
    for what in ("id", "promise"):
        counted = Counter((getattr(promise, what), promise.about) for promise in promises())
        assert [row for row, times in counted.items() if times > 1] == []
    assert len({promise.id for promise in promises()}) == len(promises())
    bugs = Counter((promise.file, promise.old, promise.new) for promise in promises())
    assert [bug for bug, times in bugs.items() if times > 1] == []


def public(kind: type) -> Iterator[str]:
    """What a class offers: its public methods and properties, inherited ones too."""
    for name, member in inspect.getmembers(kind):
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            yield f"{kind.__name__}.{name}"


def about_methods() -> set[str]:
    """What the rows are about, without parameters."""
    return {about.partition("(")[0] for about in ABOUT}


@pytest.mark.parametrize("kind", [PieClient, Instance, ParsedPrivateKey])
def test_every_public_method_has_a_row(kind: type) -> None:
    offered = set(public(kind))
    assert offered
    assert offered - about_methods() == set()


def test_every_kind_of_event_has_a_row() -> None:
    assert {str(event) for event in Event} - ABOUT == set()


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (PieClient.authenticate, ["username", "private_key", "private_key=None"]),
        (PieClient.internal_authenticate, ["token"]),
        (PieClient.upload_program, ["program"]),
        (PieClient.program_exists, ["hash"]),
        *(
            (launch, [first, "args", "args=[]", "detached", "detached=False"])
            for launch, first in (
                (PieClient.launch_instance, "hash"),
                (PieClient.launch_instance_from_registry, "name"),
            )
        ),
        (PieClient.attach_instance, ["instance_id"]),
        (PieClient.list_instances, []),
        (PieClient.terminate_instance, ["instance_id"]),
        (PieClient.ping, []),
        (PieClient.query, ["subject", "record"]),
        (Instance.send, ["message"]),
        (Instance.upload_blob, ["blob"]),
        (Instance.recv, []),
        (Instance.terminate, []),
        (ParsedPrivateKey.from_file, ["path"]),
        (ParsedPrivateKey.parse, ["text"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_every_parameter_in_the_guide_has_a_row(method: object, parameters: list[str]) -> None:
    name = getattr(method, "__qualname__", "")
    for parameter in parameters:
        assert f"{name}({parameter})" in ABOUT
    taken = inspect.signature(method).parameters  # type: ignore[arg-type]
    assert {parameter.partition("=")[0] for parameter in parameters} <= set(taken)
