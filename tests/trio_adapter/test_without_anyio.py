"""The trio client works where anyio is not installed."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Final

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pie_trio_adapter import ParsedPrivateKey
from tests.peers.checkout import Environment, requirements, wheel
from tests.programs import component
from tests.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_SCRIPT: Final = Path(__file__).with_name("without_anyio_script.py")


def test_a_conversation_with_a_key_over_tcp_tls_and_memory_without_anyio(tmp_path: Path) -> None:
    there = Environment(tmp_path, "without-anyio", requirements("trio", without=["anyio"]))
    there.pip("install", "--no-deps", str(wheel()))

    key = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    users = {"ada": ParsedPrivateKey.parse(key).public_key()}
    program = tmp_path / "program.wasm"
    program.write_bytes(component("conversation"))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    with serving(authorized_keys=users) as plain:
        with serving(authorized_keys=users, ssl_context=context) as secure:
            task = {
                "key": key.decode(),
                "program": str(program),
                "tcp": plain.url,
                "tls_port": str(secure.port),
                "authority": str(tmp_path / "authority.pem"),
            }
            heard = json.loads(there.python(str(_SCRIPT), stdin=json.dumps(task)))

    assert heard.keys() == {"tcp", "tls", "memory"}
    for said in heard.values():
        text = "".join(said)
        assert "argument: --name\nargument: Ada\n" in text
        assert "you said: hello" in text
        assert "300000 bytes" in said
        assert said[-1] == "goodbye"


def test_the_client_for_both_loops_says_what_is_missing_there(tmp_path: Path) -> None:
    there = Environment(tmp_path, "without-anyio", requirements("trio", without=["anyio"]))
    there.pip("install", "--no-deps", str(wheel()))
    asked = "try: import pie_anyio\nexcept ModuleNotFoundError as error: print(error.name)"
    assert there.python("-c", asked) == "anyio\n"
