"""The wheel of `flare_cvm`, as a PEP 517 backend without requirements: a wheel is a zip file with
three metadata files.

Every time stamp is the zip format's first, the order is the name's and nothing is compressed, so
that the same sources give the same bytes wherever they are built, whatever zlib is there.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_NAME, _VERSION = "flare_cvm", "0.1.0"
_INFO = f"{_NAME}-{_VERSION}.dist-info"
_METADATA = f"""\
Metadata-Version: 2.4
Name: flare-cvm
Version: {_VERSION}
Summary: NVIDIA FLARE's confidential computing manager and authorizer for sites sealed by flare-cvm
License-Expression: Apache-2.0
Requires-Python: >=3.10
"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: flare-cvm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_FIRST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def build_wheel(
    wheel_directory: str,
    _config_settings: dict[str, Any] | None = None,
    _metadata_directory: str | None = None,
) -> str:
    package = _HERE / _NAME
    contents = {
        str(path.relative_to(_HERE)): path.read_bytes()
        for path in package.rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    contents["flare_cvm_substitute.py"] = (_HERE / "flare_cvm_substitute.py").read_bytes()
    contents[f"{_INFO}/METADATA"] = _METADATA.encode()
    contents[f"{_INFO}/WHEEL"] = _WHEEL.encode()
    record = [
        f"{name},{_record_hash(data)},{len(data)}\n" for name, data in sorted(contents.items())
    ]
    contents[f"{_INFO}/RECORD"] = "".join([*record, f"{_INFO}/RECORD,,\n"]).encode()

    wheel = f"{_NAME}-{_VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(
            contents.items(), key=lambda item: (item[0].startswith(_INFO), item[0])
        ):
            member = zipfile.ZipInfo(name, _FIRST_ZIP_TIME)
            member.external_attr = 0o100644 << 16
            member.create_system = 3  # Unix, so that the mode above counts
            archive.writestr(member, data)
    return wheel


def build_sdist(_sdist_directory: str, _config_settings: dict[str, Any] | None = None) -> str:
    raise NotImplementedError(
        "flare-cvm is built from its repository: there is no source distribution"
    )


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest}"
