"""Drives the published ``pie-client``, in its own environment: a task comes as JSON on stdin.

What happened goes out as JSON on stdout. It imports nothing of ours.
"""

import asyncio
import json
import sys
from pathlib import Path

from pie_client import ParsedPrivateKey, PieClient

SECONDS = 20

ENDS = {"Completed", "Aborted", "Exception", "ServerError", "OutOfResources"}


async def authenticate(client, task):
    """Say who one is, and prove it."""
    key = task.get("key")
    await client.authenticate(task["user"], ParsedPrivateKey.from_file(key) if key else None)
    await client.ping()
    return "authenticated"


async def enter_by_token(client, task):
    """Enter by the token of the servers."""
    await client.internal_authenticate(task["token"])
    await client.ping()
    return "authenticated"


async def by_hash(client, task):
    """Upload a program and run it, with one message."""
    await client.authenticate(task["user"])
    program = Path(task["program"]).read_bytes()  # noqa: ASYNC240 - nobody waits meanwhile
    before = await client.program_exists(task["hash"])
    await client.upload_program(program)
    after = await client.program_exists(task["hash"])
    instance = await client.launch_instance(task["hash"], task["arguments"])
    if "message" in task:
        await instance.send(task["message"])
    return {"before": before, "after": after, "events": await read_to_end(instance)}


async def by_name(client, task):
    """Run a program of the registry."""
    await client.authenticate(task["user"])
    instance = await client.launch_instance_from_registry(task["name"], task["arguments"])
    if "message" in task:
        await instance.send(task["message"])
    if "blob" in task:
        await instance.upload_blob(bytes(task["blob"]))
    return await read_to_end(instance)


async def detached(client, task):
    """Launch and leave; come back on another connection, talk, terminate."""
    await client.authenticate(task["user"])
    left = await client.launch_instance_from_registry(task["name"], ["left"], detached=True)
    told = {"id": left.instance_id, "left": await listed(client)}
    async with PieClient(task["url"]) as other:
        await other.authenticate(task["user"])
        instance = await other.attach_instance(left.instance_id)
        told["attached"] = await listed(other)
        told["refusal"] = await words_of(client.attach_instance(left.instance_id))
        await instance.send("are you there?")
        event, data = await instance.recv()
        told["answer"] = [event.name, data]
        await instance.terminate()
        told["end"] = await read_to_end(instance)
        told["over"] = await listed(other)
    return told


async def left_behind(client, task):
    """Lose the connection of an attached instance, find it again, and terminate it by its id."""
    async with PieClient(task["url"]) as first:
        await first.authenticate(task["user"])
        lost = await first.launch_instance_from_registry(task["name"], ["lost"])
    await client.authenticate(task["user"])
    # The server may not have found out yet that the first connection is gone.
    while True:
        try:
            instance = await client.attach_instance(lost.instance_id)
            break
        except Exception as error:
            if "already attached" not in str(error):
                raise
    await client.terminate_instance(lost.instance_id)
    return await read_to_end(instance)


async def questions(client, task):
    """Ask whatever can be asked."""
    await client.authenticate(task["user"])
    await client.ping()
    return {
        "models": await client.query("model_status", ""),
        "numbers": await client.query("backend_stats", ""),
        "unknown program": await words_of(client.launch_instance("no such hash")),
        "unknown name": await words_of(client.launch_instance_from_registry("nobody")),
        "unknown instance": await words_of(client.attach_instance("no id")),
        "no program": await words_of(client.upload_program(b"no program at all")),
        "alive": await words_of(client.ping()),
    }


async def listed(client):
    """The instances of the user."""
    return [[info.id, list(info.arguments), info.status] for info in await client.list_instances()]


async def read_to_end(instance):
    """All events of an instance that are still to come."""
    events = []
    while not events or events[-1][0] not in ENDS:
        event, data = await instance.recv()
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
    async with PieClient(task["url"]) as client:
        try:
            return {"result": await globals()[task["do"]](client, task)}
        except Exception as error:
            return {"refusal": str(error)}


if __name__ == "__main__":
    json.dump(asyncio.run(asyncio.wait_for(main(json.load(sys.stdin)), SECONDS)), sys.stdout)
