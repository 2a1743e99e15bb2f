"""A program of a user's, in Python: built by componentize-py, run by a Pie server."""

import sys

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import message, runtime
from wit_world.imports.common import Blob


class Run(exports.Run):
    """What a Pie server runs."""

    def run(self) -> None:
        """Greet, answer, hand a blob back, and return: or fail, if the message says so."""
        sys.stdout.write(f"arguments: {' '.join(runtime.get_arguments())}\n")
        sys.stderr.write("ready\n")
        text = self.next_message()
        if text == "fail":
            raise Err("told to fail: ünlucky")
        if text == "raise":
            raise LookupError("nobody catches this")
        message.send(f"echo: {text}")
        blob = self.next_blob()
        data = blob.read(0, blob.size())
        message.send_blob(Blob(bytes(reversed(data))))
        runtime.set_return(f"{len(data)} bytes")

    def next_message(self) -> str:
        """Wait for a message."""
        with message.receive() as result, result.pollable() as pollable:
            pollable.block()
            text = result.get()
        assert text is not None
        return text

    def next_blob(self) -> Blob:
        """Wait for a blob."""
        with message.receive_blob() as result, result.pollable() as pollable:
            pollable.block()
            blob = result.get()
        assert blob is not None
        return blob
