"""What tests of openings share: every driver, and the event loop that it wants."""

from __future__ import annotations

import pytest

from tests.families.world import DRIVERS


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """What drives the client: one body over all."""
    return str(request.param)


@pytest.fixture
def anyio_backend(driver: str) -> str:
    """The event loop that the driver wants."""
    return "asyncio" if driver == "asyncio" else "trio"
