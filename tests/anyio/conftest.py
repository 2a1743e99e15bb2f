"""What tests of the client share: a world that is the same whatever carries it."""

from __future__ import annotations

from functools import partial

import pytest

from tests.anyio import world as worlds


@pytest.fixture(params=["tcp", "memory"])
def world(request: pytest.FixtureRequest) -> worlds.World:
    """A server and a client of it: one body per behaviour, over every transport."""
    return partial(worlds.world, in_memory=request.param == "memory")
