"""The trio client where anyio is not: over TCP, over TLS, and over memory.

A task comes as JSON on stdin, what was heard goes out as JSON on stdout.
"""

import importlib
import json
import ssl
import sys
from pathlib import Path

import trio
import trio.testing

from pie_trio_adapter import ParsedPrivateKey, open_client


async def converse(where: str | trio.abc.Stream, task: dict[str, str]) -> list[str]:
    """Prove who one is, upload, launch, and hear everything to the end."""
    async with open_client(where) as client:
        await client.authenticate("ada", ParsedPrivateKey.parse(task["key"]))
        program_hash = await client.upload_program(Path(task["program"]))
        said: list[str] = []
        async with await client.launch_instance(program_hash, ["--name", "Ada"]) as instance:
            async for _, data in instance:
                if data == "ready":
                    await instance.send("hello")
                    await instance.upload_blob(bytes(300_000))
                said.append(data if isinstance(data, str) else f"{len(data)} bytes")
        return said


async def relay(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
    """Pass on what comes, and its end."""
    try:
        while data := await source.receive_some():
            await sink.send_all(data)
        await sink.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.aclose_forcefully(sink)


async def main(task: dict[str, str]) -> dict[str, list[str]]:
    """All three."""
    heard = {}
    with trio.fail_after(40):
        heard["tcp"] = await converse(task["tcp"], task)

        context = ssl.create_default_context(cafile=task["authority"])
        heard["tls"] = await converse(
            await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", int(task["tls_port"]), ssl_context=context
            ),
            task,
        )

        ours, theirs = trio.testing.memory_stream_pair()
        server = await trio.open_tcp_stream("127.0.0.1", int(task["tcp"].rpartition(":")[2]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, theirs, server)
            nursery.start_soon(relay, server, theirs)
            heard["memory"] = await converse(ours, task)
    return heard


if __name__ == "__main__":
    try:
        importlib.import_module("anyio")
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("anyio is here")
    json.dump(trio.run(main, json.load(sys.stdin)), sys.stdout)
    strays = {name.partition(".")[0] for name in sys.modules} & {"anyio", "asyncio", "pie_anyio"}
    assert not strays, strays
