"""The published ``pie-client`` 0.2.1, unmodified, against the embedded server.

It cannot receive blobs: that is a defect of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import wasmtime
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_proto import hash_of
from tests.peers.padding import padded
from tests.peers.server_process import server_process
from tests.programs import component, text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PieClient: TypeAlias = Callable[..., Any]
PrivateKey: TypeAlias = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

KINDS: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}

THREE_MIB = 3 * 1024 * 1024


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A private key of each kind, as OpenSSH writes them, and its public half beside it."""
    folder = tmp_path_factory.mktemp("keys")
    files = {}
    for name, generate in KINDS.items():
        key = generate()
        files[name] = folder / name
        files[name].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        files[name].with_suffix(".pub").write_bytes(public + b" joe@home\n")
    return files


@pytest.fixture(scope="module")
def closed_server(keys: dict[str, Path]) -> Iterator[str]:
    """A server that knows joe by all of his keys but one, and ann by that one."""
    users = {name: "ann" if name == "rsa-4096" else "joe" for name in keys}
    options = [f"--authorized-keys={users[name]}={key}.pub" for name, key in keys.items()]
    with server_process(*options) as url:
        yield url


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that asks for no proof, with a registry."""
    registry = tmp_path_factory.mktemp("registry")
    for name in ("arguments", "conversation", "echo", "error", "trap"):
        (registry / f"{name}.wasm").write_bytes(component(name))
    with server_process("--registry", str(registry)) as url:
        yield url


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_authenticates_with_a_key_of_any_kind(
    kind: str, closed_server: str, keys: dict[str, Path], pie_client: PieClient
) -> None:
    user = "ann" if kind == "rsa-4096" else "joe"
    answer = pie_client("authenticate", url=closed_server, user=user, key=str(keys[kind]))
    assert answer == {"result": "authenticated"}


@pytest.mark.parametrize(
    ("user", "kind", "words"),
    [
        ("joe", "rsa-4096", "Signature verification failed"),
        ("ann", "ed25519", "Signature verification failed"),
        ("eve", "ed25519", "User 'eve' is not authorized"),
    ],
)
def test_a_wrong_key_and_an_unknown_user_are_refused(
    user: str,
    kind: str,
    words: str,
    closed_server: str,
    keys: dict[str, Path],
    pie_client: PieClient,
) -> None:
    answer = pie_client("authenticate", url=closed_server, user=user, key=str(keys[kind]))
    assert words in answer["refusal"]


def test_a_user_without_a_key_is_refused(closed_server: str, pie_client: PieClient) -> None:
    assert "refusal" in pie_client("authenticate", url=closed_server)


def test_a_token_is_refused_unless_it_is_the_right_one(
    tmp_path: Path, keys: dict[str, Path], pie_client: PieClient
) -> None:
    (tmp_path / "token").write_text("sesame\n")
    with server_process(
        f"--authorized-keys=joe={keys['ed25519']}.pub",
        f"--internal-token-file={tmp_path / 'token'}",
    ) as url:
        right = pie_client("enter_by_token", url=url, token="sesame")
        wrong = pie_client("enter_by_token", url=url, token="simsim")
    assert right == {"result": "authenticated"}
    assert "Invalid internal token" in wrong["refusal"]


def test_a_program_of_3_mib_is_uploaded_in_chunks_and_launched_by_its_hash(
    open_server: str, tmp_path: Path, pie_client: PieClient
) -> None:
    program = padded(bytes(wasmtime.wat2wasm(text("reply"))), THREE_MIB)
    assert len(program) > THREE_MIB
    (tmp_path / "program.wasm").write_bytes(program)
    answer = pie_client(
        "by_hash",
        url=open_server,
        program=str(tmp_path / "program.wasm"),
        hash=hash_of(program),
        arguments=[],
        message="héllo €",
    )
    assert (answer["result"]["before"], answer["result"]["after"]) == (False, True)
    events = answer["result"]["events"]
    assert joined(events, "Stdout") == "héllo €\n"
    assert [pair for pair in events if pair[0] != "Stdout"] == [
        ["Message", "héllo €"],
        ["Completed", "héllo €"],
    ]


def test_a_program_of_the_registry_gets_its_arguments_and_returns_a_value(
    open_server: str, pie_client: PieClient
) -> None:
    answer = pie_client("by_name", url=open_server, name="arguments", arguments=["one", "zwei €"])
    assert joined(answer["result"], "Stdout") == "one\nzwei €\n"
    assert answer["result"][-1] == ["Completed", "one"]


def test_a_program_gets_the_blob_that_it_waits_for(open_server: str, pie_client: PieClient) -> None:
    """It ends once it has sent the blob back, which this client cannot take in."""
    answer = pie_client(
        "by_name",
        url=open_server,
        name="conversation",
        arguments=[],
        message="How do you do?",
        blob=300_000,
    )
    events = answer["result"]
    assert ["Message", "you said: How do you do?"] in events
    assert joined(events, "Stderr") == "this goes to stderr\n"
    assert events[-1] == ["Completed", "goodbye"]


@pytest.mark.parametrize(("name", "words"), [("error", ""), ("trap", "unreachable")])
def test_a_program_that_fails_ends_in_an_exception(
    name: str, words: str, open_server: str, pie_client: PieClient
) -> None:
    answer = pie_client("by_name", url=open_server, name=f"std/{name}@latest", arguments=[])
    event, reason = answer["result"][-1]
    assert event == "Exception"
    assert reason
    assert words in reason


def test_a_detached_instance_is_listed_attached_spoken_to_and_terminated(
    open_server: str, pie_client: PieClient
) -> None:
    told = pie_client("detached", url=open_server, user="detacher", name="echo")["result"]
    assert told["left"] == [[told["id"], ["left"], "Detached"]]
    assert told["attached"] == [[told["id"], ["left"], "Attached"]]
    assert "Instance already attached" in told["refusal"]
    assert told["answer"] == ["Message", "echo: are you there?"]
    assert told["end"] == [["Aborted", "Signal termination"]]
    assert told["over"] == []


def test_an_instance_outlives_its_connection_and_is_attached_from_another(
    open_server: str, pie_client: PieClient
) -> None:
    answer = pie_client("left_behind", url=open_server, user="loser", name="echo")
    assert answer["result"] == [["Aborted", "Signal termination"]]


def test_queries_are_answered_and_what_cannot_be_is_refused_in_words(
    open_server: str, pie_client: PieClient
) -> None:
    told = pie_client("questions", url=open_server)["result"]
    assert told["models"] == [True, "{}"]
    assert told["numbers"][0] is True
    assert "instances running" in told["numbers"][1]
    assert "Program not found: no such hash" in told["unknown program"]
    assert "Program not found: std/nobody@latest" in told["unknown name"]
    assert "Invalid instance_id" in told["unknown instance"]
    assert "not a WebAssembly component" in told["no program"]
    assert told["alive"] is None


def joined(events: list[list[str]], kind: str) -> str:
    """The text of all events of one kind, however it was cut."""
    return "".join(data for event, data in events if event == kind)
