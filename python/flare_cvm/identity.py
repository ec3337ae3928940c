"""Who a site is: the name in its certificate from NVFLARE's PKI, proved with that certificate's
key.

NVFLARE authenticates a client once, at its registration. Messages between clients pass through the
server, so the connection says little about who wrote a reply. Before 2.9 a cell's name is not even
compared with the certificate of its TLS connection. So every token that `CVMManager` sends
carries its site's certificate and a signature over the verifier's challenge and the token, made and
checked with NVFLARE's own identity classes. That holds end to end, in all versions, and for the
tokens of NVFLARE's own authorizers as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from nvflare.apis.fl_constant import FLContextKey, SecureTrainConst
from nvflare.apis.server_engine_spec import ServerEngineSpec
from nvflare.fuel.data_event.utils import get_scope_property
from nvflare.private.fed.utils.identity_utils import IdentityAsserter, IdentityVerifier

from .agent_client import Peer
from .compat import verify_common_name

SERVER, CLIENT = "server", "client"
_MAX_CERTIFICATES = 64 << 10
_MAX_SIGNATURE = 2 << 10


class IdentityError(Exception):
    """A peer did not prove the name that was expected, or this site has no identity."""


class NotConfigured(IdentityError):
    """NVFLARE has not told its components their configuration yet."""


@dataclass(frozen=True)
class Proof:
    """What a site sends beside a token."""

    certificates: bytes
    signature: bytes


def role_of(engine: Any) -> str:
    return SERVER if isinstance(engine, ServerEngineSpec) else CLIENT


def certificate_path(engine: Any) -> str:
    """The certificate that this site uses in NVFLARE."""
    return _credentials(engine)[SecureTrainConst.SSL_CERT]


class SiteIdentity:
    """This site's own certificate and key, and the project's CA."""

    def __init__(self, engine: Any) -> None:
        credentials = _credentials(engine)
        self._asserter = IdentityAsserter(
            private_key_file=credentials[SecureTrainConst.PRIVATE_KEY],
            cert_file=credentials[SecureTrainConst.SSL_CERT],
        )
        self._verifier = IdentityVerifier(
            root_cert_file=credentials[SecureTrainConst.SSL_ROOT_CERT]
        )
        self.peer = Peer(self._asserter.cn, role_of(engine), fingerprint(self._asserter.cert))

    def prove(self, challenge: str | None, namespace: str, token: str | bytes) -> Proof:
        nonce = _nonce(challenge, namespace, token)
        return Proof(self._asserter.cert_data, self._asserter.sign_common_name(nonce))

    def authenticate(
        self,
        name: str,
        role: str,
        challenge: str | None,
        namespace: str,
        token: str | bytes,
        proof: Proof,
    ) -> Peer:
        """The peer `name`, if `proof` shows that it sent this token in answer to this challenge."""
        return self._verify(name, role, _nonce(challenge, namespace, token), proof)

    def authenticate_registration(self, name: str, nonce: str, proof: Proof) -> Peer:
        """A client at its registration, by the proof over the server's nonce for NVFLARE."""
        return self._verify(name, CLIENT, nonce, proof)

    def _verify(self, name: str, role: str, nonce: str, proof: Proof) -> Peer:
        try:
            if len(proof.certificates) > _MAX_CERTIFICATES or len(proof.signature) > _MAX_SIGNATURE:
                raise ValueError("certificate or signature is too long")
            chain = x509.load_pem_x509_certificates(proof.certificates)
            verify_common_name(self._verifier, name, role, nonce, chain, proof.signature)
        except Exception as error:  # NVFLARE's own classes and the parser's: any means "not proved"
            raise IdentityError(f"{name!r} is not proved: {type(error).__name__} {error}") from None
        return Peer(name, role, fingerprint(chain[0]))


def fingerprint(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def expected_server(engine: Any, client_name: str) -> str:
    """The name that the server's certificate must have, from where NVFLARE's client takes it."""
    servers = engine.new_context().get_prop(FLContextKey.SERVER_CONFIG)
    config = servers[0] if isinstance(servers, list) and servers else {}
    name = config.get("identity") or get_scope_property(client_name, FLContextKey.SERVER_HOST_NAME)
    if not isinstance(name, str) or not name:
        raise IdentityError(
            "NVFLARE's configuration does not say which server this client belongs to"
        )
    return name


def _nonce(challenge: str | None, namespace: str, token: str | bytes) -> str:
    """What is signed.

    The prefix keeps it apart from the nonces of NVFLARE's registration, which are UUIDs: a peer
    that picks the challenge cannot use the answer to register under this site's name.
    """
    data = token if isinstance(token, bytes) else token.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(namespace.encode("utf-8", "surrogatepass") + b"\0" + data).hexdigest()
    return f"/flare-cvm/v1/cc-token/{challenge or '-'}/{digest}"


def _credentials(engine: Any) -> dict[str, str]:
    """Read when needed: NVFLARE's server has no configuration before SYSTEM_BOOTSTRAP."""
    if engine is None:
        raise IdentityError("NVFLARE has not started this component")
    fl_ctx = engine.new_context()
    secure = fl_ctx.get_prop(FLContextKey.SECURE_MODE)
    if secure is None:  # the server sets it last of all
        raise NotConfigured("NVFLARE does not say yet whether it is in secure mode")
    if not secure:
        raise IdentityError(
            "NVFLARE is not in secure mode: without TLS certificates no site has an identity"
        )
    if role_of(engine) == SERVER:
        servers = fl_ctx.get_prop(FLContextKey.SERVER_CONFIG)
        config = servers[0] if isinstance(servers, list) and servers else None
    else:
        config = fl_ctx.get_prop(FLContextKey.CLIENT_CONFIG)
    keys = (SecureTrainConst.SSL_CERT, SecureTrainConst.PRIVATE_KEY, SecureTrainConst.SSL_ROOT_CERT)
    if not isinstance(config, dict) or not all(isinstance(config.get(key), str) for key in keys):
        raise NotConfigured(f"NVFLARE's configuration lacks one of {', '.join(keys)}")
    return {key: config[key] for key in keys}
