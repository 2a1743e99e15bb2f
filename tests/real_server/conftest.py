"""What the tests against the real server share: one server for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pie_proto.dialects.process import PROCESS_0_5
from tests.families.world import DRIVERS, World
from tests.programs.table import PROGRAMS
from tests.real_server.core_peer import CorePeer, connected, upload
from tests.real_server.installation import installation
from tests.real_server.running import RealServer, running

_FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever stands in this folder, before anything is selected by its marks."""
    for item in items:
        if item.path.is_relative_to(_FOLDER):
            item.add_marker("real")
            # The first test waits for the installation, too.
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The server: booted once in a run (by each worker: leave them out, it takes up to 2 GB)."""
    with running(installation(), tmp_path_factory.mktemp("real_server")) as server:
        # The first program of a language has that compiled, for up to 20 s, while its upload
        # waits: once for all, and for later runs. No test need have the patience.
        with connected(server) as peer:
            upload(peer, PROGRAMS["hello"])
        yield server


@pytest.fixture
def peer(real_server: RealServer) -> Iterator[CorePeer]:
    """The core on a connection of its own to the server, open and authenticated."""
    with connected(real_server) as peer:
        yield peer


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """What drives the client."""
    return str(request.param)


@pytest.fixture
def anyio_backend(driver: str) -> str:
    """The event loop that the driver wants."""
    return "asyncio" if driver == "asyncio" else "trio"


@pytest.fixture(scope="session")
def known() -> set[str]:
    """The programs that were uploaded in this run, by name."""
    return set()


@pytest.fixture
def world(real_server: RealServer, driver: str, known: set[str]) -> World:
    """The real server, and clients of it."""
    return World(
        uri=real_server.uri,
        name="process",
        can=PROCESS_0_5.capabilities,
        driver=driver,
        is_real=True,
        known=known,
    )
