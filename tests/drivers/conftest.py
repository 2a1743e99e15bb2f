"""What these tests share: every driver, on the event loop that it wants."""

from __future__ import annotations

import pytest

from tests.drivers.driving import DRIVERS, UVLOOP, Driver


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each driver in turn: one body over all."""
    made: Driver = request.param
    return made


@pytest.fixture(params=[*DRIVERS, UVLOOP], ids=lambda driver: driver.name)
def driver_or_uvloop(request: pytest.FixtureRequest) -> Driver:
    """Each driver in turn, and asyncio on its other event loop."""
    made: Driver = request.param
    if made.uvloop:
        pytest.importorskip("uvloop", reason="there is no uvloop for this system")
    return made
