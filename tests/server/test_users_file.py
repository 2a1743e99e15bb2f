"""Users from a TOML file: who gets in, what can be wrong with it, and what changing it does."""

# ruff: noqa: ASYNC240 - what a test looks at in its own folder does not make it wait

from __future__ import annotations

import os
import re
from pathlib import Path

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio.server import Server, serve
from pie_anyio.server.users_file import FILE_BYTES, UsersFile
from pie_proto import (
    AnswerChallenge,
    Authenticated,
    Authentication,
    ChallengeReceived,
    Failed,
    Identify,
    KeyFormatError,
    Outcome,
)
from pie_proto.public_keys import PublicKey
from tests.server.server_peer import KEY, LINE, connected

pytestmark = [pytest.mark.anyio]

OTHER_KEY = Ed25519PrivateKey.generate()
OTHER_LINE = PublicKey.of(OTHER_KEY.public_key()).line()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


async def come_in(server: Server, user: str, key: Ed25519PrivateKey) -> Outcome:
    """What comes of a user's attempt to prove who they are."""
    async with connected(server) as peer:
        outcome = await peer.ask(Identify(user))
        if isinstance(outcome, ChallengeReceived):
            outcome = await peer.ask(AnswerChallenge(key.sign(outcome.challenge)))
        return outcome


PROVED = Authenticated(2, Authentication.PROVED)


# ---------------------------------------------------------------------------------------- who comes


@pytest.mark.usefixtures("tidy")
async def test_each_of_several_keys_lets_its_user_in_and_nobody_else(path: Path) -> None:
    path.write_text(
        f"""\
        # Two users; Ada has two keys.
        [ada]
        keys = ["{LINE} ada@laptop", " {OTHER_LINE}\\n"]

        ["grace@example.org"]
        keys = ['{OTHER_LINE} grace']
        """,
        encoding="utf-8-sig",
    )
    async with serve(users=path) as server:
        assert await come_in(server, "ada", KEY) == PROVED
        assert await come_in(server, "ada", OTHER_KEY) == PROVED
        assert await come_in(server, "grace@example.org", OTHER_KEY) == PROVED
        refused = await come_in(server, "grace@example.org", KEY)
        assert isinstance(refused, Failed)
        assert "verification failed" in refused.reason
        refused = await come_in(server, "joe", KEY)
        assert isinstance(refused, Failed)
        assert "'joe' is not authorized" in refused.reason


@pytest.mark.usefixtures("tidy")
async def test_with_a_file_of_users_others_than_this_machine_may_connect(path: Path) -> None:
    path.write_text(f"[ada]\nkeys = ['{LINE}']")
    async with serve("0.0.0.0", users=path) as server:
        assert server.port > 0


def test_users_and_authorized_keys_do_not_go_together(path: Path) -> None:
    with pytest.raises(ValueError, match=r"users and authorized_keys .* give one of them"):
        serve(users=path, authorized_keys={"ada": LINE})


# ------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ada", "is not TOML: ."),
        ("[ada]\nkeys = []\n[ada]\nkeys = []", "is not TOML: .*ada"),
        ("# nobody\n", "has no user: a user is a table like"),
        ("ada = 'ssh-ed25519 AAAA'", "user 'ada' is no table: "),
        ("[ada]", "user 'ada' has no keys: a user is a table like"),
        ("[ada]\nkey = ['x']", "user 'ada' has the unknown field 'key': "),
        ("[ada]\nkeys = ['LINE']\nadmin = true", "user 'ada' has the unknown field 'admin': "),
        ("[ada]\nkeys = 'x'", "user 'ada': keys is no list: "),
        ("[ada.keys]", "user 'ada': keys is no list: "),
        ("[ada]\nkeys = []", "user 'ada': keys is empty, and lets nobody in: "),
        ("[ada]\nkeys = ['LINE', 7]", "user 'ada': key 2 is no string: "),
        ("#" * (FILE_BYTES + 1), f"has more than {FILE_BYTES} bytes"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_the_user_and_what_is_wanted(
    path: Path, text: str, words: str
) -> None:
    path.write_text(text.replace("LINE", LINE))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + words):
        serve(users=path)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("nonsense", "found no public key"),
        ("", "the text is empty"),
        ("ssh-ed25519", "cut short"),
        ("LINE\\nLINE", "more than one line: each key is a string of its own"),
        ("restrict LINE", "there are options before the key"),
    ],
)
def test_a_string_that_is_no_key_is_told_by_its_number(path: Path, key: str, words: str) -> None:
    path.write_text(
        f'[joe]\nkeys = ["{LINE}"]\n[ada]\nkeys = ["{LINE}", "{key}"]'.replace("LINE", LINE)
    )
    with pytest.raises(
        KeyFormatError, match=re.escape(f"{path}: user 'ada': key 2: ") + ".*" + words
    ):
        serve(users=path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_is_read_in_the_encoding_that_it_has(path: Path, encoding: str) -> None:
    text = f"# ada's\n[ada]\nkeys = ['{LINE}']\n"
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert list(UsersFile(path).keys()) == ["ada"]


def test_what_is_no_text_is_no_toml(path: Path) -> None:
    path.write_bytes(b"[ada]\nkeys = ['\xff']")
    with pytest.raises(ValueError, match=r"is not TOML: .*utf-8"):
        serve(users=path)


def test_a_file_that_is_not_there_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"users\.toml"):
        serve(users=path)


# ------------------------------------------------------------------------------------- what changes


@pytest.mark.usefixtures("tidy")
async def test_a_file_that_changes_is_followed(path: Path) -> None:
    path.write_text(f"[ada]\nkeys = ['{LINE}']")
    async with serve(users=path) as server:
        status = path.stat()
        path.write_text(f"[joe]\nkeys = ['{LINE}']")
        # Not even if nothing but the content tells that it has.
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert await come_in(server, "joe", KEY) == PROVED
        assert isinstance(await come_in(server, "ada", KEY), Failed)


@pytest.mark.usefixtures("tidy")
async def test_a_key_taken_away_does_not_answer_a_challenge_made_before(path: Path) -> None:
    path.write_text(f"[ada]\nkeys = ['{LINE}']")
    async with serve(users=path) as server, connected(server) as peer:
        challenge = await peer.ask(Identify("ada"))
        assert isinstance(challenge, ChallengeReceived)
        path.write_text(f"[ada]\nkeys = ['{OTHER_LINE}']")
        signature = KEY.sign(challenge.challenge)
        assert "verification failed" in await peer.refusal(AnswerChallenge(signature))


async def test_a_file_that_is_broken_leaves_the_users_as_they_were_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = f"[ada]\nkeys = ['{LINE}']"
    path.write_text(good)

    def logged() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return [text for text in messages if text.startswith("the users stay as they were: ")]

    async with serve(users=path) as server:
        path.write_text("[joe]\nkeys = 7")
        assert await come_in(server, "ada", KEY) == PROVED
        assert await come_in(server, "ada", KEY) == PROVED
        (line,) = logged()
        assert "user 'joe': keys is no list" in line
        path.unlink()
        for _ in range(2):
            assert await come_in(server, "ada", KEY) == PROVED
        (line,) = logged()
        assert "users.toml" in line
        path.write_text(good.replace("ada", "joe"))
        assert await come_in(server, "joe", KEY) == PROVED
        assert logged() == []
        path.unlink()
        assert await come_in(server, "joe", KEY) == PROVED
        assert len(logged()) == 1


async def test_many_who_come_at_a_time_see_one_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(f"[ada]\nkeys = ['{LINE}']")
    users = UsersFile(path)
    path.write_text("broken")
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(anyio.to_thread.run_sync, users.keys)
    assert len(caplog.records) == 1
    assert list(users.keys()) == ["ada"]
