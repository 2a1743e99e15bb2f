"""What the tests with other people's software share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers.environments import environment

_SCRIPT = Path(__file__).with_name("pie_client_script.py")


@pytest.fixture(scope="session")
def pie_client() -> Callable[..., Any]:
    """Have the published client do something; gives what it says happened."""
    python = environment("pie-client")

    def do(what: str, **task: Any) -> Any:
        done = subprocess.run(
            [str(python), str(_SCRIPT)],
            input=json.dumps({"do": what, "user": "joe", **task}),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return do
