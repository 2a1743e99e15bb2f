"""This package and the published ``pie-server`` 0.5.2 in one environment; both are named ``pie``.

There the name is a module here and a package there, so neither's files are in the other's way; of
the two, Python finds the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from tests.peers.checkout import Environment, requirements, wheel
from tests.programs import component

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_SCRIPT: Final = Path(__file__).with_name("beside_pie_server_script.py")

PIE_SERVER: Final = "pie-server==0.5.2"
ORDERS: Final = ["ours first", "theirs first"]

THEIRS: Final = """
import pathlib, pie, pie.config, pie.server, pie._engine
assert pathlib.Path(pie.__file__).name == "__init__.py", pie.__file__
assert pie.Server is pie.server.Server
pie.config.Config
print("theirs")
"""

OURS: Final = """
import pathlib, pie, pie_anyio
assert pathlib.Path(pie.__file__).name == "pie.py", pie.__file__
from pie import ParsedPrivateKey, PieClient, PieError
assert PieClient is pie_anyio.PieClient
print("ours")
"""

THE_GUIDES_IMPORT: Final = """
try:
    from pie import PieClient
except ImportError as error:
    print(error.name)
"""

SAID: Final = [
    ["Stdout", "left"],
    ["Stdout", "\n"],
    ["Stdout", "right"],
    ["Stdout", "\n"],
    ["Completed", "left"],
]


@pytest.fixture(params=ORDERS)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    """An environment that has both, installed in this order, with all that they need."""
    made = Environment(tmp_path, "pie-server", [PIE_SERVER, *requirements("trio", "server")])
    ours = f"{wheel()}[trio,server]"
    if request.param == "ours first":
        made.pip("uninstall", "--yes", "pie-server")
        made.pip("install", ours)
        made.pip("install", PIE_SERVER)
    else:
        made.pip("install", ours)
    made.pip("check")
    return made


def check_ours(environment: Environment, folder: Path) -> None:
    program = folder / "program.wasm"
    program.write_bytes(component("arguments"))
    heard = json.loads(environment.python(str(_SCRIPT), str(program)))
    assert heard == {"asyncio": SAID, "trio": SAID, "adapter": SAID}


def test_pie_anyio_works_and_pie_is_the_servers(both: Environment, tmp_path: Path) -> None:
    check_ours(both, tmp_path)
    assert both.python("-c", THEIRS) == "theirs\n"
    assert both.python("-c", THE_GUIDES_IMPORT) == "pie\n"


def test_without_this_package_the_server_is_as_before(both: Environment) -> None:
    both.pip("uninstall", "--yes", "pie-anyio")
    both.pip("check")
    assert both.python("-c", THEIRS) == "theirs\n"
    assert both.python("-c", "import importlib.util as u; print(u.find_spec('pie_anyio'))") == (
        "None\n"
    )


def test_without_the_server_pie_is_the_guides_again(both: Environment, tmp_path: Path) -> None:
    both.pip("uninstall", "--yes", "pie-server")
    both.pip("check")
    assert both.python("-c", OURS) == "ours\n"
    check_ours(both, tmp_path)
