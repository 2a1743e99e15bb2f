"""A client as a fixture of pytest-asyncio, which sets up and tears down in tasks of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pie_anyio import PieClient
from pie_anyio.server import serve
from tests.anyio.world import launch


@pytest_asyncio.fixture
async def pie() -> AsyncIterator[PieClient]:
    async with serve() as server:
        client = PieClient(server.url)
        await client.connect()
        await client.authenticate("fixture")
        yield client
        await client.aclose()


@pytest.mark.asyncio
async def test_a_pytest_asyncio_fixture_gives_a_connected_client(pie: PieClient) -> None:
    instance = await launch(pie, "hello")
    assert await instance.result() == "done"
