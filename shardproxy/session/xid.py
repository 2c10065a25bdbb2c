"""Names of transactions over several shards, as XA ids: what recovery must know stands in the name.

The global part names the coordinator (one run of one worker), the shard whose commit decides (D), D's connection and
when the transaction began; the branch qualifier names the branch's own connection. So whoever finds a branch can ask D
and can KILL either connection. Both parts are ASCII, at most 64 bytes, and never used twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

FORMAT = 0x5350  # the format number of our xids
_PREFIX = "sp1"
_PLAIN = 20  # letters of a shard name that fit at any rate


@dataclass(frozen=True, slots=True)
class TransactionId:
    """coordinator: 12 hex digits; born: seconds since 1970 by the coordinator's clock; number: counts up; thread: D's
    connection id; shard: D's shard as `shard_word` writes it."""

    coordinator: str
    born: int
    number: int
    thread: int
    shard: str

    @property
    def text(self) -> str:
        """The global part of the XA id, and the key of the decision row."""
        return f"{_PREFIX}.{self.coordinator}.{self.born:x}.{self.number:x}.{self.thread:x}.{self.shard}"

    def branch(self, thread: int) -> str:
        """The XA id of a branch, as XA statements take it. thread: the branch's connection id."""
        return f"'{self.text}','{thread:x}',{FORMAT}"


@dataclass(frozen=True, slots=True)
class BranchId:
    """A branch as XA RECOVER shows it."""

    transaction: TransactionId
    thread: int

    @property
    def sql(self) -> str:
        return self.transaction.branch(self.thread)


def shard_word(name: str) -> str:
    """A shard's name in a transaction id: itself, or a checksum when it is long or has other letters."""
    if len(name) <= _PLAIN and name.isascii() and name.replace("-", "").replace("_", "").isalnum():
        return name
    return f"~{crc32(name.encode()):08x}"


def shard_named(word: str, names: Iterable[str]) -> str | None:
    """The shard that a word of `shard_word` means; None when there is none, or more than one."""
    found = [name for name in names if shard_word(name) == word]
    return found[0] if len(found) == 1 else None


def parse_transaction(text: str) -> TransactionId | None:
    """The global part of an XA id. None when it is not ours."""
    parts = text.split(".")
    if len(parts) != 6 or parts[0] != _PREFIX or not parts[1] or not parts[5]:
        return None
    try:
        born, number, thread = (int(part, 16) for part in parts[2:5])
    except ValueError:
        return None
    found = TransactionId(parts[1], born, number, thread, parts[5])
    return found if found.text == text else None


def parse_branch(form: int, length: int, data: str) -> BranchId | None:
    """A row of XA RECOVER: format, length of the global part, both parts. None when the branch is not ours."""
    if form != FORMAT:
        return None
    transaction = parse_transaction(data[:length])
    try:
        thread = int(data[length:], 16)
    except ValueError:
        return None
    return None if transaction is None else BranchId(transaction, thread)
