"""Programs launched by name, over TCP."""

from __future__ import annotations

from pathlib import Path

import pytest

from pie_anyio.server import Server, serve
from pie_proto import (
    Event,
    Launched,
    LaunchFromRegistry,
)
from tests.programs import component, text
from tests.server.server_peer import client

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


async def test_programs_are_launched_from_the_registry_by_their_names(tmp_path: Path) -> None:
    return_value = text("return_value")
    (tmp_path / "hello.wasm").write_bytes(component("hello"))
    (tmp_path / "error@0.9.wat").write_text(text("error"))
    (tmp_path / "error@0.10.wat").write_text(return_value)
    (tmp_path / "error@0.10-rc.1.wat").write_text(text("error"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tool@2.wat").write_text(return_value)
    (tmp_path / "broken.wasm").write_bytes(b"nonsense")
    (tmp_path.parent / "outside.wat").write_text(return_value)

    async def end_of(name: str) -> Event:
        outcome = await peer.ask(LaunchFromRegistry(name=name))
        assert isinstance(outcome, Launched), outcome
        return (await peer.read_to_end(outcome.instance_id))[-1][0]

    async with serve(registry=tmp_path) as server, client(server) as peer:
        for name in ("hello", "hello@latest", "std/hello", "std/hello@latest", "error"):
            assert await end_of(name) is Event.Completed
        assert await end_of("error@0.9") is Event.Exception
        assert await end_of("mine/tool") is Event.Completed
        assert await end_of("mine/tool@2") is Event.Completed
        for name in ("tool", "hello@1", "mine/tool@1", "other/hello"):
            assert "Program not found" in await peer.refusal(LaunchFromRegistry(name=name))
        for name in (
            "../outside",
            "hello/",
            "mine/../hello",
            "/hello",
            "hello@../x",
            "a/b/c",
            "..",
        ):
            assert "no program name" in await peer.refusal(LaunchFromRegistry(name=name))
        broken = await peer.refusal(LaunchFromRegistry(name="broken"))
        assert "not a WebAssembly component" in broken


async def test_without_a_registry_no_name_is_found(server: Server) -> None:
    async with client(server) as peer:
        assert "no registry" in await peer.refusal(LaunchFromRegistry(name="hello"))


async def test_a_registry_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        serve(registry=tmp_path / "nothing")
