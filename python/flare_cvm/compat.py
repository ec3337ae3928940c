"""What differs between the NVFLARE versions that this package works with: 2.7.1 to 2.9.

`cc_manager.py` and `cc_authorizer.py` are the same bytes in all of them. 2.7.0 has another CC
manager, which passes tokens on with heartbeats and asks nobody; it is refused by name rather than
half supported.
"""

from __future__ import annotations

import inspect
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from nvflare.app_opt.confidential_computing import cc_manager
from nvflare.private.fed.utils.identity_utils import IdentityVerifier

if not hasattr(cc_manager, "CC_TOPIC_REQUEST_TOKEN"):
    raise ImportError(
        "flare_cvm needs NVFLARE 2.7.1 or later: this one's CC manager asks no site for its token"
    )

# 2.9 checks intermediate certificates and the certificate's extended key usage too; 2.7 and 2.8
# know neither.
_CHECKS_CHAIN = (
    "intermediate_certs" in inspect.signature(IdentityVerifier.verify_common_name).parameters
)
_USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def verify_common_name(
    verifier: Any,
    common_name: str,
    role: str,
    nonce: str,
    chain: list[x509.Certificate],
    signature: bytes,
) -> None:
    """Raises unless the project's CA issued `chain[0]` to `common_name` and its key made
    `signature` over `nonce`.
    """
    more: dict[str, Any] = {}
    if _CHECKS_CHAIN:
        more = {"intermediate_certs": chain[1:], "expected_eku": _USAGE[role]}
    verifier.verify_common_name(
        asserted_cn=common_name, nonce=nonce, asserter_cert=chain[0], signature=signature, **more
    )
