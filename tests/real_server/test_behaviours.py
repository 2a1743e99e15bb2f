"""The behaviours of all families beside a server that people run."""

from __future__ import annotations

import pytest

from pie_proto.dialects.process import PROCESS_0_5
from tests.families.behaviours import *  # noqa: F403 - each is a test here
from tests.families.world import DRIVERS, World
from tests.real_server.running import RealServer

_KNOWN: set[str] = set()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """What drives the client."""
    return str(request.param)


@pytest.fixture
def anyio_backend(driver: str) -> str:
    """The event loop that the driver wants."""
    return "asyncio" if driver == "asyncio" else "trio"


@pytest.fixture
def world(real_server: RealServer, driver: str) -> World:
    """The real server."""
    return World(
        uri=real_server.uri,
        name="process",
        can=PROCESS_0_5.capabilities,
        driver=driver,
        is_real=True,
        known=_KNOWN,
    )
