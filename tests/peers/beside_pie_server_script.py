"""Uploads, launches and listens, with ``pie_anyio`` as it is installed: on both loops, and on trio.

The program's file is the argument. What was heard goes out as JSON on stdout.
"""

import json
import sys
from pathlib import Path

import anyio
import trio

from pie_anyio import PieClient
from pie_anyio.server import serve
from pie_trio_adapter import open_client


async def with_anyio(program: Path) -> list[tuple[str, str | bytes]]:
    """As the client for both loops."""
    with anyio.fail_after(30):
        async with serve() as server, PieClient(server.url) as client:
            await client.authenticate("ada")
            program_hash = await client.upload_program(program)
            instance = await client.launch_instance(program_hash, ["left", "right"])
            return [(event.name, data) async for event, data in instance]


async def with_the_adapter(program: Path) -> list[tuple[str, str | bytes]]:
    """As the client for trio alone."""
    with trio.fail_after(30):
        async with serve() as server, open_client(server.url) as client:
            await client.authenticate("ada")
            program_hash = await client.upload_program(program)
            instance = await client.launch_instance(program_hash, ["left", "right"])
            return [(event.name, data) async for event, data in instance]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    heard = {
        "asyncio": anyio.run(with_anyio, path),
        "trio": anyio.run(with_anyio, path, backend="trio"),
        "adapter": trio.run(with_the_adapter, path),
    }
    json.dump(heard, sys.stdout)
