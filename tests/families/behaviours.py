"""What holds with every family of servers, or is refused in words where a family cannot do it.

Each is imported where there is a ``world`` to run it in: beside the embedded servers, and beside
the real one.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pie_anyio import (
    AttachFailed,
    Event,
    InstanceFailed,
    LaunchFailed,
    LocalProtocolError,
    ParsedPrivateKey,
    QueryFailed,
    TerminateFailed,
)
from pie_proto import hash_of
from pie_proto.dialects import ProgramsBy
from pie_proto.dialects.abilities import ABILITIES
from tests.families.world import SOON, World, told
from tests.programs.table import PROGRAMS

KIB, MIB = 1024, 1024 * 1024
NOBODY = "99999999-9999-4999-8999-999999999999"

pytestmark = pytest.mark.anyio


async def until(instance: Any, wanted: Event) -> str | bytes:
    """Read up to an event of this kind; its data."""
    while True:
        event, data = await instance.recv()
        if event is wanted:
            data_of: str | bytes = data
            return data_of


# --------------------------------------------------------------------------------------- connection


async def test_what_the_server_is_is_found_out(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.stranger() as client:
            await client.authenticate("ada")
            assert client.server == world.can
            assert client.authentication == "asserted"


async def test_a_ping_is_answered(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            await client.ping()


async def test_a_query_is_answered(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            assert (await client.query("model_status", "")).startswith("{")


async def test_an_unknown_query_is_refused_where_it_is_answered(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            if world.can.answers_every_query:
                with pytest.raises(QueryFailed, match="nonsense"):
                    await client.query("nonsense", "")
            else:
                with anyio.move_on_after(0.2) as scope:
                    await client.query("nonsense", "")
                assert scope.cancelled_caught
                await client.ping()


async def test_a_token_is_known_or_refused_in_words(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.stranger(dialect=world.name) as client:
            if world.can.tokens:
                await client.internal_authenticate("the token of it")
                assert client.authentication == "token"
            else:
                with pytest.raises(LocalProtocolError, match="know no internal token"):
                    await client.internal_authenticate("any")


async def test_a_key_is_proved_to_who_asks_and_unneeded_elsewhere(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = ParsedPrivateKey(Ed25519PrivateKey.generate())
    with anyio.fail_after(SOON):
        async with world.that_knows("ada", key) as there, there.stranger() as client:
            with caplog.at_level(logging.WARNING):
                await client.authenticate("ada", key)
            assert client.authentication == ("proved" if world.can.proof else "asserted")
    told = [record for record in caplog.records if "key" in record.getMessage()]
    assert len(told) == (0 if world.can.proof else 1)


# ----------------------------------------------------------------------------------------- programs


async def test_a_program_is_found_by_its_hash_by_whoever_comes(world: World) -> None:
    program, source = PROGRAMS["hello"], b""
    with anyio.fail_after(SOON):
        async with world.client() as client:
            if world.is_real:
                # No name: it is called after its hash.
                source = program.source()
                manifest = '[runtime]\nlanguage = "python"\nentry = "hello"\ncall = "kwargs"\n'
                program_hash = await client.upload_program(source, manifest=manifest)
            else:
                source = program.component()
                program_hash = await client.upload_program(source)
            assert program_hash == hash_of(source)
        async with world.client() as other:
            assert await other.program_exists(program_hash)
            assert not await other.program_exists("0" * 64)
            assert (await told(await other.launch_instance(program_hash)))[
                Event.Completed
            ] == "done"


async def test_a_hash_in_upper_case_is_the_same_program(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            program_hash = (await world.upload(client, "hello")).upper()
            assert program_hash != program_hash.lower()
            if not world.is_real:
                assert await client.program_exists(program_hash)
                instance = await client.launch_instance(program_hash)
                assert await instance.result() == "done"
            assert not await client.program_exists("ABCDEF" + "0" * 58)


async def test_a_program_is_launched_by_the_name_in_its_manifest(world: World) -> None:
    program = PROGRAMS["echo"]
    content = program.source() if world.is_real else program.component()
    with anyio.fail_after(SOON):
        async with world.client() as client:
            if world.can.programs_by is ProgramsBy.HASH:
                with pytest.raises(LocalProtocolError, match="upload the program without"):
                    await client.upload_program(content, manifest=program.manifest())
                return
            program_hash = await client.upload_program(content, manifest=program.manifest())
            by_hash = await client.launch_instance(program_hash)
            await by_hash.send("stop")
            assert await by_hash.result() == "stopped"
        async with world.client() as other:
            assert await other.program_exists(program.identifier)
            for name in (program.name, program.identifier):
                instance = await other.launch_instance_from_registry(name)
                await instance.send("stop")
                assert await instance.result() == "stopped"
            # Its hash tells nothing where it has a name: that is said.
            with pytest.raises(LaunchFailed, match="launched from the registry, by that name"):
                await other.launch_instance(program_hash)


async def test_source_without_a_manifest_is_refused_with_an_example(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            if world.can.programs_by is ProgramsBy.NAME:
                with pytest.raises(LocalProtocolError, match=r"manifest='\[package\]"):
                    await client.upload_program(b"async def main(): pass")
            await client.ping()


async def test_an_unknown_program_cannot_be_launched(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            with pytest.raises(LaunchFailed, match="the server said"):
                await client.launch_instance("0" * 64)
            with pytest.raises(LaunchFailed, match="the server said"):
                await client.launch_instance_from_registry("nothing-of-the-kind")


async def test_arguments_reach_a_program(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "arguments", "--prompt", "Hi there", "--flag")
            assert await told(instance) == {
                Event.Stdout: "--prompt\nHi there\n--flag\n",
                Event.Completed: "--prompt",
            }


async def test_an_input_reaches_a_program_that_takes_one(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            if not world.can.takes_input:
                with pytest.raises(LocalProtocolError, match="arguments"):
                    await world.launch(client, "arguments", input={"prompt": "Hi"})
                return
            given = {"prompt": "Hi there", "n": 3}
            instance = await world.launch(client, "arguments", input=given)
            assert (await told(instance))[Event.Stdout] == "--prompt\nHi there\n--n\n3\n"


async def test_an_input_with_keys_that_are_the_same_in_json_is_not_sent(world: World) -> None:
    colliding: list[dict[Any, Any]] = [
        {True: "on", "true": "off"},
        {"a": [{10: "ten", "10": "TEN"}]},
    ]
    with anyio.fail_after(SOON):
        async with world.client() as client:
            program_hash = await world.upload(client, "hello")
            before = client.statistics().requests_sent
            for given in colliding:
                for launch in (client.launch_instance, client.launch_instance_from_registry):
                    with pytest.raises(LocalProtocolError, match="is there twice in one object"):
                        await launch(program_hash, input=given)
            assert client.statistics().requests_sent == before


# ------------------------------------------------------------------------------------------- output


async def test_stdout_and_stderr_are_told_apart_and_complete(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            assert await told(await world.launch(client, "hello")) == {
                Event.Stdout: "hello from pie\n",
                Event.Stderr: "a warning\n",
                Event.Completed: "done",
            }


async def test_much_output_is_complete_and_in_order(world: World) -> None:
    count = 40 if world.is_real else 24
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "flood", "--count", str(count))
            printed = (await told(instance))[Event.Stdout]
    assert printed == "".join(f"{number:016}".ljust(65_535, ".") + "\n" for number in range(count))


async def test_messages_are_answered_in_order(world: World) -> None:
    count = 1000 if world.is_real else 200
    with anyio.fail_after(SOON):
        async with world.client() as client, anyio.create_task_group() as tasks:
            instance = await world.launch(client, "echo")

            async def say() -> None:
                for number in range(count):
                    await instance.send(f"message {number}")

            tasks.start_soon(say)
            for number in range(count):
                assert await until(instance, Event.Message) == f"echo: message {number}"
            await instance.send("stop")
            assert await instance.result() == "stopped"


async def test_a_message_may_be_large_and_not_too_large(world: World) -> None:
    text = "0123456789abcdef" * (4 * MIB // 16)
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "echo")
            await instance.send(text)
            assert await until(instance, Event.Message) == f"echo: {text}"
            limit = world.can.frame_bytes
            with pytest.raises(LocalProtocolError, match=f"the server takes {limit}"):
                await instance.send("x" * limit)
            await instance.send("stop")
            assert await instance.result() == "stopped"


@pytest.mark.parametrize("size", [1, 256 * KIB, 256 * KIB + 1, 6 * MIB])
async def test_blobs_go_both_ways(world: World, size: int) -> None:
    content = os.urandom(size)
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "files")
            assert await until(instance, Event.Message) == "ready"
            await instance.upload_blob(content)
            blob = await until(instance, Event.Blob)
            assert blob == content
            assert blob.hash == hash_of(content)
            await instance.terminate()


async def test_the_upload_of_a_blob_that_no_program_takes_ends(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "echo")
            # With an answer, or when all of it is sent where none comes.
            await instance.upload_blob(os.urandom(MIB))
            await instance.send("still there")
            assert await until(instance, Event.Message) == "echo: still there"
            await instance.terminate()


# ------------------------------------------------------------------------------------ how they end


async def test_a_returned_text_is_the_result(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            assert await (await world.launch(client, "return_value")).result() == "forty-two"


async def test_a_returned_value_is_what_it_is_where_it_comes_as_json(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            for text, value in (('{"a":[1,null]}', {"a": [1, None]}), ("false", False), ("17", 17)):
                result = await (await world.launch(client, "give_back", "--value", text)).result()
                assert result == (value if world.can.returns_json else text)


async def test_an_error_of_a_programs_is_told_with_its_text(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "error")
            with pytest.raises(InstanceFailed, match="it went wrong") as failed:
                await instance.result()
            assert failed.value.event is Event.Exception


async def test_a_sleeping_program_is_terminated(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "sleep")
            assert str(await until(instance, Event.Stdout)).strip() == "sleeping"
            await instance.terminate()
            assert (await until(instance, Event.Aborted)) is not None


# ---------------------------------------------------------------------------- detached and attached


async def test_instances_are_listed(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "echo")
            listed = {info.id: info for info in await client.list_instances()}
            assert instance.id in listed
            await instance.terminate()


async def test_a_detached_instance_outlives_the_connection_and_is_attached_again(
    world: World,
) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            launched = await world.launch(client, "echo", detached=True)
            with pytest.raises(LocalProtocolError, match="attach"):
                await launched.send("hello")
        async with world.client() as client:
            instance = await client.attach_instance(launched.id)
            await instance.send("hello")
            assert await until(instance, Event.Message) == "echo: hello"
            await instance.send("stop")
            assert await instance.result() == "stopped"


async def test_many_detached_launches_at_once_are_told_apart(world: World) -> None:
    found: list[str] = []
    with anyio.fail_after(SOON):
        async with world.client() as client:
            await world.upload(client, "echo")

            async def launch() -> None:
                found.append((await world.launch(client, "echo", detached=True)).id)

            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(launch)
            assert len(set(found)) == 8
            for instance_id in found:
                await client.terminate_instance(instance_id)


async def test_output_before_attaching_is_kept_or_it_is_not(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            launched = await world.launch(client, "sleep", detached=True)
            instance = await client.attach_instance(launched.id)
            if world.can.keeps_output:
                assert await until(instance, Event.Stdout) == "sleeping\n"
            await client.terminate_instance(launched.id)
            assert (await until(instance, Event.Aborted)) is not None


async def test_an_attached_instance_lives_on_or_ends_with_its_connection_in_words(
    world: World,
) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            instance = await world.launch(client, "echo")
        async with world.client() as client:
            if world.can.keeps_instances:
                again = await client.attach_instance(instance.id)
                await again.send("stop")
                assert await again.result() == "stopped"
            else:
                with pytest.raises(AttachFailed, match=ABILITIES["kept-instances"].lack):
                    await client.attach_instance(instance.id)


async def test_an_unknown_instance_cannot_be_attached(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            with pytest.raises(AttachFailed, match="not found"):
                await client.attach_instance(NOBODY)


async def test_the_end_of_a_detached_instance_is_kept_for_one_or_for_none(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            launched = await world.launch(client, "sleep", detached=True)
            await client.terminate_instance(launched.id)
            if world.can.keeps_finished:
                instance = await client.attach_instance(launched.id)
                assert await until(instance, Event.Aborted) is not None
            else:
                while launched.id in {info.id for info in await client.list_instances()}:
                    pass
            with pytest.raises(AttachFailed, match="not found"):
                await client.attach_instance(launched.id)


async def test_terminating_what_is_not_there_is_a_success_or_is_refused(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            if world.can.terminates_unknown:
                await client.terminate_instance(NOBODY)
            else:
                with pytest.raises(TerminateFailed, match="not found"):
                    await client.terminate_instance(NOBODY)


async def test_a_program_that_is_a_server_is_declined(world: World) -> None:
    with anyio.fail_after(SOON):
        async with world.client() as client:
            program_hash = await world.upload(client, "hello")
            wanted = LaunchFailed if world.can.server_launch else LocalProtocolError
            with pytest.raises(wanted, match="server"):
                await client.launch_server_instance(program_hash, 9000)
