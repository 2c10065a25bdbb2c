"""`shardctl hash-password`: what to write as `password_hash`."""

from __future__ import annotations

import getpass
import secrets
import sys
from typing import Annotated

import typer

from shardproxy.cli.terminal import Exit, JsonOption, ends_with_status, note, print_json
from shardproxy.protocol.mysql.auth import make_native_hash, make_sha2_hash

# MySQL's own salts are 7-bit without NUL and "$"; letters and digits keep the text form printable.
_SALT_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@ends_with_status
def hash_password(
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the password from the first line of stdin.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the hashes of a password for a user of the proxy.

    The password is asked for twice and never shown. The second form lets clients log in with
    caching_sha2_password, the default since MySQL 8; prefer it.

    Examples:
      shardctl hash-password
      pass show app | shardctl hash-password --stdin
    """
    password = sys.stdin.readline().rstrip("\r\n") if stdin else _ask()
    if not password:
        note("an empty password has no hash")
        raise typer.Exit(Exit.FAILED)
    native, sha2 = hashes(password)
    if as_json:
        print_json({"mysql_native_password": native, "caching_sha2_password": sha2})
        return
    print(f'password_hash = "{native}"   # mysql_native_password')
    print(f'password_hash = "{sha2}"   # caching_sha2_password')


def hashes(password: str) -> tuple[str, str]:
    """The native hash, and a caching_sha2_password string with a fresh salt."""
    salt = bytes(secrets.choice(_SALT_ALPHABET) for _ in range(20))
    raw = password.encode()
    return make_native_hash(raw), make_sha2_hash(raw, salt)


def _ask() -> str:
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        note("the two passwords differ")
        raise typer.Exit(Exit.FAILED)
    return first
