"""Families of servers are found by the names that people give."""

from __future__ import annotations

import pytest

from pie_proto.dialects import Dialect
from pie_proto.dialects.abilities import ABILITIES, lacks
from pie_proto.dialects.instance import INSTANCE
from pie_proto.dialects.process import PROCESS_0_3, PROCESS_0_5
from pie_proto.families import FAMILIES, family_named


@pytest.mark.parametrize(
    ("name", "family"),
    [("instance", INSTANCE), ("process", PROCESS_0_5), ("process-0.3", PROCESS_0_3)],
)
def test_a_family_has_a_name(name: str, family: Dialect) -> None:
    assert family_named(name) is family
    assert family.capabilities.name == name


def test_a_name_that_no_family_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'0\.2' is no family") as refused:
        family_named("0.2")
    assert all(repr(name) in str(refused.value) for name in FAMILIES)


def test_no_family_has_everything_and_each_lack_says_what_to_do() -> None:
    for family in FAMILIES.values():
        can = family.capabilities
        for ability in lacks(can):
            said = ability.missing(can)
            assert said.startswith(f"servers {can.servers} ")
            assert said.endswith(f"{ability.lack}: {ability.instead}")
        assert len(lacks(can)) > 0
    # An ability that none lacks, or none has, is none.
    for ability in ABILITIES.values():
        assert 0 < sum(ability in lacks(of.capabilities) for of in FAMILIES.values()) < 3
