"""What these tests share: every driver, on the event loop that it wants."""

from __future__ import annotations

import pytest

from tests.drivers.driving import DRIVERS, Driver


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each driver in turn: one body over all."""
    made: Driver = request.param
    return made
