"""A project's certificates, as `nvflare provision` makes them: one RSA root, one certificate a
participant.
"""

from __future__ import annotations

import functools
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID


class Participant:
    def __init__(
        self, folder: Path, name: str, cert: x509.Certificate, key: rsa.RSAPrivateKey, root: Path
    ) -> None:
        self.name, self.cert = name, cert
        self.cert_file, self.key_file, self.root_file = (
            folder / f"{name}.crt",
            folder / f"{name}.key",
            root,
        )
        self.cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )

    def config(self) -> dict[str, str]:
        """The part of fed_server.json or fed_client.json that names the credentials."""
        return {
            "ssl_cert": str(self.cert_file),
            "ssl_private_key": str(self.key_file),
            "ssl_root_cert": str(self.root_file),
        }


class Pki:
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pki-")
        self._path = Path(self._folder.name)
        self._key = _key()
        self._root = _certificate("project", self._key, "project", self._key)
        self._root_file = self._path / "rootCA.pem"
        self._root_file.write_bytes(self._root.public_bytes(serialization.Encoding.PEM))
        self._count = 0

    def issue(self, name: str) -> Participant:
        """A new certificate: two for one name differ."""
        self._count += 1
        folder = self._path / str(self._count)
        folder.mkdir()
        key = _key()
        return Participant(
            folder, name, _certificate(name, key, "project", self._key), key, self._root_file
        )


@functools.cache
def project() -> Pki:
    """One for all tests: RSA keys take their time."""
    return Pki()


@functools.cache
def participant(name: str) -> Participant:
    return project().issue(name)


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _certificate(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey
) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    is_ca = key is issuer_key
    # signatures; a CA certificates
    usage = x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
