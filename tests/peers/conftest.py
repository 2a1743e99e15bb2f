"""What the tests with other people's software share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers.environments import environment

_FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def pie_client() -> Callable[..., Any]:
    """Have the published client 0.2 do something; gives what it says happened."""
    return _driven("pie-client", _FOLDER / "pie_client_script.py")


@pytest.fixture(scope="session")
def pie_client_0_5() -> Callable[..., Any]:
    """Have the published client 0.5 do something; gives what it says happened."""
    return _driven("pie-client-0.5", _FOLDER / "pie_client_0_5_script.py")


def _driven(name: str, script: Path) -> Callable[..., Any]:
    python = environment(name)

    def do(what: str, **task: Any) -> Any:
        done = subprocess.run(
            [str(python), str(script)],
            input=json.dumps({"do": what, "user": "joe", **task}),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # A fault in a task of the client's own ends nothing, and is told there only.
        assert done.stderr == ""
        return json.loads(done.stdout)

    return do
