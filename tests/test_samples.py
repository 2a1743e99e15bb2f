"""The samples in the documentation run as they stand, and print what is expected of them here.

They run on asyncio; on trio, with another runner; and those that know no asyncio through
`pie_trio_adapter` as well, with other imports. Nothing else of them is touched but the address.
"""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pie_anyio
from pie_anyio import Instance, ParsedPrivateKey, PieClient
from pie_proto import lacks
from pie_proto.families import FAMILIES
from pie_proto.keys import KEY_NOT_USED
from tests.code_blocks import ROOT, Block, blocks, prose
from tests.programs import component
from tests.serving import serving

USAGE: Final = ROOT / "docs" / "usage.md"
ADDRESS: Final = "ws://127.0.0.1:8080"
TOKEN: Final = "let me in"
LOGGERS: Final = {"pie_anyio", "pie_trio_adapter"}

REGISTRY: Final = {
    "mirror": "echo_blob",
    "solver": "reply",
    "overnight": "hello",
    "storyteller": "reply",
    "stumble": "trap",
    "text-completion": "reply",
    "long-task": "return_value",
    "tour": "conversation",
    "watch": "sleep",
    "words": "arguments",
}
"""The programs that stand in for the reader's."""

# --------------------------------------------------------------------------------- what is expected

Where: TypeAlias = Literal["open", "closed", "process-0.3", "process", "nowhere"]
"""A server that asks for no proof, one that does, two of later families, and an address where
nobody listens."""


class Expected(NamedTuple):
    """What a sample prints; ``{words in braces}`` stand for what is different each time."""

    printed: str
    where: Where = "open"
    on_stderr: str = ""
    logged: str = ""
    ways: tuple[str, ...] = ("asyncio", "trio", "adapter")


ASYNCIO_ONLY: Final = ("asyncio",)

EXPECTED: Final[Mapping[tuple[str, str], tuple[Expected, ...]]] = {
    ("README.md", "launch"): (
        Expected(
            "Stdout Tell me more.\nStdout \n\nMessage Tell me more.\nCompleted Tell me more.\n",
            "closed",
        ),
    ),
    ("README.md", "open"): (Expected(""),),
    ("README.md", "stream"): (Expected("Continue the story.\n"),),
    ("README.md", "detached"): (Expected("forty-two\n"),),
    ("README.md", "errors"): (
        Expected(
            "Pie said no: launching program not the hash of any program: the server said: "
            "Program not found: not the hash of any program\n"
        ),
        Expected(
            "No connection: no connection to {address}: Connection refused. "
            "Is a Pie server listening there?\n",
            "nowhere",
        ),
    ),
    ("README.md", "serve"): (Expected("{{}}\n"),),
    ("README.md", "identity"): (Expected("0.5 asserted\nHello\n", "process"),),
    ("usage.md", "quick_start"): (
        Expected("Stdout hello\n", "closed"),
        Expected("Stdout hello\n", "open", logged=KEY_NOT_USED),
    ),
    ("usage.md", "connection"): (Expected("in the block: True\nbehind it: False\n"),),
    ("usage.md", "by_hand"): (Expected("True\n", ways=ASYNCIO_ONLY),),
    ("usage.md", "with_key"): (Expected("[]\n", "closed"),),
    ("usage.md", "keys"): (
        Expected(
            "ssh-ed25519\n{public_key}\n{fingerprint}\nTrue\nthis is a public key (ssh-ed25519)\n",
            "nowhere",
            ways=ASYNCIO_ONLY,
        ),
    ),
    ("usage.md", "accepted"): (
        Expected("proved\n", "closed"),
        Expected("asserted\n", logged=KEY_NOT_USED),
    ),
    ("usage.md", "token"): (Expected("token\n", "closed"),),
    ("usage.md", "frame"): (Expected(""),),
    ("usage.md", "upload"): (Expected("all is sent\n64\n"),),
    ("usage.md", "program_exists"): (Expected("False\nTrue\n"),),
    ("usage.md", "registry"): (
        Expected(
            "Stdout '--prompt'\nStdout '\\n'\nStdout 'Hello'\nStdout '\\n'\nCompleted '--prompt'\n"
        ),
    ),
    ("usage.md", "result"): (Expected("forty-two\nException\n"),),
    ("usage.md", "blob"): (Expected("Blob b'\\x00\\x01\\x02'\n"),),
    ("usage.md", "save"): (Expected("None True b'\\x00\\x01\\x02'\n"),),
    ("usage.md", "save_blobs"): (Expected("Blob b'\\x00\\x01\\x02'\n"),),
    ("usage.md", "terminate"): (Expected("Aborted\n"),),
    ("usage.md", "enough"): (Expected("Stdout sleeping\n"),),
    ("usage.md", "list"): (Expected("Detached --hours 8\n"),),
    ("usage.md", "stream"): (Expected("Go on, and make it short.\n"),),
    ("usage.md", "stream_for"): (Expected("Go on, and make it short.\n"),),
    ("usage.md", "events"): (
        Expected(
            "hello from pie\nargument: --name\nargument: Ada\n"
            "it says: you said: How do you do?\nit sends 10 bytes\n"
            "tick 1\ntick 2\ntick 3\nit returned goodbye\n",
            on_stderr="this goes to stderr\n",
        ),
    ),
    ("usage.md", "detached"): (Expected("Stdout hello from pie\ndone\n"),),
    ("usage.md", "errors"): (
        Expected(
            "Pie says no: launching program a hash of nothing: the server said: "
            "Program not found: a hash of nothing\n"
        ),
        Expected(
            "not connected: no connection to {address}: Connection refused. "
            "Is a Pie server listening there?\n",
            "nowhere",
        ),
    ),
    ("usage.md", "refused"): (
        Expected(
            "the server's words: Program not found: std/unheard-of@latest\n"
            "nothing was sent: args must be a list of strings, not 'no list'\n"
            "and the connection lives\n"
        ),
    ),
    ("usage.md", "wrong_key"): (
        Expected(
            "the server wants proof that this is 'ada': pass private_key= to authenticate()\n",
            "closed",
        ),
    ),
    ("usage.md", "timeouts"): (Expected("RequestTimeout\n"),),
    ("usage.md", "server"): (Expected("{{}}\n"),),
    ("usage.md", "family"): (
        Expected("servers 0.2 (instance)\nkeeps detached output: True\n"),
        Expected("servers 0.3 to 0.4 (process-0.3)\nkeeps detached output: False\n", "process-0.3"),
        Expected("servers 0.5 (process)\nkeeps detached output: False\n", "process"),
    ),
    ("usage.md", "dialect"): (Expected("0.5\n", "process"),),
    ("usage.md", "frame_0_5"): (Expected("", "process"),),
    ("usage.md", "manifest"): (Expected("True\nGo on.\n", "process"),),
    ("usage.md", "no_manifest"): (Expected("Go on.\n", "process"),),
    ("usage.md", "source"): (
        Expected(
            "this is no WebAssembly (it begins with b'asyn'): a program in source "
            "needs a manifest that says what it is, as in manifest='[package]\\nname = "
            '"echo"\\nversion = "0.1.0"\\n[runtime]\\nlanguage = "python"\\nentry = '
            '"echo"\\ncall = "kwargs"\\n\'\n',
            "process",
        ),
    ),
    ("usage.md", "input"): (Expected("--prompt\nHi\n--n\n3\n--brief\n" * 2, "process"),),
    ("usage.md", "json"): (Expected("{{'answer': 42}}\n", "process"),),
    ("usage.md", "found"): (Expected("Go on.\n", "process"),),
    ("usage.md", "lacking"): (
        Expected(
            "servers 0.5 launch no programs that are servers: launch it as an instance\n",
            "process",
        ),
    ),
    ("usage.md", "lacks"): (
        Expected(
            "".join(
                f"no {ability.id}: {ability.instead}\n"
                for ability in lacks(FAMILIES["process"].capabilities)
            ),
            "process",
        ),
    ),
    ("usage.md", "lacking_before"): (
        Expected("servers 0.2 give programs a list of arguments and no input: use arguments\n"),
    ),
}

# ----------------------------------------------------------------------------------- the three ways

ON_TRIO: Final = (
    ("import asyncio", "import trio"),
    ("asyncio.run(main())", "trio.run(main)"),
    ("import anyio", "import trio"),
    ("anyio.run(main)", "trio.run(main)"),
)
"""Whole lines, and what stands there on trio: the runner alone."""

THROUGH_THE_ADAPTER: Final = (
    *ON_TRIO,
    (
        "from pie_anyio import ParsedPrivateKey, PieClient",
        "from pie_trio_adapter import ParsedPrivateKey, open_client",
    ),
    ("from pie_anyio import PieClient", "from pie_trio_adapter import open_client"),
    (
        "from pie_anyio import PieClient, PieError",
        "from pie_trio_adapter import PieError, open_client",
    ),
    (
        "from pie_anyio import AuthenticationError, PieClient",
        "from pie_trio_adapter import AuthenticationError, open_client",
    ),
    ("from pie_anyio import Event", "from pie_trio_adapter import Event"),
    ("from pie_anyio import InstanceFailed", "from pie_trio_adapter import InstanceFailed"),
    ("from pie_anyio import ReceivedBlob", "from pie_trio_adapter import ReceivedBlob"),
    ("from pie_anyio import LocalProtocolError", "from pie_trio_adapter import LocalProtocolError"),
    (
        "from pie_anyio import LaunchFailed, LocalProtocolError",
        "from pie_trio_adapter import LaunchFailed, LocalProtocolError",
    ),
    *(
        (
            f'async with PieClient("{ADDRESS}"{arguments}) as client:',
            f'async with open_client("{ADDRESS}"{arguments}) as client:',
        )
        for arguments in (
            "",
            ', identity="default/ada"',
            ', dialect="process", identity="team/ada"',
        )
    ),
)
"""The same through the adapter: the runner, the imports, and the line that begins the block."""


def changed(program: str, lines: tuple[tuple[str, str], ...]) -> tuple[str, set[str]]:
    """A program with other lines in the places of some, and which were replaced."""
    replaced: set[str] = set()
    for old, new in lines:
        pattern = re.compile(rf"^( *){re.escape(old)}$", re.MULTILINE)
        if pattern.search(program):
            replaced.add(old)
            program = pattern.sub(partial(_indented, new), program)
    return program, replaced


def _indented(line: str, at: re.Match[str]) -> str:
    return textwrap.indent(line, at[1])


def as_it_stands(program: str) -> str:
    return program


def on_trio(program: str) -> str:
    program, replaced = changed(program, ON_TRIO)
    assert len(replaced) == 2, f"one import and one line that runs: {replaced}"
    return program


def through_the_adapter(program: str) -> str:
    program, replaced = changed(program, THROUGH_THE_ADAPTER)
    assert any("open_client(" in new for old, new in THROUGH_THE_ADAPTER if old in replaced)
    assert "PieClient" not in program
    assert not re.search(r"\b(asyncio|anyio)\b", program)
    assert "pie_anyio" not in program
    return program


WAYS: Final = {"asyncio": as_it_stands, "trio": on_trio, "adapter": through_the_adapter}

# -------------------------------------------------------------------------------------- the samples

PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SAMPLES: Final = {
    (block.page.name, block.name): block
    for page in PAGES
    for block in blocks(page)
    if block.kind in {"python sample", "python piece"}
}


def program_of(block: Block) -> str:
    """The sample as a whole program; a piece in the frame of its page."""
    if block.kind == "python sample":
        return block.code
    frame = SAMPLES[block.page.name, block.frame].code
    program, pieces = re.subn(
        r"^( *)\.\.\.\n",
        lambda dots: textwrap.indent(block.code, dots[1]),
        frame,
        flags=re.MULTILINE,
    )
    assert pieces == 1
    return program


class Case(NamedTuple):
    sample: tuple[str, str]
    way: str
    expected: Expected

    def __str__(self) -> str:
        page, name = self.sample
        return f"{page}-{name}-{self.expected.where}-{self.way}"


def cases() -> Iterator[Case]:
    for sample, expectations in EXPECTED.items():
        knows_asyncio = sample in SAMPLES and "asyncio" in SAMPLES[sample].code
        for expected in expectations:
            for way in expected.ways:
                if way != "adapter" or not (knows_asyncio or sample == ("README.md", "serve")):
                    yield Case(sample, way, expected)


CASES: Final = tuple(cases())


# ------------------------------------------------------------------------------------------ running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's home: a key, a program, a token, and the folder that is the server's registry."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    key = home / ".ssh" / "id_ed25519"
    key.touch(mode=0o600)
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    (home / "internal_token").write_text(TOKEN)
    (home / "my_program.wasm").write_bytes(component("reply"))
    registry = home / "registry"
    registry.mkdir()
    for name, program in REGISTRY.items():
        (registry / f"{name}.wasm").write_bytes(component(program))
    return home


@contextmanager
def address(where: Where, home: Path, key: ParsedPrivateKey) -> Iterator[str]:
    """Where a sample connects to."""
    registry = home / "registry"
    match where:
        case "open":
            with serving(registry=registry) as server:
                yield server.url
        case "closed":
            keys = {"ada": key.public_key()}
            with serving(registry=registry, authorized_keys=keys, internal_token=TOKEN) as server:
                yield server.url
        case "process-0.3" | "process":
            with serving(registry=registry, dialect=where) as server:
                yield server.url
        case "nowhere":
            # Bound and not listened to, so that nobody else gets the port meanwhile.
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                yield f"ws://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sample_prints_what_it_should(
    case: Case, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert case.sample in SAMPLES, "no page has this sample any more"
    program = WAYS[case.way](program_of(SAMPLES[case.sample]))
    key = ParsedPrivateKey.from_file(home / ".ssh" / "id_ed25519")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("PIE_KEY", (home / ".ssh" / "id_ed25519").read_text())
    with address(case.expected.where, home, key) as uri:
        out, err = printed_by(program.replace(ADDRESS, uri))
    different = {
        "address": uri,
        "public_key": key.public_key(),
        "fingerprint": key.fingerprint(),
    }
    assert out == case.expected.printed.format(**different)
    assert err == case.expected.on_stderr
    logged = [record for record in caplog.records if record.name in LOGGERS]
    assert "\n".join(record.getMessage() for record in logged) == case.expected.logged


def printed_by(program: str) -> tuple[str, str]:
    """Run a program as if it were one of its own; what it prints, and what on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(program, "<sample>", "exec"), {"__name__": "__main__"})
    return out.getvalue(), err.getvalue()


# ------------------------------------------------------------------------------ nothing is left out


def test_every_sample_has_its_expected_output_and_each_expectation_its_sample() -> None:
    assert SAMPLES.keys() == EXPECTED.keys()
    found = [
        (block.page.name, block.name)
        for page in PAGES
        for block in blocks(page)
        if block.kind in {"python sample", "python piece"}
    ]
    assert len(found) == len(SAMPLES), "two samples of one page have the same name"


@pytest.mark.parametrize("page", [ROOT / "README.md", USAGE], ids=lambda page: page.name)
def test_all_python_on_these_pages_is_run(page: Path) -> None:
    assert {block.kind for block in blocks(page)} <= {"python sample", "python piece"}


def test_most_samples_go_all_three_ways() -> None:
    thrice = {case.sample for case in CASES if case.way == "adapter"}
    assert len(thrice) > len(SAMPLES) / 2


def test_no_line_is_replaced_that_no_sample_has() -> None:
    used: set[str] = set()
    for case in CASES:
        if case.way == "adapter":
            used |= changed(program_of(SAMPLES[case.sample]), THROUGH_THE_ADAPTER)[1]
        elif case.way == "trio":
            used |= changed(program_of(SAMPLES[case.sample]), ON_TRIO)[1]
    assert used == {old for old, _ in THROUGH_THE_ADAPTER}


@pytest.mark.parametrize("owner", [PieClient, Instance, ParsedPrivateKey])
def test_the_page_on_usage_names_every_method(owner: type) -> None:
    page = USAGE.read_text(encoding="utf-8")
    names = [name for name in dir(owner) if not name.startswith("_")]
    assert len(names) > 5
    missing = [name for name in names if not re.search(rf"\b{name}\b", page)]
    assert missing == []


def test_the_page_on_usage_tells_every_kind_of_event() -> None:
    kinds = re.findall(r"^\| ([A-Z]\w+) \|", prose(USAGE), re.MULTILINE)
    assert kinds == [event.name for event in pie_anyio.Event]
    matched = set(re.findall(r"Event\.(\w+)", SAMPLES["usage.md", "events"].code))
    assert matched == set(kinds)


@pytest.mark.slow
def test_every_sample_passes_a_strict_type_checker_in_each_way(tmp_path: Path) -> None:
    for number, case in enumerate(CASES):
        program = WAYS[case.way](program_of(SAMPLES[case.sample]))
        (tmp_path / f"{case.way}_{case.sample[1]}_{number}.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "."],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
