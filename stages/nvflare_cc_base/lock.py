#!/usr/bin/env python3
"""Writes requirements.lock from requirements.in: each wheel for the guest's Python by its SHA-256.

Run it to move to newer versions, and read the difference before committing it:

    python3 stages/nvflare_cc_base/lock.py
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = "3.11"
PLATFORMS = [
    "manylinux_2_34",
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_12",
    "manylinux_2_5",
]
HEAD = """\
# Written by lock.py from requirements.in: Python 3.11, x86_64, glibc 2.36; each wheel by its
# SHA-256.
"""


def download(folder: str, *what: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--dest",
        folder,
    ]
    command += ["--implementation", "cp", "--python-version", PYTHON]
    command += [part for platform in PLATFORMS for part in ("--platform", f"{platform}_x86_64")]
    subprocess.run([*command, *what], check=True)


def main() -> None:
    wanted = [
        line.split("#")[0].strip() for line in (HERE / "requirements.in").read_text().splitlines()
    ]
    wanted = [line for line in wanted if line]
    with tempfile.TemporaryDirectory() as folder:
        # Without its dependencies: requirements.in lists those that a CVM needs.
        download(folder, "--no-deps", *(line for line in wanted if line.startswith("nvflare")))
        download(folder, *(line for line in wanted if not line.startswith("nvflare")))
        lines = []
        for wheel in sorted(Path(folder).glob("*.whl"), key=lambda path: path.name.lower()):
            name, version = wheel.name.split("-")[:2]
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{name.lower().replace('_', '-')}=={version} --hash=sha256:{digest}\n")
    (HERE / "requirements.lock").write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
