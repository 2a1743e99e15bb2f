"""The published ``pie-client`` 0.5.3, unmodified, against the embedded server in `process`.

It takes in messages up to 1 MiB, and its commands ``list`` and ``abort`` fail in its own code, with
whatever server.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import pytest

from tests.peers.environments import tool
from tests.peers.padding import padded
from tests.peers.server_process import server_process
from tests.programs import component

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PieClient: TypeAlias = Callable[..., Any]

KIB, MIB = 1024, 1024 * 1024
NOBODY: Final = "99999999-9999-4999-8999-999999999999"

PROGRAMS: Final = (
    "arguments", "echo", "echo_blob", "error", "files", "flood", "hello", "loop", "return_value",
    "sleep", "trap", "unicode",
)  # fmt: skip

HELLO: Final = {"Stdout": "hello from pie\n", "Stderr": "a warning\n", "Return": "done"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server like release 0.5, with a registry."""
    registry = tmp_path_factory.mktemp("registry")
    for name in PROGRAMS:
        (registry / f"{name}@0.1.0.wasm").write_bytes(component(name))
    with server_process("--dialect", "process", "--registry", str(registry)) as url:
        yield url


@pytest.fixture
def ask(server: str, pie_client_0_5: PieClient) -> PieClient:
    """Have the client do something that succeeds; what it got."""

    def ask(what: str, **task: Any) -> Any:
        answer = pie_client_0_5(what, url=server, **task)
        assert "refusal" not in answer
        return answer["result"]

    return ask


# ------------------------------------------------------------------------------------ coming in


@pytest.mark.parametrize("path", ["", "/", "/v1/ws"])
def test_it_connects_without_a_path_and_pings(
    path: str, server: str, pie_client_0_5: PieClient
) -> None:
    root = server.removesuffix("/v1/ws").removesuffix("/")
    assert pie_client_0_5("ping", url=root + path, times=20) == {"result": [None] * 20}


@pytest.mark.parametrize(
    ("path", "identity", "words"),
    [("/elsewhere", "default/joe", "HTTP 404"), ("", "default/", "HTTP 401")],
)
def test_another_path_and_nobody_are_turned_away(
    path: str, identity: str, words: str, server: str, pie_client_0_5: PieClient
) -> None:
    root = server.removesuffix("/v1/ws").removesuffix("/")
    answer = pie_client_0_5("ping", url=root + path, identity=identity, times=1)
    assert words in answer["refusal"]


# ----------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize(
    ("given", "size"), [("bytes", 0), ("files", 256 * KIB), ("files", 3 * MIB)]
)
def test_a_program_is_installed_and_launched_by_its_names(
    given: str, size: int, tmp_path: Path, ask: PieClient
) -> None:
    name = f"installed-{given}-{size}"
    (tmp_path / "program.wasm").write_bytes(padded(component("hello"), size))
    (tmp_path / "Pie.toml").write_text(f'[package]\nname = "{name}"\nversion = "0.2.0"\n')
    told = ask(
        "install",
        **{"from": given, "name": name, "version": "0.2.0"},
        program=str(tmp_path / "program.wasm"),
        manifest=str(tmp_path / "Pie.toml"),
    )
    assert (told["before"], told["after"], told["other"]) == (False, True, False)
    assert [joined(events) for events in told["launched"]] == [HELLO, HELLO]


def test_programs_are_installed_at_once(tmp_path: Path, ask: PieClient) -> None:
    program = tmp_path / "program.wasm"
    program.write_bytes(padded(component("hello"), MIB))
    names = [f"at-once-{number}" for number in range(5)]
    assert ask("install_many", program=str(program), names=names) == [True] * 5
    assert joined(ask("launch", name="at-once-3@1.0.0")) == HELLO


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({"prompt": "Hi there €", "n": 3, "flag": True}, "--prompt Hi there € --n 3 --flag"),
        ({"list": [1, "two"]}, '--list [1, "two"]'),
        ({}, ""),
        (None, ""),
    ],
)
def test_an_input_reaches_the_program(
    given: dict[str, Any] | None, lines: str, ask: PieClient
) -> None:
    said = joined(ask("launch", name="arguments", input=given))
    printed = said.pop("Stdout", "").splitlines()
    assert " ".join(printed) == lines
    assert said == {"Return": printed[0] if printed else ""}


def test_what_cannot_be_is_refused_in_words(tmp_path: Path, ask: PieClient) -> None:
    (tmp_path / "program.wasm").write_bytes(component("hello"))
    told = ask("refusals", program=str(tmp_path / "program.wasm"), nobody=NOBODY)
    for what, words in {
        "unknown name": "Program not found: std/nobody@latest",
        "unknown version": "Program not found: std/echo@9.9.9",
        "no component": "not a WebAssembly component",
        "no manifest": "Invalid manifest: ",
        "source": "programs in source cannot run here",
        "no version": "Invalid program identifier echo@one",
        "unknown process": "Process not found",
        "no process": "Invalid process_id",
        "unknown end": "Process not found",
        "no end": "Invalid process ID",
    }.items():
        assert words in told[what], what
    assert told["broken"] is False
    assert told["alive"] is None


# ------------------------------------------------------------------------- output and its ends


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("hello", {}, HELLO),
        ("unicode", {}, {"Stdout": "für €5\n\ufffd", "Return": ""}),
        ("return_value", {}, {"Return": "forty-two"}),
        ("error", {}, {"Error": "it went wrong"}),
        (
            "flood",
            {"count": 24},
            {
                "Stdout": "".join(f"{n:016}".ljust(65_535, ".") + "\n" for n in range(24)),
                "Return": "flooded",
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_output_is_whole_and_its_kinds_and_ends_are_told_apart(
    name: str, given: dict[str, Any], said: dict[str, str], ask: PieClient
) -> None:
    assert joined(ask("launch", name=name, input=given)) == said


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("return_value", {}, "forty-two"),
        ("hello@0.1.0", {}, "done"),
        ("arguments", {"prompt": "Hi"}, "--prompt"),
    ],
)
def test_what_a_program_returns_is_the_result(
    name: str, given: dict[str, Any], value: str, ask: PieClient
) -> None:
    assert ask("result", name=name, input=given) == value


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("error", {}, "it went wrong"),
        ("trap", {}, "unreachable"),
        ("arguments", {"": 1}, "the input is no JSON object"),
        ("nobody", {}, "Program not found: std/nobody@latest"),
    ],
)
def test_what_goes_wrong_is_raised_with_its_words(
    name: str,
    given: dict[str, Any],
    words: str,
    server: str,
    pie_client_0_5: PieClient,
) -> None:
    answer = pie_client_0_5("result", url=server, name=name, input=given)
    assert words in answer["refusal"]


# ----------------------------------------------------------------------------- messages and files


def test_messages_are_answered_in_order(ask: PieClient) -> None:
    say = [*(f"message {number}" for number in range(200)), "héllo €", "", "x" * 900_000]
    assert ask("talk", say=say) == [
        *(["Message", f"echo: {text}"] for text in say),
        ["Return", "stopped"],
    ]


def test_processes_at_once_each_hear_their_own(ask: PieClient) -> None:
    say = [f"message {number}" for number in range(20)]
    assert ask("many", say=say) == [
        [["Message", f"echo: {text}"], ["Return", "stopped"]] for text in say
    ]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("files", [1, 256 * KIB, 256 * KIB + 1, 5 * MIB]),
        # It makes a file of its own of what it got, for which it reads that whole.
        ("echo_blob", [1, 256 * KIB, 256 * KIB + 1, 900 * KIB]),
    ],
    ids=["sent on", "made anew"],
)
def test_files_go_both_ways(name: str, sizes: list[int], tmp_path: Path, ask: PieClient) -> None:
    told = ask("files", name=name, files=files_of(sizes, tmp_path), folder=str(tmp_path))
    assert told["end"] == ["Return", "an empty blob came"]
    check_files(told["files"], tmp_path, len(sizes))


def test_files_that_cross_reach_their_processes(tmp_path: Path, ask: PieClient) -> None:
    sizes = [3 * MIB, 600 * KIB, MIB]
    given = files_of(sizes, tmp_path)
    # The same content twice, to different processes.
    (tmp_path / "given2.bin").write_bytes((tmp_path / "given0.bin").read_bytes())
    check_files(ask("files_at_once", files=given, folder=str(tmp_path)), tmp_path, len(sizes))


# ------------------------------------------------------------------------------ processes


def test_what_runs_is_listed_for_its_user_alone(ask: PieClient) -> None:
    inputs = [{"n": 1}, {"prompt": "Hi €"}]
    told = ask("list_processes", identity="default/lister", inputs=inputs)
    first, second = told["ids"]
    rows = {row["id"]: row for row in told["rows"]}
    assert sorted(rows) == sorted(told["ids"])
    assert told["other"] == sorted(told["ids"])
    assert told["eve"] == []
    assert told["one left"] == [second]
    for process_id, given in (
        (first, '{"n": 1}'),
        (second, '{"prompt": "Hi \\u20ac"}'),
    ):
        row = rows[process_id]
        assert row["program"] == "echo@0.1.0"
        assert row["input"] == given
        assert row["username"] == "internal"
        assert row["elapsed_secs"] >= 0


@pytest.mark.parametrize("by", ["process", "client", "another connection"])
@pytest.mark.parametrize(("name", "line"), [("sleep", "sleeping\n"), ("loop", "looping\n")])
def test_a_running_process_is_terminated_by_its_user_alone(
    name: str, line: str, by: str, ask: PieClient
) -> None:
    told = ask("terminate", identity=f"default/{name}", name=name, by=by)
    assert told["first"] == ["Stdout", line]
    assert "Process not found" in told["theft"]
    assert told["running"] == [told["id"]]
    assert told["end"] == [["Error", "Signal"]]
    assert told["left"] == []
    assert "Process not found" in told["again"]


def test_a_detached_process_is_found_attached_and_spoken_to(ask: PieClient) -> None:
    told = ask("detached", identity="default/detacher")
    # The launch tells no identifier.
    assert told["told"] == ""
    assert told["attached"] == told["found"]
    assert "Cannot attach: already attached" in told["refusal"]
    assert told["answer"] == ["Message", "echo: are you there?"]
    assert told["end"] == [["Return", "stopped"]]
    assert told["left"] == []
    assert "Process not found" in told["over"]


def test_processes_end_with_the_connection_that_they_are_attached_to(ask: PieClient) -> None:
    assert "Process not found" in ask("left_behind", identity="default/loser")


def test_queries_are_answered_and_unknown_ones_refused(ask: PieClient) -> None:
    told = ask("query", subjects=["model_status", "nonsense"])
    assert told == [[True, "{}"], [False, "Unknown query subject: nonsense"]]


# ------------------------------------------------------------------------------- its command


def test_its_command_pings_installs_and_runs_a_program(server: str, tmp_path: Path) -> None:
    (tmp_path / "program.wasm").write_bytes(component("hello"))
    (tmp_path / "Pie.toml").write_text('[package]\nname = "by-command"\nversion = "0.1.0"\n')
    files = ("--path", str(tmp_path / "program.wasm"), "--manifest", str(tmp_path / "Pie.toml"))
    assert "alive" in command("ping", server, tmp_path)[1]
    assert "installed" in command("install", server, tmp_path, *files)[1]
    for arguments, code, words in (
        (["by-command"], 0, ["hello from pie", "a warning", "done"]),
        (["arguments", "--", "--prompt", "Hi there"], 0, ["--prompt", "Hi there"]),
        (["error"], 1, ["it went wrong"]),
        (["nobody"], 1, ["Program not found: std/nobody@latest"]),
    ):
        ended, said = command("submit", server, tmp_path, *arguments)
        assert ended == code, said
        assert [word for word in words if word not in said] == [], said


def command(what: str, server: str, home: Path, *arguments: str) -> tuple[int, str]:
    """Run ``pie-client``: its exit code, and all that it said."""
    address = urlsplit(server)
    options = ["--host", str(address.hostname), "--port", str(address.port), "--username", "joe"]
    with subprocess.Popen(
        [tool("pie-client-0.5", "pie-client"), what, *options, *arguments],
        # What it is to read never comes: at the end of it, it would leave.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, "HOME": str(home), "PYTHONIOENCODING": "utf-8"},
    ) as process:
        try:
            process.wait(timeout=40)
            assert process.stdout is not None
            return process.returncode, process.stdout.read()
        finally:
            process.kill()


def joined(events: list[list[str]]) -> dict[str, str]:
    """The text of all events of each kind, however it was cut."""
    said: dict[str, str] = {}
    for kind, data in events:
        said[kind] = said.get(kind, "") + data
    return said


def files_of(sizes: list[int], folder: Path) -> list[str]:
    """A file of each size, ``given0.bin`` and so on."""
    files = [folder / f"given{number}.bin" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(os.urandom(size))
    return [str(file) for file in files]


def check_files(told: list[dict[str, Any]], folder: Path, count: int) -> None:
    """What was saved is what was given; a component gives it no name."""
    assert len(told) == count
    for number, file in enumerate(told):
        assert file["name"] is None
        assert Path(file["path"]) == folder / f"back{number}.bin"
        same = Path(file["path"]).read_bytes() == (folder / f"given{number}.bin").read_bytes()
        assert same, number
