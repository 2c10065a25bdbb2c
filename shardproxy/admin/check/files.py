"""Rules about what the file names on this machine: certificates, password files and variables."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable, Iterator
from functools import partial

from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.config import Config
from shardproxy.errors import ConfigError


def file_findings(config: Config) -> Iterator[Finding]:
    """All findings about files and passwords. Reads them; shows none of them."""
    yield from _certificates(config)
    yield from _passwords(config)
    yield from _open_files(config)


def _certificates(config: Config) -> Iterator[Finding]:
    mysql = config.listen.mysql
    if mysql.tls_cert:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(config.resolve(mysql.tls_cert), config.resolve(mysql.tls_key))
        except (OSError, ssl.SSLError) as problem:
            yield error(
                "listen.mysql.tls_cert",
                f"certificate and key cannot be used: {problem}",
                "name a PEM certificate chain and its matching, unencrypted PEM key",
            )
    if config.backend.tls_ca:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(config.resolve(config.backend.tls_ca))
        except (OSError, ssl.SSLError) as problem:
            yield error("backend.tls_ca", f"it cannot be used: {problem}", "name a PEM file with the CA's certificate")
    elif config.backend.tls == "required":
        yield warning(
            "backend.tls_ca",
            'tls = "required" without tls_ca: connections are encrypted, but any server is taken for ours',
            "name the CA of the servers' certificates",
        )


def _passwords(config: Config) -> Iterator[Finding]:
    sources: list[tuple[str, Callable[[], object]]] = [("backend", config.backend_password)]
    sources += [(f"users.{name}", partial(config.user_secret, name)) for name in config.users]
    for where, read in sources:
        try:
            read()
        except ConfigError as problem:
            # The proxy may run in another environment than this command, but not with a missing password.
            yield warning(where, str(problem), "provide it in the environment in which the proxy runs")


def _open_files(config: Config) -> Iterator[Finding]:
    named = [("backend.password_file", config.backend.password_file)]
    named += [(f"users.{name}.password_file", user.password_file) for name, user in config.users.items()]
    named += [("listen.mysql.tls_key", config.listen.mysql.tls_key or None)]
    for where, file in named:
        if file is None:
            continue
        try:
            mode = config.resolve(file).stat().st_mode
        except OSError:
            continue  # told above, or when the backend's password is read
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            yield warning(where, f"{file} can be read or written by everybody", f"chmod o-rw {file}")
