"""Passwords: the tokens that prove one without sending it, and the forms in which servers store one.

    mysql_native_password   stored  SHA1(SHA1(pw)), written '*' and 40 hexadecimal digits
                            token   SHA1(pw) xor SHA1(nonce + SHA1(SHA1(pw)))
    caching_sha2_password   stored  '$A$' + 3 hexadecimal digits (rounds / 1000) + '$' + salt of 20 + hash of 43, or
                                    '$B$' and likewise a hash of 88 (MySQL 9.7, storage format PBKDF2_SHA512)
                            cached  SHA256(SHA256(pw))
                            token   SHA256(pw) xor SHA256(SHA256(SHA256(pw)) + nonce)

Source: MySQL 9.7, checked against hashes that it made. `$A$` is Drepper's SHA-256 crypt with a 20-byte salt, `$B$`
PBKDF2-HMAC-SHA512 in base64. An empty password has an empty token. Secrets are compared in constant time.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import pbkdf2_hmac, sha1, sha256
from hmac import compare_digest

from shardproxy.errors import LocalProtocolError

MAX_PASSWORD = 256  # bytes; MySQL's limit for this plugin. The hash below costs the square of the length
SALT_LENGTH = 20
DEFAULT_ROUNDS = 10_000  # what MySQL 9.7 writes; 8.0 wrote 5,000


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


# --- tokens ---


def native_token(password: bytes, nonce: bytes) -> bytes:
    """What a client sends under mysql_native_password: 20 bytes, or none for an empty password."""
    if not password:
        return b""
    stage1 = sha1(password, usedforsecurity=False).digest()
    stage2 = sha1(stage1, usedforsecurity=False).digest()
    return _xor(stage1, sha1(nonce + stage2, usedforsecurity=False).digest())


def verify_native(stored_sha1sha1: bytes, token: bytes, nonce: bytes) -> bool:
    """Whether a 20-byte token proves the password whose SHA1(SHA1(pw)) is stored."""
    if len(token) != 20:
        return False
    stage1 = _xor(token, sha1(nonce + stored_sha1sha1, usedforsecurity=False).digest())
    return compare_digest(sha1(stage1, usedforsecurity=False).digest(), stored_sha1sha1)


def sha2_token(password: bytes, nonce: bytes) -> bytes:
    """What a client sends first under caching_sha2_password: 32 bytes, or none for an empty password."""
    if not password:
        return b""
    stage1 = sha256(password).digest()
    return _xor(stage1, sha256(sha256(stage1).digest() + nonce).digest())


def verify_sha2_fast(stored_sha256sha256: bytes, token: bytes, nonce: bytes) -> bool:
    """Whether a 32-byte token proves the password whose SHA256(SHA256(pw)) is cached."""
    if len(token) != 32:
        return False
    stage1 = _xor(token, sha256(stored_sha256sha256 + nonce).digest())
    return compare_digest(sha256(stage1).digest(), stored_sha256sha256)


def xor_password(password: bytes, nonce: bytes) -> bytes:
    """The password and a NUL byte, xor the repeated nonce: what is encrypted by RSA."""
    return xor_nonce(password + b"\0", nonce)


def xor_nonce(data: bytes, nonce: bytes) -> bytes:
    """`data` xor the nonce, repeated as often as needed."""
    return _xor(data, (nonce * (len(data) // len(nonce) + 1))[: len(data)])


# --- stored forms ---


@dataclass(frozen=True, slots=True, repr=False)
class NativeHash:
    """SHA1(SHA1(pw)), 20 bytes. Whoever has it can log in by mysql_native_password: it is a secret."""

    stage2: bytes

    @classmethod
    def of(cls, password: bytes) -> NativeHash:
        """The hash of a password."""
        stage1 = sha1(password, usedforsecurity=False).digest()
        return cls(sha1(stage1, usedforsecurity=False).digest())

    def matches(self, password: bytes) -> bool:
        """Whether this is the hash of `password`."""
        return compare_digest(NativeHash.of(password).stage2, self.stage2)

    @property
    def text(self) -> str:
        """As in mysql.user: '*' and 40 hexadecimal digits."""
        return "*" + self.stage2.hex().upper()


@dataclass(frozen=True, slots=True, repr=False)
class Sha2Hash:
    """A caching_sha2_password hash: rounds (a multiple of 1000), salt (20 bytes), digest (characters).

    `scheme` is "A" (SHA-256 crypt, a digest of 43) or "B" (PBKDF2 with SHA-512, 88).
    """

    rounds: int
    salt: bytes
    digest: bytes
    scheme: str = "A"

    def matches(self, password: bytes) -> bool:
        """Whether this is the hash of `password`. Takes some 0.6 microseconds a round: 3 to 6 ms as MySQL sets it."""
        if len(password) > MAX_PASSWORD:
            return False
        if self.scheme == "B":
            digest = b64encode(pbkdf2_hmac("sha512", password, self.salt, self.rounds))
        else:
            digest = sha256_crypt(password, self.salt, self.rounds)
        return compare_digest(digest, self.digest)

    @property
    def text(self) -> str:
        """As in mysql.user; the salt may hold control characters, so write `hex_text` into files."""
        return f"${self.scheme}${self.rounds // 1000:03X}${(self.salt + self.digest).decode('latin-1')}"

    @property
    def hex_text(self) -> str:
        """`text` in hexadecimal, as `SELECT HEX(authentication_string)` prints it."""
        return self.text.encode("latin-1").hex().upper()


_NATIVE = re.compile(r"\*([0-9A-Fa-f]{40})", re.ASCII)
_SHA2 = re.compile(  # servers make salts of 7 bits (generate_user_salt)
    rb"\$(?:(A)|B)\$([0-9A-Fa-f]{3})\$([^\0$\x80-\xff]{20})((?(1)[./0-9A-Za-z]{43}|[+/0-9A-Za-z]{86}==))", re.DOTALL
)
_HEX = re.compile(r"(?:0[xX])?((?:[0-9A-Fa-f]{2})+)", re.ASCII)


def parse_stored_hash(text: str) -> NativeHash | Sha2Hash:
    """A hash as MySQL shows it: '*' and 40 hexadecimal digits, '$A$005$…', or the latter in hexadecimal (0x optional).

    Raises ValueError for anything else; the message does not repeat the text.
    """
    if native := _NATIVE.fullmatch(text):
        return NativeHash(bytes.fromhex(native[1]))
    raw = bytes.fromhex(hexadecimal[1]) if (hexadecimal := _HEX.fullmatch(text)) else text.encode("utf-8", "replace")
    sha2 = _SHA2.fullmatch(raw)
    if sha2 is None:
        raise ValueError("not a password hash: expected *HEX (mysql_native_password) or $A$… (caching_sha2_password)")
    rounds = int(sha2[2], 16) * 1000
    if rounds == 0:
        raise ValueError("not a password hash: it says zero rounds")
    return Sha2Hash(rounds, sha2[3], sha2[4], "A" if sha2[1] else "B")


def make_native_hash(password: bytes) -> str:
    """The '*HEX' form that MySQL and MariaDB store for mysql_native_password."""
    return NativeHash.of(password).text


def make_sha2_hash(password: bytes, salt: bytes, rounds: int = DEFAULT_ROUNDS) -> str:
    """The '$A$…' form that MySQL stores for caching_sha2_password.

    `salt` is 20 random bytes from 1 … 127 without '$'; `rounds` a multiple of 1000 up to 4,095,000. Raises
    LocalProtocolError when these, or the length of the password, are out of range.
    """
    if len(salt) != SALT_LENGTH or not salt.isascii() or b"\0" in salt or b"$" in salt:
        raise LocalProtocolError(f"a salt is {SALT_LENGTH} ASCII characters other than NUL and $")
    if rounds % 1000 or not 1000 <= rounds <= 4_095_000:
        raise LocalProtocolError(f"{rounds} rounds: expected a multiple of 1000 up to 4095000")
    if len(password) > MAX_PASSWORD:
        raise LocalProtocolError(f"a password has at most {MAX_PASSWORD} bytes")
    return Sha2Hash(rounds, salt, sha256_crypt(password, salt, rounds)).text


# --- SHA-256 crypt ---

_ALPHABET = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Which digest bytes make each group of four characters, most significant first (Drepper's specification, step 22).
_GROUPS = (
    (0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14),
    (15, 25, 5), (6, 16, 26), (27, 7, 17), (18, 28, 8), (9, 19, 29),
)  # fmt: skip


def sha256_crypt(password: bytes, salt: bytes, rounds: int) -> bytes:
    """Drepper's SHA-256 crypt, the 43 characters after the salt; `salt` as long as the caller likes, `rounds` even.

    Source: https://www.akkadia.org/drepper/SHA-crypt.txt; the step numbers below are its.
    """
    inner = sha256(password + salt + password).digest()  # 4-8
    first = password + salt + (inner * (len(password) // 32 + 1))[: len(password)]  # 1-3, 9, 10
    bits = len(password)
    while bits:  # 11
        first += inner if bits & 1 else password
        bits >>= 1
    digest = sha256(first).digest()  # 12
    p = (sha256(password * len(password)).digest() * (len(password) // 32 + 1))[: len(password)]  # 13-16
    s = (sha256(salt * (16 + digest[0])).digest() * (len(salt) // 32 + 1))[: len(salt)]  # 17-20
    digest = _rounds(digest, p, s, rounds)
    out = bytearray()
    for a, b, c in _GROUPS:  # 22
        value = digest[a] << 16 | digest[b] << 8 | digest[c]
        out += bytes(_ALPHABET[value >> shift & 63] for shift in (0, 6, 12, 18))
    value = digest[31] << 8 | digest[30]
    out += bytes(_ALPHABET[value >> shift & 63] for shift in (0, 6, 12))
    return bytes(out)


def _rounds(digest: bytes, p: bytes, s: bytes, rounds: int) -> bytes:
    """Step 21. What surrounds the digest repeats every 2 * 3 * 7 rounds: 21 pairs of an even and an odd round."""
    pairs = []
    for even in range(0, 42, 2):
        odd = even + 1
        after = (s if even % 3 else b"") + (p if even % 7 else b"") + p
        before = p + (s if odd % 3 else b"") + (p if odd % 7 else b"")
        pairs.append((after, before))
    whole, rest = divmod(rounds // 2, len(pairs))
    hashed = sha256
    for count in (len(pairs),) * whole + (rest,):
        for after, before in pairs[:count]:
            digest = hashed(before + hashed(digest + after).digest()).digest()
    return digest
