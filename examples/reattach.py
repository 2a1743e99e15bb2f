"""Attach an instance that another process launched, and read what it has said to its end::

python examples/reattach.py URL USER KEY_FILE INSTANCE_ID
"""

from __future__ import annotations

import sys

import anyio
from terminal import Screen, say

from pie_anyio import ParsedPrivateKey, PieClient


async def main(url: str, user: str, key_file: str, instance_id: str) -> None:
    """A client that knows nothing but the instance's id."""
    async with PieClient(url) as client:
        await client.authenticate(user, ParsedPrivateKey.from_file(key_file))
        for info in await client.list_instances():
            say("listed", f"{info.id}: {info.status}")
        instance = await client.attach_instance(instance_id)
        say("attached", f"{instance.id}, in another process")
        screen = Screen()
        async for event, data in instance:
            screen.show(event, data)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    anyio.run(main, *sys.argv[1:])
