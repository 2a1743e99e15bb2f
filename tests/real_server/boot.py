"""Boots a Pie server in this process, says where it is, and serves until it is told to stop.

This runs in an environment of its own, which has the server and none of our packages. Its argument
is the folder of a checkpoint. One line of JSON on stdout announces the server; all else that it, or
the server, has to say goes to stderr. SIGTERM stops it; so does the end of stdin, which comes also
when those who started it were killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

# The server's package, not our module of that name: nothing that a type checker finds here.
from pie.config import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    Config,
    EngineConfig,
    ModelConfig,
    RuntimeConfig,
    ServerConfig,
)
from pie.server import Server  # type: ignore[import-not-found,import-untyped,unused-ignore]

_MOST_INSTANCES = 200
_STOP_SECONDS = 10
"""A program that never pauses keeps the server from stopping: then the alarm ends the process."""


def config_for(checkpoint: Path, sku: str) -> Config:
    """A server on any free port, with one tiny model."""
    # The software's Vulkan refuses larger passes. The memory is what the server may plan with.
    options = {"device_memory": "16GiB", "max_forward_tokens": 64, "max_forward_requests": 4}
    # Programs run beside each other up to the smaller of two bounds; others wait for their turn,
    # though their launch is answered. As it comes, that is 4 of them.
    options["max_state_slots"] = 2 * _MOST_INSTANCES
    engine = EngineConfig(type="wgpu", device=["wgpu:0"], options=options)
    return Config(
        server=ServerConfig(host="127.0.0.1", port=0),
        runtime=RuntimeConfig(max_concurrent_processes=_MOST_INSTANCES),
        model=ModelConfig(name="tiny", hf_repo=str(checkpoint), sku=sku, engine=engine),
    )


async def serve(config: Config, announcement: TextIO) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()

    def terminate() -> None:
        signal.alarm(_STOP_SECONDS)
        stop.set()

    async with Server(config) as server:
        # Before anybody can know that there is a server to stop.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        announcement.write(json.dumps({"url": server.url}) + "\n")
        announcement.close()
        await stop.wait()


def stop_with_stdin() -> None:
    """Wait for the end of stdin, then stop: at once while still booting."""
    # Not through a file object: its lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run."""
    announcement = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=stop_with_stdin, daemon=True).start()
    checkpoint, sku = sys.argv[1:]
    asyncio.run(serve(config_for(Path(checkpoint), sku), announcement))


if __name__ == "__main__":
    main()
