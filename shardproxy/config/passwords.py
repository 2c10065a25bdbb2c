"""Where a password comes from, and the two forms of a stored hash. Nothing here prints or keeps a secret.

A password has exactly one source: a literal in the file, an environment variable, a file of its own, or (users of the
proxy only) a hash. The literal stays in a `SecretStr`; the others are read at the moment somebody asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pydantic import SecretStr

from shardproxy.errors import ConfigError

SOURCES = ("password_hash", "password", "password_env", "password_file")

_NATIVE = re.compile(r"\*[0-9A-Fa-f]{40}")
_HEX = re.compile(r"(?:0[xX])?((?:[0-9A-Fa-f]{2})+)")
# Three hex digits are the rounds in thousands; then 20 bytes of salt, any but NUL and "$", and 43 characters of digest.
_SHA2 = re.compile(rb"\$A\$(?!000)[0-9A-F]{3}\$[\x01-\x23\x25-\x7f]{20}[./0-9A-Za-z]{43}")
_EXPECTED = (
    "'*' and 40 hex digits (mysql_native_password), or '$A$005$…' as in mysql.user.authentication_string, "
    "raw or in hex (caching_sha2_password); `shardctl hash-password` makes both"
)


class HashKind(Enum):
    """Which authentication plugin a stored hash belongs to."""

    NATIVE = "mysql_native_password"
    SHA2 = "caching_sha2_password"


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A stored hash.

    value: 20 bytes SHA1(SHA1(password)) for NATIVE; the 70 bytes of the whole authentication string for SHA2.
    Hidden in repr: a native hash is all that an attacker with a captured handshake needs.
    """

    kind: HashKind
    value: bytes

    @property
    def text(self) -> str:
        """The hash as MySQL shows it: '*' and 40 hex digits, or the authentication string itself."""
        return "*" + self.value.hex().upper() if self.kind is HashKind.NATIVE else self.value.decode("ascii")

    def __repr__(self) -> str:
        return f"PasswordHash({self.kind.value}, hidden)"


def parse_password_hash(text: str) -> PasswordHash:
    """The hash that `text` writes. Raises ValueError (without the text) when it has neither form."""
    if _NATIVE.fullmatch(text):
        return PasswordHash(HashKind.NATIVE, bytes.fromhex(text[1:]))
    match = _HEX.fullmatch(text)
    raw = bytes.fromhex(match[1]) if match else text.encode()
    if _SHA2.fullmatch(raw):
        return PasswordHash(HashKind.SHA2, raw)
    raise ValueError(_EXPECTED)


def read_password(
    where: str,
    literal: SecretStr | None,
    variable: str | None,
    file: str | None,
    environ: Mapping[str, str],
    base: Path,
) -> str:
    """The password from whichever of the three sources is given.

    where: key path of the table, for messages; base: folder that a relative `file` is relative to.
    Raises ConfigError when the variable is not set, or the file cannot be read, is not UTF-8 or is empty.
    """
    if literal is not None:
        return literal.get_secret_value()
    if variable is not None:
        if variable not in environ:
            raise ConfigError(
                f"{where}.password_env: found the name {variable!r}, but no such environment variable is set; "
                f"expected it to hold the password (export it before starting)"
            )
        return environ[variable]
    if file is None:
        raise ConfigError(f"{where}: no password source")
    return _read_password_file(f"{where}.password_file", base / file)


def _read_password_file(where: str, path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{where}: found {str(path)!r}, which cannot be read ({error.strerror or error}); "
            "expected a file with the password on its first line"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: {str(path)!r} is not UTF-8; expected a text file with the password") from error
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigError(f"{where}: {str(path)!r} is empty; expected the password on its first line")
    if "\n" in password or "\0" in password:
        raise ConfigError(f"{where}: {str(path)!r} has more than one line; expected only the password")
    return password
