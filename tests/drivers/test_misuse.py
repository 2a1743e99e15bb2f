"""Wrong uses of a client that must be errors at once: another thread or loop, odd arguments."""

from __future__ import annotations

import asyncio
import inspect
import queue
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from pie_anyio import LocalProtocolError, PieClient
from pie_anyio.server import serve
from tests.drivers.driving import SOON, Driver
from tests.drivers.peer import answers_everything, playing

CALLS: dict[str, Callable[[Any, Any], Awaitable[object]]] = {
    "authenticate": lambda client, _: client.authenticate("ada"),
    "internal_authenticate": lambda client, _: client.internal_authenticate("token"),
    "upload_program": lambda client, _: client.upload_program(b"content"),
    "program_exists": lambda client, _: client.program_exists("0" * 64),
    "launch_instance": lambda client, _: client.launch_instance("0" * 64),
    "attach_instance": lambda client, _: client.attach_instance("another"),
    "list_instances": lambda client, _: client.list_instances(),
    "terminate_instance": lambda client, _: client.terminate_instance("another"),
    "ping": lambda client, _: client.ping(),
    "query": lambda client, _: client.query("model_status", ""),
    "aclose": lambda client, _: client.aclose(),
    "recv": lambda _, instance: instance.recv(),
    "async for": lambda _, instance: anext(instance),
    "result": lambda _, instance: instance.result(),
    "send": lambda _, instance: instance.send("hello"),
    "upload_blob": lambda _, instance: instance.upload_blob(b"data"),
    "terminate": lambda _, instance: instance.terminate(),
    "async with": lambda _, instance: instance.__aexit__(None, None, None),
}

AT_ONCE: dict[str, Callable[[Any, Path], object]] = {
    "recv_nowait": lambda instance, _: instance.recv_nowait(),
    "discard": lambda instance, _: instance.discard(),
    "save_blobs": lambda instance, folder: instance.save_blobs(folder),
}


def test_in_another_thread_every_call_is_an_error_at_once(driver: Driver, tmp_path: Path) -> None:
    shared: queue.Queue[tuple[Any, Any]] = queue.Queue()
    done = threading.Event()

    async def owner() -> None:
        async with driver.client(peer.uri, dialect="instance") as client:
            await client.authenticate("ada")
            instance = await client.launch_instance("0" * 64)
            shared.put((client, instance))
            await anyio.to_thread.run_sync(done.wait)
            # It was not harmed.
            await client.ping()
            await instance.send("hello")

    async def stranger() -> None:
        for call in CALLS.values():
            with pytest.raises(LocalProtocolError, match="another thread or event loop"):
                await call(client, instance)
        for at_once in AT_ONCE.values():
            with pytest.raises(LocalProtocolError, match="another thread or event loop"):
                at_once(instance, tmp_path)

    with playing(answers_everything) as peer:
        failures: list[BaseException] = []

        def run_owner() -> None:
            try:
                driver.run(owner)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=run_owner)
        thread.start()
        try:
            client, instance = shared.get(timeout=SOON)
            driver.run(stranger)
            # Also where no event loop runs.
            with pytest.raises(LocalProtocolError, match="another thread"):
                instance.discard()
        finally:
            done.set()
            thread.join()
        assert failures == []


def test_in_another_event_loop_every_call_is_an_error_at_once(tmp_path: Path) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def opened() -> tuple[PieClient, Any]:
        client = PieClient(peer.uri, dialect="instance")
        await client.connect()
        await client.authenticate("ada")
        return client, await client.launch_instance("0" * 64)

    async def call(what: Callable[[Any, Any], Awaitable[object]]) -> None:
        async with asyncio.timeout(SOON):
            await what(client, instance)

    with playing(answers_everything) as peer:
        client, instance = first.run_until_complete(opened())
        try:
            for what in CALLS.values():
                with pytest.raises(LocalProtocolError, match="event loop"):
                    second.run_until_complete(call(what))
            # Between two runs of its own loop it may be used, since nothing else can use it then.
            instance.save_blobs(tmp_path)
            first.run_until_complete(client.ping())
        finally:
            first.run_until_complete(client.aclose())
            first.close()
            second.close()


@pytest.mark.parametrize(
    ("uri", "context", "error"),
    [
        ("wss://localhost", "no context", r"an ssl\.SSLContext, not str"),
        ("wss://localhost", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "is for servers"),
        ("ws://localhost", ssl.create_default_context(), "is for wss://"),
    ],
    ids=["type", "for servers", "without TLS"],
)
def test_a_context_of_tls_that_does_not_fit_is_rejected(
    driver: Driver, uri: str, context: Any, error: str
) -> None:
    async def main() -> None:
        with pytest.raises((TypeError, ValueError), match=error):
            async with driver.client(uri, ssl_context=context):
                pass

    driver.run(main)


OPTIONS = [
    "ssl_context",
    "headers",
    "identity",
    "dialect",
    "on_notice",
    "limits",
    "timeout",
]


def test_none_for_an_option_means_its_default(driver: Driver) -> None:
    options: list[str] = [
        *OPTIONS,
        *(["host", "target"] if driver.name == "trio-adapter" else ["proxy", "connect"]),
    ]

    async def main() -> None:
        for option in options:
            async with driver.client(peer.uri, **{option: None}) as client:
                await client.authenticate("ada", None, timeout=None)
                await client.ping()
        async with driver.client(peer.uri, **dict.fromkeys(options)) as client:
            await client.authenticate("ada")
            await client.upload_program(b"content", manifest=None, progress=None, timeout=None)
            instance = await client.launch_instance("0" * 64, None, None, input=None, timeout=None)
            assert not instance.detached
            await instance.upload_blob(b"data", progress=None, timeout=None)
            await client.launch_server_instance("0" * 64, 80, None, timeout=None)
        launch = next(said for said in peer.received if said["type"] == "launch_instance")
        assert (launch["arguments"], launch["detached"]) == ([], False)

    with playing(answers_everything) as peer:
        driver.run(main)


@pytest.mark.anyio
async def test_none_for_an_option_of_the_embedded_server_means_its_default() -> None:
    options = [
        name
        for name, parameter in inspect.signature(serve).parameters.items()
        if parameter.default is not parameter.empty
    ]
    for option in options:
        async with serve(**{option: None}) as server, PieClient(server.url) as client:
            await client.authenticate("ada")
            await client.ping()
