"""The end of a connection or instance: nothing that arrived is lost, nobody waits past it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from blake3 import blake3
from wsproto import events as ws

from pie_anyio import ConnectionLost, Event, InstanceEnded, Limits, RemoteProtocolError
from tests.drivers.driving import SOON, Driver
from tests.drivers.peer import INSTANCE, Line, Script, playing

SMALL = Limits(unread_bytes=4_000, unread_low_bytes=1_000, request_grace=1e6)
"""Limits under which a few events pause reading, and no request fails for that."""

TEXTS = [f"{n:02}" + "." * 700 for n in range(12)]

ASKING: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "ping": lambda client, _: client.ping(timeout=None),
    "query": lambda client, _: client.query("model_status", "", timeout=None),
    "list": lambda client, _: client.list_instances(timeout=None),
    "launch": lambda client, _: client.launch_instance("0" * 64, timeout=None),
    "upload": lambda client, _: client.upload_program(b"x" * 300_000, timeout=None),
    "upload a blob": lambda _, instance: instance.upload_blob(b"x" * 300_000, timeout=None),
    "terminate": lambda _, instance: instance.terminate(timeout=None),
    "terminate another": lambda client, _: client.terminate_instance("another", timeout=None),
}


def floods_and_ends(how: str) -> Script:
    """A server that sends more than the client keeps unread, and then the end."""

    def script(line: Line) -> None:
        line.open()
        line.accept_user()
        line.accept_launch()
        line.send(*map(line.stdout, TEXTS))
        match how:
            case "Close at once":
                line.send(ws.CloseConnection(code=1012, reason="restart"))
                line.wait_for_the_test()
            case "Close after a request":
                line.message()
                line.send(ws.CloseConnection(code=1012, reason="restart"))
                line.wait_for_the_test()
            case "EOF after a request":
                line.message()
            case _:
                assert how == "EOF at once"

    return script


async def paused(client: Any) -> None:
    """Wait until so much is unread that reading is paused, or the end has come."""
    while client.is_connected and not client.statistics().reading_paused:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize(
    "end", ["Close at once", "EOF at once", "Close after a request", "EOF after a request"]
)
def test_the_end_reaches_every_request_past_unread_events(
    driver: Driver, end: str, asking: str
) -> None:
    async def main() -> None:
        async with driver.client(peer.uri, dialect="instance", limits=SMALL) as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            await paused(client)
            with pytest.raises(ConnectionLost):
                await ASKING[asking](client, instance)
            read = [data async for _, data in _until_lost(instance)]
            # A terminate that was still accepted drops what is unread; nothing else does.
            assert read == TEXTS or (asking == "terminate" and read == [])

    with playing(floods_and_ends(end)) as peer:
        driver.run(main)


async def _until_lost(instance: Any) -> Any:
    try:
        async for event in instance:
            yield event
    except ConnectionLost:
        return


def test_what_the_server_sent_last_survives_a_failed_write(driver_or_uvloop: Driver) -> None:
    reading_stopped, gone = threading.Event(), threading.Event()

    def goes_while_the_client_reads_nothing(line: Line) -> None:
        line.open()
        line.accept_user()
        line.accept_launch()
        line.send(*map(line.stdout, TEXTS))
        assert reading_stopped.wait(SOON)
        line.send(*map(line.stdout, TEXTS), line.completed("done"))
        line.sock.close()
        gone.set()

    async def main() -> None:
        # Nothing is read ahead, so all that is sent last stays in the system's buffer.
        limits = replace(SMALL, read_ahead_bytes=1)
        async with driver_or_uvloop.client(peer.uri, dialect="instance", limits=limits) as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            await paused(client)
            reading_stopped.set()
            while not gone.is_set():
                await anyio.lowlevel.checkpoint()
            for _ in range(3):
                with pytest.raises(ConnectionError):
                    await instance.upload_blob(b"x" * 300_000)
            events = [event async for event in instance]
        assert events == [(Event.Stdout, text) for text in TEXTS * 2] + [(Event.Completed, "done")]

    with playing(goes_while_the_client_reads_nothing) as peer:
        driver_or_uvloop.run(main)


def test_the_end_reaches_those_who_wait_for_room_to_send(driver: Driver) -> None:
    async def main() -> None:
        async with driver.client(peer.uri, dialect="instance", limits=SMALL) as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            await paused(client)
            with pytest.raises(ConnectionLost):
                while True:
                    await instance.send("x" * 50_000, timeout=None)

    with playing(floods_and_ends("Close at once")) as peer:
        driver.run(main)


def test_a_message_to_a_program_whose_end_is_unread_is_dropped(driver: Driver) -> None:
    def ends_at_once(line: Line) -> None:
        line.open()
        line.accept_user()
        line.accept_launch()
        line.send(line.stdout("I need no input"), line.completed("bye"))
        line.answer_the_rest()

    async def main() -> None:
        async with driver.client(peer.uri, dialect="instance") as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            await client.ping()  # what was sent before the answer has arrived
            await instance.send("Go on")
            with pytest.raises(InstanceEnded) as caught:
                await instance.upload_blob(b"data")
            assert caught.value.event is None
            assert await instance.recv() == (Event.Stdout, "I need no input")
            await instance.send("Are you there?")
            assert await instance.recv() == (Event.Completed, "bye")
            # Now the user knows.
            with pytest.raises(InstanceEnded) as caught:
                await instance.send("Hello?")
            assert (caught.value.event, caught.value.data) == (Event.Completed, "bye")
            await client.ping()
        kinds = [message["type"] for message in peer.received]
        assert kinds == ["identification", "launch_instance", "ping", "ping"]

    with playing(ends_at_once) as peer:
        driver.run(main)


def test_a_blob_over_the_bound_ends_the_connection(driver: Driver) -> None:
    chunk = bytes(1000)

    def sends_a_blob(line: Line) -> None:
        line.open()
        line.accept_user()
        line.accept_launch()
        blob = {"type": "download_blob", "corr_id": 0, "instance_id": INSTANCE}
        blob |= {"blob_hash": blake3(chunk * 11).hexdigest(), "total_chunks": 11}
        for index in range(11):
            line.send({**blob, "chunk_data": chunk, "chunk_index": index})
        line.answer_the_rest()

    async def main() -> None:
        limits = Limits(blob_bytes=10_000)
        async with driver.client(peer.uri, dialect="instance", limits=limits) as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            with pytest.raises(RemoteProtocolError, match="too large: expected 10000"):
                await instance.recv()

    with playing(sends_a_blob) as peer:
        driver.run(main)
