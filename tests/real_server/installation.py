"""A Pie server of a fixed release, installed with all that it needs, kept in ``.cache/peers``."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.peers.environments import keep, run
from tests.real_server import checkpoint
from tests.real_server.checkpoint import make_checkpoint

__all__ = ["RELEASE", "Installation", "installation"]

RELEASE: Final = "0.5.2"

_PINS: Final = (
    f"pie-server[python]=={RELEASE}",
    f"pie-language-python=={RELEASE}",
    # The server imports the client, and does not say which one.
    "pie-client==0.5.3",
)
_INSTALL_SECONDS: Final = 300
"""How long the installation may take: 284 MB, half a minute where the index is near."""

_DRIVERS: Final = Path("/usr/share/vulkan/icd.d")


class Installation(NamedTuple):
    """All that a server is started from."""

    python: Path
    """The Python of the environment that has the server."""
    checkpoint: Path
    """The folder of a model that it can load."""
    compiled: Path
    """Where it may keep what it compiled: programs of any run, nothing that was uploaded."""
    driver: Path
    """The description of a Vulkan driver that needs no GPU."""


def installation() -> Installation:
    """The server, installed the first time; fails if Vulkan's software driver is missing."""
    driver = _software_driver()
    # Under a name made from the pins: another set of them is another environment.
    digest = hashlib.sha256(repr(_PINS).encode()).hexdigest()[:16]
    server = keep(f"pie-server-{digest}", _install)
    model = keep("pie-checkpoint", make_checkpoint, Path(checkpoint.__file__))
    compiled = server / "compiled"
    compiled.mkdir(exist_ok=True)
    return Installation(server / ".venv" / "bin" / "python", model, compiled, driver)


def _install(folder: Path) -> None:
    run([sys.executable, "-m", "venv", str(folder / ".venv")])
    pip = [str(folder / ".venv" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", *_PINS], seconds=_INSTALL_SECONDS)


def _software_driver() -> Path:
    drivers = sorted(_DRIVERS.glob("lvp_icd*.json"))
    if not drivers:
        pytest.fail(
            f"no software driver for Vulkan in {_DRIVERS}; on Debian: "
            "apt-get install libvulkan1 mesa-vulkan-drivers",
            pytrace=False,
        )
    return drivers[0]
