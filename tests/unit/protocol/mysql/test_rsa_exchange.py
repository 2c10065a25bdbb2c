from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.handshake import AuthMoreData
from shardproxy.protocol.mysql.rsa_exchange import RsaKey, encrypt_password

from . import captured

NONCE = bytes(range(1, 21))


@pytest.fixture(scope="module")
def key() -> RsaKey:
    return RsaKey()


@pytest.mark.parametrize("password", [b"", b"pw", "Zoë—пароль".encode(), b"x" * 213])
def test_round_trip(key: RsaKey, password: bytes) -> None:
    cipher = encrypt_password(password, NONCE, key.public_pem())
    assert len(cipher) == key.cipher_length == 256
    assert key.decrypt_password(cipher, NONCE) == password
    assert cipher != encrypt_password(password, NONCE, key.public_pem())


def test_another_nonce_or_broken_bytes_decrypt_to_nothing(key: RsaKey) -> None:
    cipher = encrypt_password(b"pw", NONCE, key.public_pem())
    assert key.decrypt_password(cipher, NONCE[::-1]) != b"pw"
    assert key.decrypt_password(cipher[:-1], NONCE) is None
    assert key.decrypt_password(cipher[:-1] + bytes([cipher[-1] ^ 1]), NONCE) is None
    assert key.decrypt_password(b"", NONCE) is None
    assert key.decrypt_password(bytes(1000), NONCE) is None


def test_key_can_be_handed_on(key: RsaKey) -> None:
    other = RsaKey(key.private_pem())
    assert other.public_pem() == key.public_pem()
    assert other.decrypt_password(encrypt_password(b"pw", NONCE, key.public_pem()), NONCE) == b"pw"


def test_a_key_must_be_rsa() -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="not an RSA"):
        RsaKey(pem)
    with pytest.raises(ValueError):
        RsaKey(b"nonsense")


def test_the_key_of_a_real_server_is_read() -> None:
    pem = AuthMoreData.parse(captured.MYSQL_FULL_EXCHANGE[4][1]).data
    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----")
    assert len(encrypt_password(b"pw", NONCE, pem)) == len(captured.MYSQL_FULL_EXCHANGE[5][1]) == 256


def _pem(public: rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_server_keys_that_do_not_do(key: RsaKey) -> None:
    with pytest.raises(RemoteProtocolError, match="not a public key"):
        encrypt_password(b"pw", NONCE, b"")
    with pytest.raises(RemoteProtocolError, match="not a public key"):
        encrypt_password(b"pw", NONCE, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(RemoteProtocolError, match="not RSA"):
        encrypt_password(b"pw", NONCE, _pem(ed25519.Ed25519PrivateKey.generate().public_key()))
    with pytest.raises(RemoteProtocolError, match="too small"):
        encrypt_password(b"x" * 214, NONCE, key.public_pem())
