"""Who may log in to the proxy: accounts with stored passwords, decoys for users that do not exist, the fast cache."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from shardproxy.protocol.mysql.passwords import (
    DEFAULT_ROUNDS,
    SALT_LENGTH,
    NativeHash,
    Sha2Hash,
    parse_stored_hash,
    verify_sha2_fast,
)


@dataclass(frozen=True, slots=True)
class Account:
    """A user and every form in which the password is known; at least one.

    `plaintext` b"" is an account without a password, which must be said so: no form at all raises ValueError.
    `decoy` marks an account that does not exist; it goes through the same steps and never gets in.
    """

    user: str
    plaintext: bytes | None = field(default=None, repr=False)
    native: NativeHash | None = field(default=None, repr=False)
    sha2: Sha2Hash | None = field(default=None, repr=False)
    decoy: bool = False

    def __post_init__(self) -> None:
        if self.plaintext is None and self.native is None and self.sha2 is None:
            raise ValueError(f"account {self.user!r} has no stored password")

    @classmethod
    def from_hash(cls, user: str, text: str) -> Account:
        """An account from a hash as MySQL shows it. Raises ValueError when it is none (`parse_stored_hash`)."""
        stored = parse_stored_hash(text)
        if isinstance(stored, NativeHash):
            return cls(user, native=stored)
        return cls(user, sha2=stored)

    @property
    def passwordless(self) -> bool:
        """Whether the account has the empty password."""
        return self.plaintext == b""

    @property
    def native_stage2(self) -> bytes | None:
        """SHA1(SHA1(pw)) where the stored forms give it: then mysql_native_password can be checked."""
        if self.plaintext is not None:
            return NativeHash.of(self.plaintext).stage2
        return None if self.native is None else self.native.stage2

    def matches(self, password: bytes) -> bool:
        """Whether this is the password, by the strongest stored form. Slow for sha2 (`Sha2Hash.matches`)."""
        if self.plaintext is not None:
            # Compared as digests: compare_digest of unequal lengths would tell the length.
            matches = hmac.compare_digest(sha256(password).digest(), sha256(self.plaintext).digest())
        elif self.sha2 is not None:
            matches = self.sha2.matches(password)
        else:
            matches = self.native is not None and self.native.matches(password)
        return matches and not self.decoy

    def identity(self) -> bytes:
        """A digest that changes whenever a stored form changes."""
        digest = sha256(b"plaintext" if self.plaintext is None else b"plaintext=" + self.plaintext)
        digest.update(b"\0" if self.native is None else b"\1" + self.native.stage2)
        digest.update(b"\0" if self.sha2 is None else b"\1" + self.sha2.text.encode("latin-1"))
        return digest.digest()


def decoy_account(user: str, accounts: Sequence[Account], key: bytes) -> Account:
    """The stand-in for a user that does not exist, so that its login looks and takes time like a real one's.

    It has the stored forms of one of `accounts`, always the same one for the same name and secret `key`: otherwise
    the plugin that the proxy asks for, or that it changes between tries, would tell who exists.
    """
    seed = hmac.digest(key, user.encode("utf-8", "surrogatepass"), "sha512")
    like = accounts[int.from_bytes(seed[:8], "big") % len(accounts)] if accounts else None
    secret = seed[8:40]
    native = NativeHash(secret[:20])
    if like is None or like.passwordless:
        sha2 = Sha2Hash(DEFAULT_ROUNDS, seed[40:].hex().encode("ascii")[:SALT_LENGTH], b"." * 43)
        return Account(user, sha2=sha2, decoy=True)
    return Account(
        user,
        plaintext=None if like.plaintext is None else secret,
        native=None if like.native is None else native,
        sha2=None if like.sha2 is None else replace(like.sha2, digest=b"." * len(like.sha2.digest)),
        decoy=True,
    )


class FastAuthCache:
    """What lets a known user skip the full exchange of caching_sha2_password: SHA256(SHA256(pw)) by user.

    One for all connections of a worker. An entry holds for the stored password that it was filled under, and no
    longer. Bounded by the number of accounts: only accepted users come in.
    """

    __slots__ = ("_verifiers",)

    def __init__(self) -> None:
        self._verifiers: dict[str, tuple[bytes, bytes]] = {}

    def __len__(self) -> int:
        return len(self._verifiers)

    def accepts(self, account: Account, token: bytes, nonce: bytes) -> bool:
        """Whether the token proves the password by which the account's last full exchange succeeded."""
        entry = self._verifiers.get(account.user)
        if entry is None or entry[0] != account.identity():
            return False
        return verify_sha2_fast(entry[1], token, nonce)

    def fill(self, account: Account, password: bytes) -> None:
        """Remember a password that was just verified."""
        self._verifiers[account.user] = (account.identity(), sha256(sha256(password).digest()).digest())

    def forget(self, user: str) -> None:
        """Drop one user's entry, for an account that is gone."""
        self._verifiers.pop(user, None)
