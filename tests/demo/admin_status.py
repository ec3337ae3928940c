#!/usr/bin/env python3
"""Asks a running NVFLARE server for its status as a project admin and prints it as JSON.

Uses NVFLARE's own FLARE API over mutual TLS with the admin's startup kit, and waits until the
server answers or the deadline passes. Exit status: 0 answered, 1 no answer by the deadline,
2 a mistake in the arguments or the kit.

    admin_status.py --kit prod_00/admin@demo.example [--port 8002] [--deadline 180]
"""

import argparse
import contextlib
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from nvflare.fuel.flare_api.flare_api import new_secure_session


def ask(kit: Path, user: str, timeout: float) -> dict:
    """The server's status. NVFLARE calls a server without a running job `stopped`."""
    with contextlib.redirect_stdout(sys.stderr):  # the API prints what it does
        session = new_secure_session(user, str(kit), timeout=timeout)
        try:
            info = session.get_system_info()
        finally:
            session.close()
    return {
        "server_status": info.server_info.status,
        "server_start_time": info.server_info.start_time,
        "clients": [client.name for client in info.client_info],
        "jobs": len(info.job_info),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, required=True, help="the admin's startup kit (holds startup/fed_admin.json)")
    parser.add_argument("--port", type=int, help="the forwarded port on this machine, if not the kit's own")
    parser.add_argument("--deadline", type=float, default=180, help="seconds to wait for an answer (default 180)")
    args = parser.parse_args()
    config_file = args.kit / "startup" / "fed_admin.json"
    if not config_file.is_file():
        print(f"{config_file} does not exist: give the folder that `nvflare provision` made for the admin", file=sys.stderr)
        return 2

    logging.disable(logging.CRITICAL)  # a refused connection is expected while the machine boots
    started = time.monotonic()
    # A copy, because a session leaves files in its kit, and the port may differ.
    with tempfile.TemporaryDirectory(prefix="flare-admin-") as folder:
        kit = Path(folder) / "kit"
        shutil.copytree(args.kit, kit)
        (kit / "transfer").mkdir(exist_ok=True)
        config = json.loads(config_file.read_text())
        if args.port:
            config["admin"]["port"] = args.port
            (kit / "startup" / "fed_admin.json").write_text(json.dumps(config))
        tries, reason = 0, "never tried"
        while (left := args.deadline - (time.monotonic() - started)) > 0:
            tries += 1
            try:
                status = ask(kit, config["admin"]["username"], min(left, 10.0))
            except Exception as error:  # the API raises a different type for each stage of a boot
                reason = f"{type(error).__name__}: {error}"
                time.sleep(0.5)
                continue
            print(json.dumps(status | {"tries": tries, "waited_s": round(time.monotonic() - started, 2)}))
            return 0
    print(f"no answer from the NVFLARE server within {args.deadline:.0f} s ({tries} tries; the last: {reason})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
