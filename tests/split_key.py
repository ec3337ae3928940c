#!/usr/bin/env python3
"""The split key once more, from its formulas alone (crates/cvm-ceremony/src/split_key/mod.rs).

Reproduces tests/vectors/split-key.json with the `cryptography` package, from the build's side and
from the key holders'; exits with 1 at a mismatch. Usage: split_key.py [VECTORS]
"""

import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

path = (
    sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "vectors/split-key.json"
)
raw = bytes.fromhex


def private(text):
    return X25519PrivateKey.from_private_bytes(raw(text))


def public(text):
    return X25519PublicKey.from_public_bytes(raw(text))


def hkdf(salt, ikm, info):
    return HKDF(SHA256(), 32, salt, b"flare-cvm/v1/" + info).derive(ikm)


failures = checks = 0


def check(what, found, expected):
    global failures, checks
    checks += 1
    if found != raw(expected):
        failures += 1
        print(f"MISMATCH {what}: computed {found.hex()}, vector {expected}")


for number, case in enumerate(json.loads(pathlib.Path(path).read_text())["cases"]):
    e, image_id, halves = private(case["ephemeral_secret"]), raw(case["image_id"]), []
    check(f"{number} E", e.public_key().public_bytes_raw(), case["ephemeral_public"])
    for i, party in enumerate(case["parties"]):
        s = private(party["secret"])
        check(f"{number} S{i}", s.public_key().public_bytes_raw(), party["public"])
        for side, point in (
            ("build", e.exchange(public(party["public"]))),
            ("boot", s.exchange(public(case["ephemeral_public"]))),
        ):
            halves_i = hkdf(raw(party["base_key"]), point, b"half" + image_id)
            check(f"{number} Q{i} {side}", halves_i, party["half"])
            check(
                f"{number} R{i} {side}",
                hkdf(raw(party["base_key"]), point, b"running-half" + image_id),
                party["running_half"],
            )
        halves.append(halves_i)
    for purpose, key in case["keys"].items():
        ikm = b"".join(halves[i] for i in key["parties"])
        # What a site's work leaves behind opens with all parties or not at all; only `system` may
        # need fewer.
        if "system" not in purpose and key["parties"] != list(range(len(halves))):
            failures += 1
            print(f"MISMATCH {number}: {purpose} opens with {key['parties']} alone")
        check(
            f"{number} K {purpose}",
            hkdf(raw(case["transcript"]), ikm, purpose.encode() + image_id),
            key["key"],
        )
print(f"split key: {checks} values checked, {failures} differ")
sys.exit(1 if failures or checks < 78 else 0)
