"""The RSA step of caching_sha2_password: a password goes to the server without TLS, encrypted with its public key.

    client 0x02 → server 0x01 + public key (PEM) → client RSA-OAEP-SHA1((password + NUL) xor nonce)

It hides the password from who listens, not from who stands in between with a key of his own: TLS does both.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.mysql.passwords import xor_nonce, xor_password

KEY_BITS = 2048
# MySQL fixed the padding: OAEP with SHA-1, which is sound in this place.
_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)  # noqa: S303


class RsaKey:
    """The server's key pair, made at first use (some 0.1 s: call `prepare` before clients wait for it).

    All workers of a proxy should have the same key, because clients may keep the public one: make it once, hand
    `private_pem()` on, and build the others by `RsaKey(private_pem)`.
    """

    __slots__ = ("_private", "_public_pem")

    def __init__(self, private_pem: bytes | None = None) -> None:
        """Raises ValueError when `private_pem` is no unencrypted RSA private key."""
        self._private: rsa.RSAPrivateKey | None = None
        self._public_pem = b""
        if private_pem is not None:
            key = serialization.load_pem_private_key(private_pem, password=None)
            if not isinstance(key, rsa.RSAPrivateKey):
                raise ValueError("not an RSA private key")
            self._private = key

    def prepare(self) -> rsa.RSAPrivateKey:
        """Make the key unless it is there."""
        if self._private is None:
            self._private = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        return self._private

    def private_pem(self) -> bytes:
        """The private key: a secret."""
        return self.prepare().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_pem(self) -> bytes:
        """The public key as sent to clients."""
        if not self._public_pem:
            self._public_pem = (
                self.prepare()
                .public_key()
                .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            )
        return self._public_pem

    @property
    def cipher_length(self) -> int:
        """Bytes of an encrypted password."""
        return self.prepare().key_size // 8

    def decrypt_password(self, ciphertext: bytes, nonce: bytes) -> bytes | None:
        """The password that a client encrypted under `nonce`, or None when the bytes are not one."""
        try:
            plain = xor_nonce(self.prepare().decrypt(ciphertext, _OAEP), nonce)
        except ValueError:
            return None
        return plain[:-1] if plain.endswith(b"\0") else None


def encrypt_password(password: bytes, nonce: bytes, public_pem: bytes) -> bytes:
    """What a client answers to the server's public key.

    Raises RemoteProtocolError when the server's key is none, or too small for the password.
    """
    try:
        key = serialization.load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm):
        raise RemoteProtocolError("server sent something that is not a public key") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise RemoteProtocolError("server sent a public key that is not RSA")
    try:
        return key.encrypt(xor_password(password, nonce), _OAEP)
    except ValueError:
        raise RemoteProtocolError("the server's public key is too small for the password") from None
