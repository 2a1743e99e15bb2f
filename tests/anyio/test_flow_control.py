"""What nobody reads makes nobody else wait for ever, and is not lost."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from pie_anyio import Event, Instance, Limits, PieClient, RequestTimeout
from pie_proto import DEFAULT_LIMITS
from tests.anyio.world import SOON, connected, launch, other_process, world

pytestmark = pytest.mark.anyio

PIECE = 64 * 1024
PIECES = 100  # 6 MiB
# As the default, but full sooner: for what does not depend on how much it is.
NARROW = Limits(unread_bytes=1024 * 1024, unread_low_bytes=512 * 1024)


async def flooded(client: PieClient, pieces: int = PIECES) -> Instance:
    """An instance with so much to say that reading is paused, once nobody reads it."""
    instance = await launch(client, "flood", [str(pieces)])
    with anyio.fail_after(SOON):
        while not client.statistics().reading_paused:
            await anyio.lowlevel.checkpoint()
    return instance


@pytest.mark.parametrize(
    ("pieces", "limits"),
    [(PIECES, NARROW), pytest.param(1600, DEFAULT_LIMITS, marks=pytest.mark.slow)],
    ids=["6 MiB", "100 MiB at the default limits"],
)
async def test_a_ping_behind_unread_output_names_the_instance_and_nothing_is_lost(
    pieces: int, limits: Limits
) -> None:
    async with world(replace(limits, request_grace=0.2)) as (_, client):
        instance = await flooded(client, pieces)
        with pytest.raises(RequestTimeout, match=instance.id):
            await client.ping()
        await read_all(instance, pieces)
        await client.ping()


async def read_all(instance: Instance, pieces: int = PIECES) -> None:
    """Read to the end, and see that every byte came, once and in order."""
    length = 0
    rest = ""
    number = 0
    async for event, data in instance:
        if event is Event.Completed:
            break
        assert event is Event.Stdout
        rest += str(data)
        length += len(data)
        while len(rest) >= PIECE:
            assert rest[:16] == f"{number:016}"
            rest = rest[PIECE:]
            number += 1
    assert (number, rest, length) == (pieces, "", pieces * PIECE)


async def test_terminate_works_at_once_and_keeps_the_end() -> None:
    async with world(NARROW) as (_, client):
        instance = await flooded(client)
        await instance.terminate()
        assert await instance.recv() == (Event.Aborted, "Signal termination")
        await client.ping()


async def test_discarding_works_at_once() -> None:
    async with world(NARROW) as (_, client):
        instance = await flooded(client)
        instance.discard()
        await client.ping()


async def test_leaving_the_instances_block_works_at_once() -> None:
    async with world(NARROW) as (_, client):
        async with await flooded(client):
            pass
        await client.ping()


async def test_closing_works_at_once() -> None:
    async with world(NARROW) as (server, _), connected(server, limits=NARROW) as client:
        await flooded(client)
        with anyio.fail_after(4):
            await client.aclose()


async def test_cancelling_a_request_behind_unread_output_leaves_the_connection_right() -> None:
    async with world(NARROW) as (_, client):
        instance = await flooded(client)
        with anyio.move_on_after(0.05):
            await client.ping()
        await read_all(instance)
        await client.ping()
        assert client.statistics().late_answers == 1


async def test_messages_wait_while_the_server_takes_none_and_then_all_arrive() -> None:
    sent = 0
    async with other_process() as server, connected(server) as client:
        instance = await launch(client, "sleep")
        server.stop()
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                nonlocal sent
                for _ in range(300):
                    await instance.send("x" * 100_000)
                    sent += 1

            tasks.start_soon(send)
            tasks.start_soon(client.ping)
            await anyio.wait_all_tasks_blocked()
            assert 0 < sent < 300
            assert client.statistics().unsent_bytes < 2 * DEFAULT_LIMITS.unsent_bytes
            server.resume()
        assert sent == 300
        await client.ping()


async def test_terminating_does_not_wait_for_room() -> None:
    async with other_process() as server, connected(server) as client:
        instance = await launch(client, "sleep")
        server.stop()
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                while True:
                    await instance.send("x" * 100_000)

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            pending = client.statistics().requests_pending
            tasks.start_soon(instance.terminate)
            await anyio.wait_all_tasks_blocked()
            assert client.statistics().requests_pending == pending + 1
            server.resume()
            tasks.cancel_scope.cancel()


async def test_a_connection_that_reads_nothing_holds_up_no_other() -> None:
    async with world(NARROW) as (server, client):
        await flooded(client)
        async with connected(server) as other:
            instance = await launch(other, "hello")
            assert await instance.result() == "done"
