"""``python -m pie_anyio.server``: the embedded server from the command line."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from pie_anyio.server import serve
from pie_proto.errors import KeyFormatError
from pie_proto.families import FAMILIES
from pie_proto.key_text import encoding_of

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["main"]

_DESCRIPTION: Final = """\
Serve the Pie protocol and run its programs, without a model. For development and tests: it is no
sandbox for hostile programs. Prints its URL on one line when it is ready, and serves until SIGINT
or SIGTERM.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit code: 0, or 2 with a sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        anyio.run(_serve, options, backend=options.backend)
    except KeyboardInterrupt:
        return 0
    except (KeyFormatError, ValueError, OSError, ImportError, LookupError) as error:
        print(f"pie server: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pie_anyio.server", description=_DESCRIPTION)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="0, the default, takes a free one")
    parser.add_argument(
        "--dialect",
        choices=tuple(FAMILIES),
        default="instance",
        help="the servers to speak like: instance (0.2), process (0.5), process-0.3 (0.3 to "
        "0.4); %(default)s",
    )
    parser.add_argument(
        "--unix", metavar="PATH", help="listen on a Unix socket, in place of host and port"
    )
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        type=Path,
        help="a certificate, with those that lead to its issuer: clients then speak TLS, wss://",
    )
    parser.add_argument(
        "--private-key",
        metavar="FILE",
        type=Path,
        help="the private key of the certificate, if it is not in the same file",
    )
    known = parser.add_mutually_exclusive_group()
    known.add_argument(
        "--authorized-keys",
        metavar="USER=FILE",
        type=_user_and_file,
        action="append",
        help="a user, and a file of public keys in the form of OpenSSH; as often as you like",
    )
    known.add_argument(
        "--users",
        metavar="FILE",
        help="a TOML file of users and their keys, followed when it changes. Without this and "
        "--authorized-keys authentication is off: any user name does, and only this machine may "
        "connect",
    )
    parser.add_argument("--registry", metavar="DIR", help="a folder of programs to launch by name")
    parser.add_argument(
        "--programs",
        metavar="DIR",
        help="a folder to keep uploaded programs in; without it they are gone with the server",
    )
    parser.add_argument(
        "--internal-token-file",
        metavar="FILE",
        type=Path,
        help="a file with the token that lets its bearer in as the user 'internal'",
    )
    parser.add_argument(
        "--backend", choices=("asyncio", "trio"), default="asyncio", help="(%(default)s)"
    )
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: it is to be from 0 to 65535")


def _user_and_file(text: str) -> tuple[str, Path]:
    user, equals, path = text.partition("=")
    if user and equals and path:
        return user, Path(path)
    raise argparse.ArgumentTypeError(f"{text!r} is to be a user and a file, as in joe=keys.txt")


async def _serve(options: argparse.Namespace) -> None:
    keys: dict[str, list[str]] | None = None
    if options.authorized_keys is not None:
        keys = {}
        for user, path in options.authorized_keys:
            keys.setdefault(user, []).append(_read(path))
    token = None
    if options.internal_token_file is not None:
        token = _read(options.internal_token_file).strip()
        if not token:
            raise ValueError(f"{options.internal_token_file} holds no token: it is empty")
    ssl_context = _ssl_context(options.certificate, options.private_key)
    with ExitStack() as stack:
        if sys.platform == "win32":
            stop = anyio.sleep_forever
        else:
            # Before anybody can know that we serve: whoever ends us then, ends us cleanly.
            signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
            stop = signals.__anext__
        async with serve(
            options.host,
            options.port,
            dialect=options.dialect,
            unix_path=options.unix,
            ssl_context=ssl_context,
            authorized_keys=keys,
            users=options.users,
            internal_token=token,
            registry=options.registry,
            programs=options.programs,
        ) as server:
            print(f"pie server listening on {server.url}", flush=True)  # noqa: T201
            await stop()


def _ssl_context(certificate: Path | None, private_key: Path | None) -> SSLContext | None:
    if certificate is None:
        if private_key is not None:
            raise ValueError("--private-key is that of a certificate: give --certificate too")
        return None
    import ssl  # noqa: PLC0415 - by need

    def passphrase() -> str:
        # Without this, OpenSSL would ask on the terminal.
        raise ValueError(f"{private_key or certificate} is a key with a passphrase: take it off")

    for path in filter(None, (certificate, private_key)):
        _read(path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, private_key, passphrase)
    except ssl.SSLError as error:
        raise ValueError(
            f"{certificate} and {private_key or 'the same file'} are no certificate and private "
            f"key, in the form PEM, that belong together: {error}"
        ) from None
    return context


def _read(path: Path) -> str:
    # A file of a few lines, before anything is served: no need for a thread.
    data = path.read_bytes()
    try:
        text = TextIOWrapper(BytesIO(data), encoding_of(data)).read()  # any line end
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from None
    return text.removeprefix("\ufeff")


if __name__ == "__main__":
    sys.exit(main())
