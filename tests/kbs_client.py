#!/usr/bin/env python3
"""A client of the KBS protocol 0.4.0, written from its description alone, sharing no code with ours.

    kbs_client.py --url https://127.0.0.1:8443 --certificate SHA256 --tee sample --resource flare-cvm/half/ID

It proves that the key holder serves whoever speaks the protocol. TPM evidence comes from tpm2-tools
(`--tee tpm --tcti swtpm:host=…,port=… --event-log FILE`). Needs the `cryptography` package. Prints one JSON
object: {"resource": hex} and status 0, or {"step", "status", "type", "detail"} and status 1.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import ssl
import struct
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

ALG, ENC = "ECDH-ES+A256KW", "A256GCM"
ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Refused(Exception):
    def __init__(self, step, status, body):
        self.found = {"step": step, "status": status, "type": None, "detail": body.decode(errors="replace")}
        try:
            error = json.loads(body)
            assert set(error) == {"type", "detail"} and error["type"].startswith(ERRORS), error
            self.found |= {"type": error["type"].removeprefix(ERRORS), "detail": error["detail"]}
        except json.JSONDecodeError:
            pass


class Server:
    def __init__(self, url, pin):
        parts = urlsplit(url)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=200, context=context)
        self.connection.connect()
        found = hashlib.sha256(self.connection.sock.getpeercert(binary_form=True)).hexdigest()
        if found != pin:
            sys.exit(f"the server's certificate is {found}, expected {pin}")
        self.cookie = None

    def ask(self, step, method, path, body=None, bearer=None):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        elif self.cookie:
            headers["Cookie"] = self.cookie
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise Refused(step, answer.status, content)
        if cookie := answer.getheader("Set-Cookie"):
            self.cookie = cookie.split(";")[0]
        return json.loads(content)


class Sample:
    extra_params = ""

    def evidence(self, _, digest):
        return {"svn": "1", "report_data": b64(digest)}


class Tpm:
    """Evidence by tpm2-tools: the EK's certificate, an AK beside it, credential activation, a quote."""

    def __init__(self, tcti, event_log, pcrs):
        self.folder = tempfile.TemporaryDirectory()
        self.env = os.environ | {"TPM2TOOLS_TCTI": tcti}
        self.event_log, self.pcrs = event_log, pcrs
        self.tool("createek", "-G", "rsa", "-c", "ek.ctx", "-u", "ek.pub")
        self.tool("nvread", "0x01c00002", "-o", "ek.der")
        self.flush()
        self.tool("createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub", "-f", "tss")
        self.flush()
        # Both public areas are TPM2B_PUBLIC: a size of two bytes, then TPMT_PUBLIC.
        ek, ak = self.read("ek.pub")[2:], self.read("ak.pub")[2:]
        self.certificate = self.read("ek.der")
        self.extra_params = json.dumps({"ek_certificate": b64(self.certificate), "ek_public": b64(ek), "ak_public": b64(ak)})

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def tool(self, name, *arguments):
        done = subprocess.run([f"tpm2_{name}", *arguments], cwd=self.folder.name, env=self.env, capture_output=True)
        if done.returncode:
            sys.exit(f"tpm2_{name}: {done.stderr.decode()}")

    def flush(self):
        self.tool("flushcontext", "-t")

    def evidence(self, extra_params, digest):
        challenge = {name: base64.b64decode(text) for name, text in json.loads(extra_params).items()}
        blob, secret = challenge["credential_blob"], challenge["encrypted_secret"]
        with open(self.path("credential"), "wb") as file:
            # The tools' own file: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
            file.write(struct.pack(">IIH", 0xBADCC0DE, 1, len(blob)) + blob + struct.pack(">H", len(secret)) + secret)
        self.tool("startauthsession", "--policy-session", "-S", "session.ctx")
        self.tool("policysecret", "-S", "session.ctx", "-c", "e")
        self.tool("activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "activated", "-P", "session:session.ctx")
        self.tool("flushcontext", "session.ctx")
        self.flush()
        nonce = digest[:32].hex()
        self.tool("quote", "-c", "ak.ctx", "-l", f"sha256:{self.pcrs}", "-q", nonce, "-g", "sha256", "-m", "message", "-s", "signature")
        self.flush()
        self.tool("pcrread", "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "-o", "pcrs")
        self.tool("readpublic", "-c", "ak.ctx", "-f", "der", "-o", "ak.der")
        self.flush()
        values = self.read("pcrs")
        with open(self.event_log, "rb") as file:
            log = file.read()
        return {
            "ak_public": b64(self.read("ak.der")),
            "tpm_quote": {
                "signature": b64(self.read("signature")),
                "message": b64(self.read("message")),
                "pcrs": [values[i : i + 32].hex() for i in range(0, len(values), 32)],
            },
            "event_log": b64(log),
            "ek_certificate": b64(self.certificate),
            "activated_credential": b64(self.read("activated")),
        }


def canonical(value):
    """RFC 8785 for strings and objects with ASCII names: all that is hashed here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decrypt(key, jwe):
    """RFC 7518 4.6 (ECDH-ES+A256KW) and 5.3 (A256GCM), flattened JSON."""
    header = json.loads(unb64url(jwe["protected"]))
    assert (header["alg"], header["enc"], header["epk"]["crv"]) == (ALG, ENC, "P-256"), header
    x, y = (int.from_bytes(unb64url(header["epk"][name])) for name in "xy")
    shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
    info = struct.pack(">I", len(ALG)) + ALG.encode() + struct.pack(">III", 0, 0, 256)
    wrapping_key = hashlib.sha256(struct.pack(">I", 1) + shared + info).digest()
    content_key = aes_key_unwrap(wrapping_key, unb64url(jwe["encrypted_key"]))
    sealed = unb64url(jwe["ciphertext"]) + unb64url(jwe["tag"])
    return AESGCM(content_key).decrypt(unb64url(jwe["iv"]), sealed, jwe["protected"].encode())


def exchange(options):
    server = Server(options.url, options.certificate)
    attester = Sample() if options.tee == "sample" else Tpm(options.tcti, options.event_log, options.pcrs)
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    public = {"kty": "EC", "crv": "P-256", "alg": ALG, "x": b64url(numbers.x.to_bytes(32)), "y": b64url(numbers.y.to_bytes(32))}

    request = {"version": options.version, "tee": options.tee, "extra-params": attester.extra_params}
    challenge = server.ask("auth", "POST", "/kbs/v0/auth", request)
    nonce = challenge["nonce"]
    assert len(base64.b64decode(nonce, validate=True)) == 32, challenge

    bound = {"additional-evidence": "", "nonce": nonce, "tee-pubkey": public}
    evidence = attester.evidence(challenge["extra-params"], hashlib.sha384(canonical(bound)).digest())
    runtime_data = {"nonce": nonce, "tee-pubkey": public}
    composite = {"primary_evidence": evidence, "additional_evidence": ""}
    body = {"init-data": None, "runtime-data": runtime_data, "tee-evidence": composite}
    token = server.ask("attest", "POST", "/kbs/v0/attest", body)["token"]
    claims = json.loads(unb64url(token.split(".")[1]))
    assert options.tee in claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"], claims
    assert claims["exp"] - claims["iat"] <= 300, claims

    bearer = token if options.bearer else None
    jwe = server.ask("resource", "GET", f"/kbs/v0/resource/{options.resource}", bearer=bearer)
    assert set(jwe) == {"protected", "encrypted_key", "iv", "ciphertext", "tag"}, jwe
    return decrypt(key, jwe).hex()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--certificate", required=True, help="SHA-256 of the server's certificate")
    parser.add_argument("--tee", choices=["sample", "tpm"], default="sample")
    parser.add_argument("--resource", required=True)
    parser.add_argument("--bearer", action="store_true", help="show the token instead of the cookie")
    parser.add_argument("--version", default="0.4.0")
    parser.add_argument("--tcti")
    parser.add_argument("--event-log")
    parser.add_argument("--pcrs", default=",".join(map(str, range(16))))
    try:
        print(json.dumps({"resource": exchange(parser.parse_args())}))
    except Refused as refused:
        print(json.dumps(refused.found))
        sys.exit(1)


if __name__ == "__main__":
    main()
