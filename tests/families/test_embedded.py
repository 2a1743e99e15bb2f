"""The behaviours beside embedded servers, which speak like servers of every family."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pie_anyio.server import serve
from pie_proto.families import family_named
from tests.families.behaviours import *  # noqa: F403 - each is a test here
from tests.families.world import World

# Every family, and every driver with the family that is new to both; the driver's own tests speak
# to the oldest.
_COMBINATIONS = [
    ("instance", "asyncio"),
    ("process-0.3", "asyncio"),
    ("process", "asyncio"),
    ("process", "trio"),
    ("process", "trio-adapter"),
]


@pytest.fixture(params=_COMBINATIONS, ids="-".join)
def combination(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A family, and a driver."""
    family, driver = request.param
    return family, driver


@pytest.fixture
def anyio_backend(combination: tuple[str, str]) -> str:
    """The event loop that the driver wants."""
    return "asyncio" if combination[1] == "asyncio" else "trio"


@pytest.fixture
async def world(combination: tuple[str, str]) -> AsyncIterator[World]:
    """An embedded server of the family."""
    family, driver = combination
    can = family_named(family).capabilities
    token = "the token of it" if can.tokens else None
    async with serve(dialect=family, internal_token=token) as server:
        yield World(uri=server.url, name=family, can=can, driver=driver)
