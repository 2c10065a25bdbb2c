"""`shardctl check`: what is wrong with the servers that a configuration names, each finding with its fix.

`ask` reads facts from the servers; the rules (`servers`, `replication`, `tables`, `keys`) are pure functions from the
topology and the facts to findings; `data` is the only part that reads rows, and only when asked to.
"""

from shardproxy.admin.check.findings import Finding, Severity
from shardproxy.admin.check.run import check_all

__all__ = ["Finding", "Severity", "check_all"]
