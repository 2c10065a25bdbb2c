"""How much memory a worker has is what 10,000 idle clients cost, most of all."""

import subprocess
import sys

from shardproxy.app.own_process import unmap_code_of_the_start


def test_a_worker_does_without_the_libraries_of_the_supervisor() -> None:
    # pydantic alone is 8 MiB, cryptography 9.
    code = "import sys, shardproxy.app.worker; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sqlglot" in found  # as a worker plans
    assert not {"pydantic", "pydantic_core", "cryptography", "prometheus_client", "rich", "argparse"} & set(found)


def test_code_works_on_after_its_pages_are_gone() -> None:
    code = """
import sys
import sqlglot
from shardproxy.app.own_process import unmap_code_of_the_start

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

before = resident()
unmap_code_of_the_start()
after = resident()
print(sqlglot.parse_one("SELECT a FROM t WHERE b = 1", dialect="mysql").sql("mysql"))
print(before - after)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    statement, less = done.stdout.splitlines()
    assert statement == "SELECT a FROM t WHERE b = 1"
    assert int(less) > 1024, "pages of 4 KiB: not 4 MiB less"


def test_it_can_be_called_again() -> None:
    unmap_code_of_the_start()
    unmap_code_of_the_start()
