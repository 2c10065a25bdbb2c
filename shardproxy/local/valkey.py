"""Valkey: in the tree of Debian unstable that MySQL 9 runs from, since Debian 12 has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shardproxy.errors import LocalError
from shardproxy.local.folders import locked
from shardproxy.local.mysql_tree import ensure_tree, in_tree
from shardproxy.local.process import find_program

# valkey-tools has the server under another name; the package valkey-server would start one. The first two spare the
# tree a whole systemd.
_PACKAGES = "systemd-standalone-sysusers systemd-standalone-tmpfiles valkey-tools"
_PROGRAM = "usr/local/bin/valkey-server"
# The packages' scripts need /proc: mounted where nobody else sees it, and gone with the shell.
_INSTALL = f"""mount -t proc proc "$0/proc" || exit
install() {{ chroot "$0" apt-get install -qq -y --no-install-recommends {_PACKAGES}; }}
install || {{ chroot "$0" apt-get update -qq && install; }}"""


def valkey_command() -> list[str]:
    """argv that runs valkey-server; its own arguments follow. Builds the tree and installs the program into it where
    they are missing. Raises LocalError, as for MySQL 9 where there are no root rights."""
    tree = ensure_tree()
    with locked("mysql9"):
        if not (tree / _PROGRAM).is_symlink():
            _install(tree)
    return in_tree(tree, "valkey-server")


def _install(tree: Path) -> None:
    if not (tree / "usr/bin/valkey-check-rdb").exists():
        print(f"installing Valkey in {tree}", file=sys.stderr)
        unshare = find_program("unshare", "apt-get install util-linux")
        done = subprocess.run(
            [unshare, "--mount", "sh", "-c", _INSTALL, str(tree)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalError(f"Valkey could not be installed in {tree}: {done.stderr.strip()[-1000:]}")
        for package in (tree / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
    # It is one program; what it does depends on the name that it is called by.
    (tree / _PROGRAM).symlink_to("/usr/bin/valkey-check-rdb")
