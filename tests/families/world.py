"""What a behaviour needs around it: a server of some family, and clients of it of some make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pie_anyio import Event, ParsedPrivateKey, PieClient
from pie_anyio.server import serve
from pie_proto import hash_of
from pie_proto.dialects import Capabilities
from pie_trio_adapter import open_client
from tests.programs.table import PROGRAMS

__all__ = ["DRIVERS", "IDENTITY", "SOON", "World", "client_of", "told"]

SOON: Final = 60
"""How long anything that must happen may take, in seconds."""

IDENTITY: Final = "default/ada"

DRIVERS: Final = ("asyncio", "trio", "trio-adapter")
"""What drives a client: `PieClient` on either event loop, or `open_client`."""


def client_of(driver: str, uri: str, **options: Any) -> AbstractAsyncContextManager[PieClient]:
    """A client of one make or the other. The two kinds have the same methods."""
    kind: Any = open_client if driver == "trio-adapter" else PieClient
    made: AbstractAsyncContextManager[PieClient] = kind(uri, **options)
    return made


@dataclass(frozen=True, kw_only=True)
class World:
    """A server, and clients of it."""

    uri: str
    name: str
    """What its family is called."""
    can: Capabilities
    """What the server can, as it is to be found out."""
    driver: str
    is_real: bool = False
    """Whether it is a Pie server that people run: its programs are Python sources."""
    known: set[str] = field(default_factory=set)
    """The programs that the server has by name; a real one keeps them for all tests."""

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[PieClient]:
        """A client that has authenticated."""
        async with self.stranger(**options) as client:
            await client.authenticate("ada")
            yield client

    def stranger(self, **options: Any) -> AbstractAsyncContextManager[PieClient]:
        """A client that has not authenticated."""
        return client_of(self.driver, self.uri, **{"identity": IDENTITY, **options})

    @asynccontextmanager
    async def that_knows(self, user: str, key: ParsedPrivateKey) -> AsyncIterator[World]:
        """This server, or one of its family that lets in who proves to be ``user``."""
        if not self.can.proof:
            yield self
            return
        keys = {user: key.public_key()}
        async with serve(dialect=self.name, authorized_keys=keys) as server:
            yield replace(self, uri=server.url)

    async def upload(self, client: PieClient, name: str) -> str:
        """Have a program of the table on the server; its hash."""
        program = PROGRAMS[name]
        if not self.is_real:
            return await client.upload_program(program.component())
        source = program.source()
        if name not in self.known:
            self.known.add(name)
            await client.upload_program(source, manifest=program.manifest())
        return hash_of(source)

    async def launch(
        self, client: PieClient, name: str, *args: str, detached: bool = False, **options: Any
    ) -> Any:
        """Upload a program of the table, and launch it."""
        program_hash = await self.upload(client, name)
        if self.is_real:
            identifier = PROGRAMS[name].identifier
            return await client.launch_instance_from_registry(
                identifier, list(args), detached, **options
            )
        return await client.launch_instance(program_hash, list(args), detached, **options)


async def told(instance: Any) -> dict[Event, str]:
    """All that an instance says, put together by kind of event."""
    said: dict[Event, str] = {}
    async for event, data in instance:
        said[event] = said.get(event, "") + data
    return said
