"""NVIDIA's own verifier (PyPI nv-local-gpu-verifier) on a recorded GPU's evidence, offline; prints
`VERSION PER_SECOND START_SECONDS`, both of processor time. Usage: nvidia.py FOLDER UNIX_TIME
SECONDS
"""

import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import OpenSSL.crypto
from verifier import cc_admin, config
from verifier.cc_admin_utils import CcAdminUtils
from verifier.nvml.gpu_cert_chains import GpuCertificateChains
from verifier.nvml.test_handle import TestHandle

FOLDER, NOW, SECONDS = (
    Path(sys.argv[1]).resolve(),
    datetime.fromtimestamp(int(sys.argv[2]), timezone.utc),
    float(sys.argv[3]),
)


class InThePast(OpenSSL.crypto.X509StoreContext):
    """It has no option for the time to verify at, and the signers of the test manifests have
    expired.
    """

    def __init__(self, store, certificate, chain=None):
        store.set_time(NOW)
        super().__init__(store, certificate, chain)


OpenSSL.crypto.X509StoreContext = InThePast
# Revocation needs NVIDIA's responder; our verifier has no OCSP response here either.
CcAdminUtils.ocsp_certificate_chain_validation = lambda *_: (True, "", "good", None)
for log in (config.info_log, config.event_log):
    log.disabled = True
RIMS = {"driver_rim": str(FOLDER / "driver-rim.xml"), "vbios_rim": str(FOLDER / "vbios-rim.xml")}
OPTIONS = (
    dict.fromkeys(
        [
            "allow_hold_cert",
            "ocsp_nonce_disabled",
            "rim_service_url",
            "ocsp_url",
            "service_key",
            "verbose",
            "test_no_gpu",
        ]
    )
    | {"user_mode": True}
    | RIMS
)
config.HopperSettings.set_driver_rim_path(RIMS["driver_rim"])
NONCE = (FOLDER / "nonce.hex").read_text().strip()
REPORT, CHAIN = (FOLDER / "report.bin").read_bytes(), (FOLDER / "chain.pem").read_bytes()


def verify(report=REPORT):
    chain = GpuCertificateChains(TestHandle(CHAIN)).GpuAttestationCertificateChain
    gpu = SimpleNamespace(
        get_gpu_architecture=lambda: 9,
        get_uuid=lambda: "GPU",
        get_driver_version=lambda: "545.00",
        get_vbios_version=lambda: "96.00.5e.00.01",
        get_attestation_report=lambda: report,
        get_attestation_cert_chain=lambda: chain,
    )
    accepted, _claims = cc_admin.attest(OPTIONS, NONCE, [gpu])
    assert accepted is True


start = time.process_time()
verify()
begun, count = time.process_time(), 0
while time.process_time() < begun + SECONDS:
    verify()
    count += 1
print(version("nv-local-gpu-verifier"), count / (time.process_time() - begun), start)
