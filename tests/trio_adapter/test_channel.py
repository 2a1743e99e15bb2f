"""An instance is a `trio.abc.ReceiveChannel`, and keeps what that promises."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pie_trio_adapter import Event, InstanceEnded
from tests.trio_adapter.world import connected, in_trio, launch


@in_trio
async def test_behind_the_end_there_is_no_more(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "hello")
        assert isinstance(instance, trio.abc.ReceiveChannel)
        assert [event async for event, _ in instance][-1] is Event.Completed
        with pytest.raises(trio.EndOfChannel):
            await instance.receive()
        with pytest.raises(trio.EndOfChannel):
            instance.receive_nowait()
        assert [pair async for pair in instance] == []
        with pytest.raises(InstanceEnded):
            instance.recv_nowait()
        with pytest.raises(InstanceEnded) as caught:
            await instance.recv()
        assert (caught.value.event, caught.value.data) == (Event.Completed, "done")
        for call in (lambda: instance.send("x"), lambda: instance.upload_blob(b"x")):
            with pytest.raises(InstanceEnded):
                await call()
        await instance.aclose()
        assert await instance.result() == "done"


@in_trio
async def test_what_is_not_there_yet_would_block(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        with pytest.raises(trio.WouldBlock):
            instance.receive_nowait()
        await instance.send("one")
        assert await instance.receive() == (Event.Message, "echo: one")
        with pytest.raises(trio.WouldBlock):
            instance.receive_nowait()


@in_trio
async def test_two_tasks_cannot_read_it(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(instance.receive)
            await trio.testing.wait_all_tasks_blocked()
            for call in (instance.receive, instance.recv, instance.result):
                with pytest.raises(trio.BusyResourceError):
                    await call()
            with pytest.raises(trio.BusyResourceError):
                instance.receive_nowait()
            await instance.send("go on")


@in_trio
async def test_closed_it_gives_nothing_and_its_program_runs_on(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        await instance.send("nobody reads the answer")
        await instance.aclose()
        await instance.aclose()
        for call in (instance.receive, instance.recv, instance.result):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            instance.receive_nowait()
        assert instance.id in [info.id for info in await client.list_instances()]


@in_trio
async def test_closing_wakes_the_reader(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await instance.receive()

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            instance.discard()


@in_trio
async def test_cancelled_or_left_by_an_exception_it_is_closed_all_the_same(url: str) -> None:
    class Mine(Exception):
        pass

    async with connected(url) as client:
        first, second = await launch(client, "echo"), await launch(client, "echo")
        with trio.CancelScope() as scope:
            scope.cancel()
            await first.aclose()
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            with pytest.raises(Mine):
                async with second:
                    scope.cancel()
                    raise Mine
        for instance in (first, second):
            with pytest.raises(trio.ClosedResourceError):
                await instance.receive()


@in_trio
async def test_every_async_method_is_a_checkpoint(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        await instance.send("one")
        await instance.receive()
        for call in (
            client.ping,
            client.list_instances,
            lambda: client.authenticate("ada"),
            lambda: client.query("model_status", ""),
            lambda: client.program_exists("0" * 64),
            lambda: instance.send("stop"),
            instance.receive,
            instance.result,
            instance.result,
            instance.aclose,
            instance.aclose,
            client.aclose,
            client.aclose,
        ):
            with trio.testing.assert_checkpoints():
                await call()


@in_trio
async def test_a_busy_stream_lets_other_tasks_run(url: str) -> None:
    async with connected(url) as client:
        instance = await launch(client, "echo")
        for number in range(200):
            await instance.send(str(number))
        each = 128 + len("echo: 0")
        while client.statistics().unread_bytes < 200 * each:
            await trio.lowlevel.checkpoint()
        taken = 0
        seen = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while taken < 200:
                    seen.append(taken)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(watch)
            async for _ in instance:
                taken += 1
                if taken == 200:
                    break
    assert any(0 < number < 200 for number in seen)
