"""Timeouts of requests, and that no deadline is judged before what has arrived was read."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from wsproto import events as ws

from pie_anyio import Limits, LocalProtocolError, RequestTimeout
from tests.drivers.driving import SOON, Clock, Driver
from tests.drivers.peer import INSTANCE, Line, answers_everything, playing

ASKING: dict[str, tuple[str, Callable[..., Awaitable[object]]]] = {
    "ping": ("ping", lambda client, **options: client.ping(**options)),
    "query": (
        "query of 'modle_status'",
        lambda client, **options: client.query("modle_status", "", **options),
    ),
    "program_exists": (
        "asking for program",
        lambda client, **options: client.program_exists("0" * 64, **options),
    ),
    "list_instances": (
        "listing the instances",
        lambda client, **options: client.list_instances(**options),
    ),
    "launch_instance": (
        "launching program",
        lambda client, **options: client.launch_instance("0" * 64, **options),
    ),
    "launch_instance_from_registry": (
        "launching 'echo'",
        lambda client, **options: client.launch_instance_from_registry("echo", **options),
    ),
    "launch_server_instance": (
        "as a server on port 80",
        lambda client, **options: client.launch_server_instance("0" * 64, 80, **options),
    ),
    "attach_instance": (
        f"attaching instance {INSTANCE}",
        lambda client, **options: client.attach_instance(INSTANCE, **options),
    ),
    "terminate_instance": (
        f"terminating instance {INSTANCE}",
        lambda client, **options: client.terminate_instance(INSTANCE, **options),
    ),
    "upload_program": (
        "uploading program",
        lambda client, **options: client.upload_program(b"content", **options),
    ),
}


def answers_nothing(line: Line) -> None:
    """A server that accepts the user, and answers nothing from then on."""
    line.open()
    line.accept_user()
    while True:
        line.message()


@pytest.mark.parametrize("asking", ASKING)
@pytest.mark.parametrize("bound", ["of the client", "of the call"])
def test_a_request_that_is_not_answered_times_out_and_says_what_was_asked_of_whom(
    driver: Driver, bound: str, asking: str
) -> None:
    tried, ask = ASKING[asking]
    of_client, of_call = ({"timeout": 0.05}, {}) if bound == "of the client" else ({}, {})
    of_call = {"timeout": 0.05} if bound == "of the call" else of_call

    async def main() -> None:
        async with driver.client(peer.uri, dialect="instance") as client:
            await client.authenticate("ada")
        async with driver.client(peer.uri, dialect="instance", **of_client) as client:
            await client.authenticate("ada", timeout=None)
            with pytest.raises(RequestTimeout) as caught:
                await ask(client, **of_call)
            assert isinstance(caught.value, TimeoutError)
            assert tried in str(caught.value)
            assert peer.uri.removeprefix("ws://") in str(caught.value)
            assert "0.05 s" in str(caught.value)
            assert client.is_connected

    with playing(answers_nothing) as peer:
        driver.run(main)


def test_authentication_times_out_too_and_ends_the_connection(driver: Driver) -> None:
    async def main() -> None:
        async with driver.client(peer.uri, dialect="instance") as client:
            with pytest.raises(RequestTimeout, match=r"identifying as 'ada'.* within 0\.05 s"):
                await client.authenticate("ada", timeout=0.05)
            assert not client.is_connected

    def says_nothing(line: Line) -> None:
        line.open()
        while True:
            line.message()

    with playing(says_nothing) as peer:
        driver.run(main)


def test_who_waits_for_room_to_send_times_out(driver: Driver) -> None:
    def reads_no_more(line: Line) -> None:
        line.open()
        line.accept_user()
        line.accept_launch()
        line.wait_for_the_test()

    async def main() -> None:
        limits = Limits(unsent_bytes=1_000, close_timeout=0.1)
        async with driver.client(peer.uri, dialect="instance", limits=limits) as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            with pytest.raises(RequestTimeout, match=r"took nothing for 0\.05 s"):
                while True:
                    await instance.send("x" * 100_000, timeout=0.05)
            with pytest.raises(RequestTimeout, match=r"ping: .* took nothing for 0\.05 s"):
                await client.ping(timeout=0.05)
            with pytest.raises(LocalProtocolError, match="timeout must be above 0"):
                await client.ping(timeout=-1)

    with playing(reads_no_more) as peer:
        driver.run(main)


def test_a_late_answer_is_dropped_and_the_next_request_gets_its_own(driver: Driver) -> None:
    asked_again = threading.Event()

    def answers_late(line: Line) -> None:
        line.open()
        line.accept_user()
        first = line.message()
        second = line.message()
        asked_again.set()
        line.answer(first, "late")
        line.answer(second, "in time")
        line.answer_the_rest()

    async def main() -> None:
        async with driver.client(peer.uri, dialect="instance") as client:
            await client.authenticate("ada")
            with pytest.raises(RequestTimeout):
                await client.query("model_status", "", timeout=0.05)
            assert await client.query("model_status", "", timeout=None) == "in time"
            assert client.statistics().late_answers == 1

    with playing(answers_late) as peer:
        driver.run(main)


@pytest.mark.parametrize("timeout", [0, -1, "1", True])
def test_a_timeout_that_is_no_positive_number_is_rejected(driver: Driver, timeout: Any) -> None:
    async def main() -> None:
        with pytest.raises((TypeError, ValueError), match="timeout must be"):
            async with driver.client(peer.uri, timeout=timeout):
                pass
        async with driver.client(peer.uri, dialect="instance") as client:
            await client.authenticate("ada")
            with pytest.raises(LocalProtocolError, match="timeout must be"):
                await client.ping(timeout=timeout)
            await client.ping()

    with playing(answers_everything) as peer:
        driver.run(main)


# ------------------------------------------------------------------------------------- standstills

ROUNDS = 12
"""An event loop runs what is due in any order, so one round shows a fault by chance only."""

LIMITS = {
    "handshake": Limits(handshake_timeout=5),
    "authentication": Limits(authentication_timeout=5),
    "request": Limits(request_timeout=5),
    "keepalive": Limits(keepalive_interval=5, keepalive_timeout=5),
}


@pytest.mark.parametrize("waiting_for", LIMITS)
def test_after_a_standstill_what_has_arrived_is_read_before_a_deadline_is_judged(
    driver: Driver, waiting_for: str
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def script(line: Line) -> None:
        def answer(now: str, send: Callable[[], None]) -> None:
            if now == waiting_for:
                asked.set()
            send()
            if now == waiting_for:
                answered.set()

        request = line.event()
        assert isinstance(request, ws.Request)
        answer("handshake", lambda: line.send(ws.AcceptConnection()))
        identification = line.message()
        answer("authentication", lambda: line.answer(identification, "Authenticated"))
        if waiting_for == "keepalive":
            while not isinstance(ping := line.event(), ws.Ping):
                pass
            answer("keepalive", lambda: line.send(ping.response()))
        if waiting_for == "request":
            query = line.message()
            answer("request", lambda: line.answer(query, "42"))
        line.answer_the_rest()

    async def stand_still(clock: Clock) -> None:
        while not asked.is_set():
            await anyio.lowlevel.checkpoint()
        assert answered.wait(SOON)
        clock.jump(6)

    async def main(clock: Clock) -> None:
        asked.clear()
        answered.clear()
        options = {"dialect": "instance", "limits": LIMITS[waiting_for]}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stand_still, clock)
            async with driver.client(peer.uri, **options) as client:
                await client.authenticate("ada")
                if waiting_for == "keepalive":
                    clock.jump(5.5)
                    while not answered.is_set():
                        await anyio.lowlevel.checkpoint()
                    await client.ping()
                if waiting_for == "request":
                    assert await client.query("model_status", "") == "42"
                await client.ping()

    with playing(script) as peer:
        for _ in range(ROUNDS):
            driver.run_with_clock(main)
