from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import LocalProtocolError
from shardproxy.protocol.mysql import passwords
from shardproxy.protocol.mysql.handshake import Greeting, HandshakeResponse
from shardproxy.protocol.mysql.passwords import (
    NativeHash,
    Sha2Hash,
    make_native_hash,
    make_sha2_hash,
    native_token,
    parse_stored_hash,
    sha2_token,
    sha256_crypt,
    verify_native,
    verify_sha2_fast,
    xor_nonce,
    xor_password,
)

from . import captured
from .strategies import nonces

NONCE = bytes(range(1, 21))
SALT = b"0123456789abcdefghij"
some_passwords = st.binary(min_size=1, max_size=80)


@given(some_passwords, nonces)
def test_native_token_proves_the_password_and_nothing_else(password: bytes, nonce: bytes) -> None:
    stage2 = NativeHash.of(password).stage2
    token = native_token(password, nonce)
    assert verify_native(stage2, token, nonce)
    assert not verify_native(NativeHash.of(password + b"!").stage2, token, nonce)
    assert not verify_native(stage2, token, nonce[::-1] + b"!")
    assert not verify_native(stage2, bytes([token[0] ^ 1]) + token[1:], nonce)


@given(some_passwords, nonces)
def test_sha2_token_proves_the_password_and_nothing_else(password: bytes, nonce: bytes) -> None:
    verifier = sha256(sha256(password).digest()).digest()
    token = sha2_token(password, nonce)
    assert verify_sha2_fast(verifier, token, nonce)
    assert not verify_sha2_fast(verifier[::-1], token, nonce)
    assert not verify_sha2_fast(verifier, token, nonce[::-1] + b"!")
    assert not verify_sha2_fast(verifier, bytes([token[0] ^ 1]) + token[1:], nonce)


def test_tokens_that_servers_accepted() -> None:
    for exchange, token in (
        (captured.MYSQL_FAST_EXCHANGE, sha2_token),
        (captured.MYSQL_FULL_EXCHANGE, sha2_token),
        (captured.MARIADB_EXCHANGE, native_token),
    ):
        greeting = Greeting.parse(exchange[0][1])
        response = HandshakeResponse.parse(exchange[1][1])
        assert response.auth_response == token(captured.PASSWORD, greeting.nonce)


def test_empty_password_has_no_token() -> None:
    assert native_token(b"", NONCE) == b""
    assert sha2_token(b"", NONCE) == b""


@pytest.mark.parametrize("token", [b"", b"\0", b"x" * 19, b"x" * 21, b"x" * 31, b"x" * 33])
def test_tokens_of_a_wrong_length(token: bytes) -> None:
    assert not verify_native(bytes(20), token, NONCE)
    assert not verify_sha2_fast(bytes(32), token, NONCE)


@given(st.binary(max_size=300), nonces)
def test_xor_is_its_own_inverse(password: bytes, nonce: bytes) -> None:
    assert xor_nonce(xor_password(password, nonce), nonce) == password + b"\0"


def test_xor_repeats_the_nonce() -> None:
    assert xor_password(bytes(44), NONCE) == NONCE + NONCE + NONCE[:5]


@pytest.mark.parametrize(("password", "text"), captured.NATIVE_HASHES.items())
def test_native_hashes_that_mariadb_made(password: str, text: str) -> None:
    secret = password.encode()
    assert make_native_hash(secret) == text
    stored = parse_stored_hash(text)
    assert isinstance(stored, NativeHash)
    assert stored.text == text
    assert stored.matches(secret)
    assert not stored.matches(secret + b"x")


@pytest.mark.parametrize(("password", "text"), [*captured.SHA2_HASHES.items(), *captured.PBKDF2_HASHES.items()])
def test_sha2_hashes_that_mysql_made(password: str, text: str) -> None:
    secret = password.encode()
    stored = parse_stored_hash(text)
    assert isinstance(stored, Sha2Hash)
    assert stored.rounds in (5_000, 10_000)
    assert stored.hex_text == text
    assert stored.matches(secret)
    assert not stored.matches(secret + b"x")
    assert parse_stored_hash(stored.text) == stored == parse_stored_hash("0x" + text.lower())
    if stored.scheme == "A":
        assert make_sha2_hash(secret, stored.salt, stored.rounds) == stored.text


@pytest.mark.parametrize(
    ("password", "salt", "rounds", "digest"),
    [
        (b"Hello world!", b"saltstring", 5000, b"5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        (b"Hello world!", b"saltstringsaltst", 10000, b"3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
        (
            b"we have a short salt string but not a short password",
            b"short",
            77776,
            b"6QfkZvxIYbfh9YcsX5YMO4hvo8aNOe2UQF6x.RMYqJ5",
        ),
        (b"", b"ab", 1000, b"Yd3BaIOVbovC2OGzlWXH53yhcyaWZscnPjMwuHC/2t3"),
        (b"x" * 64, b"0123456789abcdef", 1000, b"XEK1QPtjlT78eDFCEhwfolVQFGRl8ajCI1B6O0uXbH7"),
    ],
)
def test_sha256_crypt_agrees_with_the_c_library(password: bytes, salt: bytes, rounds: int, digest: bytes) -> None:
    assert sha256_crypt(password, salt, rounds) == digest


@settings(max_examples=15, deadline=None)
@given(st.binary(max_size=passwords.MAX_PASSWORD))
def test_made_hashes_match(password: bytes) -> None:
    stored = parse_stored_hash(make_sha2_hash(password, SALT, 1000))
    assert stored.matches(password)
    assert not stored.matches(password[:-1] if password else b"x")


def test_overlong_password_is_not_hashed() -> None:
    stored = parse_stored_hash(make_sha2_hash(b"x" * 256, SALT, 1000))
    assert stored.matches(b"x" * 256)
    assert not stored.matches(b"x" * 257)
    overlong = b"x" * 257
    assert not Sha2Hash(1000, SALT, sha256_crypt(overlong, SALT, 1000)).matches(overlong)
    with pytest.raises(LocalProtocolError, match="256"):
        make_sha2_hash(overlong, SALT)


@pytest.mark.parametrize("salt", [b"", SALT[:-1], SALT + b"x", b"$" + SALT[1:], b"\0" + SALT[1:], b"\xff" + SALT[1:]])
def test_salts_that_mysql_cannot_store(salt: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="salt"):
        make_sha2_hash(b"pw", salt)


@pytest.mark.parametrize("rounds", [0, 999, 1500, 4_096_000, -1000])
def test_rounds_that_mysql_cannot_store(rounds: int) -> None:
    with pytest.raises(LocalProtocolError, match="rounds"):
        make_sha2_hash(b"pw", SALT, rounds)


GOOD = make_sha2_hash(b"pw", SALT, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "secret",
        "*D821809F681A40A6E379B50D0463EFAE20BDD12",
        "*D821809F681A40A6E379B50D0463EFAE20BDD12G",
        "D821809F681A40A6E379B50D0463EFAE20BDD122",
        GOOD[:-1],
        GOOD + ".",
        GOOD.replace("$001$", "$000$"),
        GOOD.replace("$001$", "$1$"),
        GOOD.replace("$A$", "$B$"),
        GOOD.replace("$A$", "$C$"),
        GOOD + "\n",
        GOOD.encode().hex()[:-2],
        GOOD.encode().hex().replace(SALT.hex(), (b"\xaa" + SALT[1:]).hex()),  # MySQL's salts have 7 bits
        "\ud800" + GOOD,
    ],
)
def test_texts_that_are_no_hash(text: str) -> None:
    with pytest.raises(ValueError, match="not a password hash") as raised:
        parse_stored_hash(text)
    assert not text or len(text) < 8 or text not in str(raised.value)


def test_hashes_do_not_show_in_repr() -> None:
    native = NativeHash.of(b"pw")
    sha2 = parse_stored_hash(GOOD)
    assert native.stage2.hex() not in repr(native).lower() and repr(native.stage2) not in repr(native)
    assert isinstance(sha2, Sha2Hash) and sha2.digest.decode() not in repr(sha2)
