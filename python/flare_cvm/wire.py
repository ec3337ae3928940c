"""Token entries: NVFLARE's own (`_cc_token`, `_cc_namespace`) and the sender's proof of its name.

Everything here came from a peer. It is read into checked values before anything is done with it.
"""

from __future__ import annotations

from typing import Any

from nvflare.app_opt.confidential_computing.cc_manager import (
    CC_NAMESPACE,
    CC_TOKEN,
    CC_TOKEN_VALIDATED,
)

from .agent_client import MAX_TOKEN, Peer
from .authorizer import PeerToken
from .identity import IdentityError, Proof, SiteIdentity

CC_CHALLENGE = "_cc_challenge"
CC_CERTIFICATES = "_cc_certificates"
CC_SIGNATURE = "_cc_signature"
_MAX_ENTRIES = 16
_MAX_NAMESPACE = 100

Entry = dict[str, Any]


def signed(entries: list[Entry], challenge: str | None, identity: SiteIdentity) -> list[Entry]:
    """The entries with this site's proof that it sends these tokens in answer to this challenge."""
    result = []
    for entry in entries:
        proof = identity.prove(challenge, entry[CC_NAMESPACE], entry[CC_TOKEN])
        result.append({**entry, CC_CERTIFICATES: proof.certificates, CC_SIGNATURE: proof.signature})
    return result


def authenticated(
    entries: object,
    name: str,
    role: str,
    challenge: str | None,
    identity: SiteIdentity,
    patience_s: float,
) -> tuple[Peer, list[Entry]]:
    """A peer and its entries, each token bound to the identity that its signature proves.

    Raises `IdentityError`.
    """
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MAX_ENTRIES:
        raise IdentityError(f"{name!r} sent no list of 1 to {_MAX_ENTRIES} tokens")
    result: list[Entry] = []
    peers: set[Peer] = set()
    for entry in entries:
        token, namespace, proof = _parse(entry, name)
        peer = identity.authenticate(name, role, challenge, namespace, token, proof)
        bound = PeerToken(token, peer, challenge, patience_s) if isinstance(token, str) else token
        result.append({CC_TOKEN: bound, CC_NAMESPACE: namespace, CC_TOKEN_VALIDATED: False})
        peers.add(peer)
    if len({entry[CC_NAMESPACE] for entry in result}) != len(result):
        raise IdentityError(f"{name!r} sent two tokens of one namespace")
    if len(peers) != 1:
        raise IdentityError(f"{name!r} sent tokens under two certificates")
    return peers.pop(), result


def _parse(entry: object, name: str) -> tuple[str | bytes, str, Proof]:
    if not isinstance(entry, dict):
        raise IdentityError(f"{name!r} sent a token that is not an object")
    token, namespace = entry.get(CC_TOKEN), entry.get(CC_NAMESPACE)
    # NVFLARE's SNP authorizer makes bytes, all others text.
    if not isinstance(token, (str, bytes)) or not 0 < len(token) <= MAX_TOKEN:
        raise IdentityError(f"{name!r} sent no token of 1 to {MAX_TOKEN} characters")
    if (
        not isinstance(namespace, str)
        or not 0 < len(namespace) <= _MAX_NAMESPACE
        or not namespace.isprintable()
    ):
        raise IdentityError(f"{name!r} sent a token without namespace")
    certificates, signature = entry.get(CC_CERTIFICATES), entry.get(CC_SIGNATURE)
    if not isinstance(certificates, bytes) or not isinstance(signature, bytes):
        raise IdentityError(f"{name!r} sent a token that its site did not sign")
    return token, namespace, Proof(certificates, signature)
