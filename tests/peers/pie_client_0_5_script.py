"""Drives the published ``pie-client`` 0.5, in its own environment: a task comes as JSON on stdin.

What happened goes out as JSON on stdout. It imports nothing of ours.
"""

import asyncio
import json
import sys
from pathlib import Path

from pie_client import Event, PieClient, inferlet

SECONDS = 20


async def ping(client, task):
    """Say who one is, and ask for many answers at once."""
    await client.authenticate(task["user"])
    return await asyncio.gather(*[client.ping() for _ in range(task["times"])])


async def install(client, task):
    """Install a program, from its files or as bytes, and launch it by both of its names."""
    name, version, program = task["name"], task["version"], Path(task["program"])
    manifest = Path(task["manifest"])
    told = {"before": await client.check_program(f"{name}@{version}")}
    for overwrite in (False, True):
        if task["from"] == "files":
            await client.install_program(program, manifest, overwrite)
        else:
            content, toml = program.read_bytes(), manifest.read_text()  # noqa: ASYNC240
            await client.install_program_bytes(content, toml, overwrite)
    told["after"] = await client.check_program(f"{name}@{version}")
    told["other"] = await client.check_program(f"{name}@9.9.9")
    told["launched"] = [
        await read_to_end(await client.launch_process(launched))
        for launched in (name, f"{name}@{version}")
    ]
    return told


async def install_many(client, task):
    """Install one program under many names at once; which are known then."""
    content = Path(task["program"]).read_bytes()  # noqa: ASYNC240 - nobody waits meanwhile
    names = task["names"]
    await asyncio.gather(
        *[
            client.install_program_bytes(
                content, f'[package]\nname = "{name}"\nversion = "1.0.0"\n'
            )
            for name in names
        ]
    )
    return [await client.check_program(f"{name}@1.0.0") for name in names]


async def refusals(client, task):
    """Ask for what the server cannot do, and go on."""
    content = Path(task["program"]).read_bytes()  # noqa: ASYNC240 - nobody waits meanwhile

    @inferlet
    async def agent(prompt):
        return prompt

    named = '[package]\nname = "broken"\nversion = "0.1.0"\n'
    return {
        "unknown name": await words_of(client.launch_process("nobody")),
        "unknown version": await words_of(client.launch_process("echo@9.9.9")),
        "no component": await words_of(client.install_program_bytes(b"no program", named)),
        "broken": await client.check_program("broken@0.1.0"),
        "no manifest": await words_of(client.install_program_bytes(content, "[package]\nname = 1")),
        "source": await words_of(client.run(agent, prompt="Hi")),
        "no version": await words_of(client.check_program("echo@one")),
        "unknown process": await words_of(client.attach_process(task["nobody"])),
        "no process": await words_of(client.attach_process("nobody")),
        "unknown end": await words_of(client.terminate_process(task["nobody"])),
        "no end": await words_of(client.terminate_process("nobody")),
        "alive": await words_of(client.ping()),
    }


async def launch(client, task):
    """Run a program to its end: all that it said."""
    return await read_to_end(await client.launch_process(task["name"], task.get("input")))


async def result(client, task):
    """Run a program to its end: what came of it."""
    return await (await client.run(task["name"], **task["input"])).result()


async def talk(client, task):
    """Say all at once, by both ways to say something, and hear the answers."""
    process = await client.launch_process("echo")
    for number, text in enumerate(task["say"]):
        if number % 2:
            await client.signal_process(process.process_id, text)
        else:
            await process.signal(text)
    await process.signal("stop")
    return await read_to_end(process)


async def many(client, task):
    """Talk with many processes at once; what each of them said."""
    processes = await asyncio.gather(*[client.launch_process("echo") for _ in task["say"]])
    for process, text in zip(processes, task["say"], strict=True):
        await process.signal(text)
        await process.signal("stop")
    return [await read_to_end(process) for process in processes]


async def files(client, task):
    """Send files, one after the other, and save what comes back."""
    process = await client.launch_process(task["name"])
    told = []
    for number, file in enumerate(task["files"]):
        await process.transfer_file(Path(file).read_bytes())  # noqa: ASYNC240
        told.append(await saved(process, Path(task["folder"]), f"back{number}.bin"))
    await process.transfer_file(b"")  # With which it ends.
    return {"files": told, "end": (await read_to_end(process))[-1]}


async def files_at_once(client, task):
    """Send files to several processes, all at once, and save what comes back of each."""
    processes = [await client.launch_process("files") for _ in task["files"]]
    contents = [Path(file).read_bytes() for file in task["files"]]  # noqa: ASYNC240
    await asyncio.gather(
        *[
            process.transfer_file(content)
            for process, content in zip(processes, contents, strict=True)
        ]
    )
    return [
        await saved(process, Path(task["folder"]), f"back{number}.bin")
        for number, process in enumerate(processes)
    ]


async def terminate(client, task):
    """Terminate a process in one of the ways to, once it runs; and once more."""
    process = await client.launch_process(task["name"])
    event, line = await process.recv()
    async with other_client(task, identity="default/eve") as eve:
        theft = await words_of(eve.terminate_process(process.process_id))
    running = await listed(client)
    if task["by"] == "process":
        await process.terminate()
    elif task["by"] == "client":
        await client.terminate_process(process.process_id)
    else:
        async with other_client(task) as other:
            await other.terminate_process(process.process_id)
    return {
        "id": process.process_id,
        "first": [event.name, line],
        "theft": theft,
        "running": running,
        "end": await read_to_end(process),
        "left": await listed(client),
        "again": await words_of(process.terminate()),
    }


async def list_processes(client, task):
    """List what runs: for oneself, on another connection, and for somebody else."""
    processes = [await client.launch_process("echo", given) for given in task["inputs"]]
    async with other_client(task) as other, other_client(task, identity="default/eve") as eve:
        told = {
            "ids": [process.process_id for process in processes],
            "rows": await client.list_processes(),
            "other": await listed(other),
            "eve": await listed(eve),
        }
        await processes[0].signal("stop")
        await read_to_end(processes[0])
        told["one left"] = await listed(other)
    return told


async def query(client, task):
    """Ask about something, and for its state."""
    return [await client.query(subject, "") for subject in task["subjects"]]


async def detached(client, task):
    """Launch and leave; come back on another connection, talk, and have it end."""
    async with other_client(task) as first:
        left = await first.launch_process("echo", {"n": 1}, capture_outputs=False)
    [found] = await listed(client)
    process = await client.attach_process(found)
    told = {"told": left.process_id, "found": found, "attached": process.process_id}
    async with other_client(task) as other:
        told["refusal"] = await words_of(other.attach_process(found))
    await process.signal("are you there?")
    event, answer = await process.recv()
    told["answer"] = [event.name, answer]
    await process.signal("stop")
    told["end"] = await read_to_end(process)
    told["left"] = await listed(client)
    told["over"] = await words_of(client.attach_process(found))
    return told


async def left_behind(client, task):
    """Lose the connections of a process that was launched, and of one that was attached."""
    async with other_client(task) as other:
        launched = await other.launch_process("echo")
        await other.launch_process("echo", capture_outputs=False)
        [found] = set(await listed(client)) - {launched.process_id}
        await other.attach_process(found)
    # The server may not have found out yet that the other connection is gone.
    while await listed(client):
        pass
    return await words_of(client.attach_process(found))


def other_client(task, **options):
    """Another connection to the same server; of the same user, unless it is said otherwise."""
    return PieClient(task["url"], **({"identity": task["identity"]} | options))


async def listed(client):
    """The identifiers of what runs, in no order."""
    return sorted(row["id"] for row in await client.list_processes())


async def saved(process, folder, name):
    """Save the next file of a process under the name that it has, or else that is given."""
    event, content = await process.recv()
    while event is not Event.File:
        assert event is Event.Message, (event, content)
        event, content = await process.recv()
    return {"name": content.name, "path": str(content.save(folder, name))}


async def read_to_end(process):
    """All events of a process that are still to come."""
    events = []
    while not events or events[-1][0] not in {"Return", "Error"}:
        event, data = await process.recv()
        events.append([event.name, data])
    return events


async def words_of(call):
    """What an exception said; ``None`` without one."""
    try:
        await call
    except Exception as error:
        return str(error)


async def main(task):
    """Do what the task says, on a new connection."""
    task.setdefault("identity", "default/bench")
    # What is given by default is not given by us.
    default = task["identity"] == "default/bench"
    client = PieClient(task["url"]) if default else PieClient(task["url"], task["identity"])
    try:
        async with client:
            return {"result": await globals()[task["do"]](client, task)}
    except Exception as error:
        return {"refusal": str(error)}


if __name__ == "__main__":
    json.dump(asyncio.run(asyncio.wait_for(main(json.load(sys.stdin)), SECONDS)), sys.stdout)
