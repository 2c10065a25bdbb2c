"""Data folders ready to run: made once per server version, then copied for each server.

Initialising a server takes seconds (MySQL: nine), copying one a fraction of a second. A template has the two accounts
and no GTID history, so every copy starts from the same empty past.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pymysql

from shardproxy.errors import LocalError
from shardproxy.local.flavors import Flavor
from shardproxy.local.folders import locked
from shardproxy.local.ports import free_port
from shardproxy.local.process import Process
from shardproxy.local.server import ADMIN_PASSWORD, ADMIN_USER, PROXY_PASSWORD, PROXY_USER

_FORMAT = 2  # part of the template's name: raise it when what goes into a template changes


def new_datadir(flavor: Flavor, datadir: Path) -> None:
    """Copy the flavour's template to the missing folder `datadir`. Raises LocalError."""
    template = ensure_template(flavor)
    datadir.parent.mkdir(parents=True, exist_ok=True)
    _run(["cp", "-a", "--reflink=auto", "--sparse=auto", str(template), str(datadir)], "cp", "is the disk full?")


def ensure_template(flavor: Flavor) -> Path:
    """The template folder of the flavour's version, made now if it is missing. Raises LocalError."""
    folder = flavor.home / "templates"
    template = folder / f"{flavor.name}-{flavor.version}-{_FORMAT}"
    with locked(f"template-{flavor.name}"):
        if not template.is_dir():
            partial = folder / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            _make(flavor, partial)
            partial.rename(template)
    return template


def _make(flavor: Flavor, datadir: Path) -> None:
    command = flavor.install_command(datadir)
    _run(command, f"{flavor.name} initialisation", "is the disk full? do other servers of this version start?")
    port = free_port()
    log = datadir.with_suffix(".log")
    process = Process(f"{flavor.name} template server", flavor.bare_command(datadir, port), log=log, port=port)
    process.start()
    try:
        _create_accounts(flavor, str(datadir / "server.sock"))
    finally:
        process.stop()
    (datadir / "auto.cnf").unlink(missing_ok=True)  # MySQL's server UUID: each copy makes its own


def _create_accounts(flavor: Flavor, socket: str) -> None:
    # A new server has root@localhost without password and no account by address; the socket is the way in.
    with pymysql.connect(unix_socket=socket, user="root") as connection, connection.cursor() as cursor:
        # The installed accounts name hosts, which take precedence over ours ('%') and have no password.
        cursor.execute("SELECT user, host FROM mysql.user WHERE user IN ('', 'root')")
        installed = cursor.fetchall()
        for user, password in ((ADMIN_USER, ADMIN_PASSWORD), (PROXY_USER, PROXY_PASSWORD)):
            cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (user, password))
            cursor.execute("GRANT ALL PRIVILEGES ON *.* TO %s@'%%' WITH GRANT OPTION", (user,))
        # A write that the proxy sends to a replica must fail there, not part the servers.
        for statement in flavor.respect_read_only():
            cursor.execute(statement, (PROXY_USER,))
        for user, host in installed:
            cursor.execute("DROP USER %s@%s", (user, host))


def _run(command: list[str], name: str, hint: str) -> None:
    pipe = subprocess.PIPE
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, errors="replace", check=False
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-12:])
        raise LocalError(f"{name} ended with exit status {done.returncode}; {hint}\n{tail}")
