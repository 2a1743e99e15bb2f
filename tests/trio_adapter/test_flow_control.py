"""What nobody reads makes nobody else wait for ever, and is not lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from pie_proto import DEFAULT_LIMITS
from pie_trio_adapter import Event, Instance, RequestTimeout, TrioPieClient
from tests.trio_adapter.world import NARROW, SOON, connected, in_trio, launch, other_process

PIECE = 64 * 1024
PIECES = 200  # 13 MB


async def flooded(client: TrioPieClient) -> Instance:
    """An instance with so much to say that reading is paused, once nobody reads it."""
    instance = await launch(client, "flood", [str(PIECES)])
    while not client.statistics().reading_paused:
        await trio.lowlevel.checkpoint()
    return instance


@in_trio
async def test_a_ping_behind_unread_output_names_the_instance_and_nothing_is_lost(
    url: str,
) -> None:
    async with connected(url, limits=NARROW) as client:
        instance = await flooded(client)
        with pytest.raises(RequestTimeout, match=instance.id):
            await client.ping()
        text = "".join([str(data) async for event, data in instance if event is Event.Stdout])
        starts = [text[at : at + 16] for at in range(0, len(text), PIECE)]
        assert starts == [f"{number:016}" for number in range(PIECES)]
        await client.ping()


@in_trio
async def test_what_makes_room_works_at_once(url: str) -> None:
    async with connected(url, limits=replace(NARROW, close_timeout=10 * SOON)) as client:
        instance = await flooded(client)
        await instance.terminate()
        assert await instance.receive() == (Event.Aborted, "Signal termination")
        await client.ping()
        await (await flooded(client)).aclose()
        await client.ping()
        async with await flooded(client):
            pass
        await client.ping()
        await flooded(client)
        with trio.fail_after(SOON):
            await client.aclose()


@in_trio
async def test_messages_wait_while_the_server_takes_none_and_then_all_arrive() -> None:
    sent = 0
    async with other_process() as server, connected(server.url) as client:
        instance = await launch(client, "sleep")
        server.stop()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                nonlocal sent
                for _ in range(200):
                    await instance.send("x" * 100_000)
                    sent += 1

            nursery.start_soon(send)
            nursery.start_soon(client.ping)
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < sent < 200
            assert client.statistics().unsent_bytes < 2 * DEFAULT_LIMITS.unsent_bytes
            server.resume()
        assert sent == 200
        await client.ping()


@in_trio
async def test_terminating_does_not_wait_for_room() -> None:
    async with other_process() as server, connected(server.url) as client:
        instance = await launch(client, "sleep")
        server.stop()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                while True:
                    await instance.send("x" * 100_000)

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            pending = client.statistics().requests_pending
            nursery.start_soon(instance.terminate)
            await trio.testing.wait_all_tasks_blocked()
            assert client.statistics().requests_pending == pending + 1
            server.resume()
            nursery.cancel_scope.cancel()
