"""A tiny HTTP proxy for tests: it leads every CONNECT to one server, and notes what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream

__all__ = ["TunnelProxy", "peer"]


class TunnelProxy:
    """Leads to ``port``, or says ``answer`` (after which it hangs up, unless it ``hangs``)."""

    def __init__(self, port: int, answer: bytes | None = None, *, hangs: bool = False) -> None:
        self.asked: list[str] = []
        self.uri = ""
        self._port = port
        self._answer = answer
        self._hangs = hangs

    async def handle(self, client: SocketStream) -> None:
        """One client's request, and the tunnel."""
        head = b""
        async with client:
            while b"\r\n\r\n" not in head:
                head += await client.receive()
            self.asked.append(head.decode())
            if self._answer is not None:
                await client.send(self._answer)
                if self._hangs:
                    await anyio.sleep_forever()
                return
            async with await anyio.connect_tcp("127.0.0.1", self._port) as server:
                await client.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Connected\r\n\r\n")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_carry, client, server)
                    tasks.start_soon(_carry, server, client)


async def _carry(source: ByteStream, sink: ByteStream) -> None:
    try:
        async for data in source:
            await sink.send(data)
        await sink.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        pass


@asynccontextmanager
async def running(proxy: TunnelProxy) -> AsyncIterator[TunnelProxy]:
    """The proxy, while it serves."""
    async with peer(proxy.handle) as port:
        proxy.uri = f"http://127.0.0.1:{port}"
        yield proxy


@asynccontextmanager
async def peer(handle: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Something that listens, for tests; the port."""
    async with AsyncExitStack() as stack:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        await stack.enter_async_context(listener)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(listener.serve, handle)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()
