"""The published ``pie-client`` 0.5.3, and files with names, which a server of the core sends it.

No program of the embedded server names its files; the core that it is built on can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.abc
import pytest

from pie_proto import NEED_DATA, Blob, hash_of
from pie_proto import commands as c
from pie_proto import events as e
from pie_proto.dialects.process import PROCESS_0_5
from pie_proto.server import ServerConnection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.anyio]

PieClient: TypeAlias = Callable[..., Any]

PROCESS = "11111111-1111-4111-8111-111111111111"
SOON = 60


@asynccontextmanager
async def server_that_sends(files: list[Blob]) -> AsyncIterator[str]:
    """A server that answers each file that a process gets with the next of ``files``."""

    async def talk(stream: anyio.abc.SocketStream) -> None:
        connection = ServerConnection(now=anyio.current_time(), dialect=PROCESS_0_5)
        left = iter(files)
        async with stream:
            while True:
                while sent := connection.data_to_send(now=anyio.current_time()):
                    await stream.send(sent)
                try:
                    connection.receive_data(await stream.receive(), anyio.current_time())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
                while (asked := connection.next_event()) is not NEED_DATA:
                    match asked:
                        case e.HandshakeReceived():
                            connection.accept()
                        case e.Request(int(request_id), c.LaunchFromRegistry()):
                            connection.answer(e.Launched(request_id, PROCESS, False))
                        case e.Request(None, c.UploadBlob(size=0)):
                            connection.emit(e.InstanceEvent(PROCESS, e.Event.Completed, "all"))
                        case e.Request(None, c.UploadBlob()):
                            connection.emit(e.InstanceEvent(PROCESS, e.Event.Blob, next(left)))
                        case _:
                            return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, talk)
        yield f"ws://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


async def test_files_come_with_their_names(tmp_path: Path, pie_client_0_5: PieClient) -> None:
    contents = {"report.txt": b"a", "größe 1.bin": bytes(300_000), "big": b"x" * 5_000_000}
    files = [Blob(data, hash=hash_of(data), name=name) for name, data in contents.items()]
    nameless = Blob(b"nameless", hash=hash_of(b"nameless"))
    (tmp_path / "given").write_bytes(b"given")
    task = {"name": "any", "files": [str(tmp_path / "given")] * 4, "folder": str(tmp_path)}
    with anyio.fail_after(SOON):
        async with server_that_sends([*files, nameless]) as url:
            ask = partial(pie_client_0_5, "files", url=url, **task)
            told = (await anyio.to_thread.run_sync(ask))["result"]
    assert told["end"] == ["Return", "all"]
    for name, content in {**contents, "back3.bin": b"nameless"}.items():
        assert (tmp_path / name).read_bytes() == content
    assert told["files"] == [
        *({"name": name, "path": str(tmp_path / name)} for name in contents),
        {"name": None, "path": str(tmp_path / "back3.bin")},
    ]
