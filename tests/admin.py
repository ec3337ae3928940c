#!/usr/bin/env python3
"""What a project admin does with a federation, through NVFLARE's own FLARE API and the admin's
startup kit, each answer as JSON.

    admin.py --kit prod_00/admin@demo.example [--port 8002] [--deadline 180] COMMAND

    status the server's state and its clients, once it answers ready SITE… the same, once all these
    clients are connected submit FOLDER submits a job: {"job": ID} wait JOB waits for a job's end:
    {"job", "status", …} jobs every job that the server's store holds download JOB FOLDER a job's
    results: {"accuracy": {SITE: share}, "weights": number of values}

Exit status: 0 done, 1 not done by the deadline or refused (the reason is on standard error), 2 a
mistake in the arguments or the kit.
"""

import argparse
import contextlib
import json
import logging
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

SUBMISSION = uuid.uuid4().hex
# What NVFLARE's API raises for a decision of the server; all else may be better a moment later.
DECIDED = (
    "AuthorizationError",
    "InvalidJobDefinition",
    "JobNotFound",
    "InvalidTarget",
    "ValueError",
)


class NotYet(Exception):
    """The answer is not the one that is waited for."""


def status(session: Session) -> dict:
    """The server's status. NVFLARE calls a server without a running job `stopped`."""
    info = session.get_system_info()
    return {
        "server_status": info.server_info.status,
        "server_start_time": info.server_info.start_time,
        "clients": sorted(client.name for client in info.client_info),
        "jobs": len(info.job_info),
    }


def ready(session: Session, *sites: str) -> dict:
    answer = status(session)
    if set(sites) - set(answer["clients"]):
        raise NotYet(f"connected so far: {answer['clients']}")
    return answer


def submit(session: Session, folder: str) -> dict:
    # One token for all tries: an answer that was lost does not submit the job twice.
    return {"job": session.submit_job(str(Path(folder).resolve()), submit_token=SUBMISSION)}


def wait(session: Session, job: str) -> dict:
    meta = session.get_job_meta(job)
    if not meta["status"].startswith("FINISHED") and not meta["status"].startswith("FAILED"):
        raise NotYet(f"job {job} is {meta['status']}: {meta.get('job_deploy_detail')}")
    return {
        "job": job,
        "status": meta["status"],
        "name": meta.get("name"),
        "duration": meta.get("duration"),
        "detail": meta.get("job_deploy_detail"),
    }


def jobs(session: Session) -> dict:
    return {
        "jobs": [
            {"job": job["job_id"], "name": job.get("job_name"), "status": job.get("status")}
            for job in session.list_jobs()
        ]
    }


def download(session: Session, job: str, folder: str) -> dict:
    result = Path(session.download_job_result(job, folder))
    metrics = [json.loads(path.read_text()) for path in result.rglob("cross_val_results.json")]
    weights = [np.load(path) for path in result.rglob("server.npy")]
    if len(metrics) != 1 or len(weights) != 1:
        raise SystemExit(
            f"{result} holds {len(metrics)} results and {len(weights)} models, expected one each"
        )
    accuracy = {
        site: values["SRV_server"]["accuracy"] for site, values in sorted(metrics[0].items())
    }
    return {"accuracy": accuracy, "weights": int(weights[0].size)}


COMMANDS = {f.__name__: f for f in (status, ready, submit, wait, jobs, download)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kit",
        type=Path,
        required=True,
        help="the admin's startup kit (holds startup/fed_admin.json)",
    )
    parser.add_argument(
        "--port", type=int, help="the forwarded port on this machine, if not the kit's own"
    )
    parser.add_argument(
        "--deadline", type=float, default=180, help="seconds to wait for the answer (default 180)"
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    config_file = args.kit / "startup" / "fed_admin.json"
    if not config_file.is_file():
        print(
            f"{config_file} does not exist: "
            "give the folder that `nvflare provision` made for the admin",
            file=sys.stderr,
        )
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
                with contextlib.redirect_stdout(sys.stderr):  # the API prints what it does
                    session = new_secure_session(
                        config["admin"]["username"], str(kit), timeout=min(left, 10.0)
                    )
                    try:
                        answer = COMMANDS[args.command](session, *args.arguments)
                    finally:
                        session.close()
            except Exception as error:  # the API raises a different type for each stage of a boot
                reason = f"{type(error).__name__}: {error}"
                if type(error).__name__ in DECIDED:
                    print(f"refused: {reason}", file=sys.stderr)
                    return 1
                time.sleep(2)  # a login costs an emulated server a second
                continue
            print(
                json.dumps(
                    answer | {"tries": tries, "waited_s": round(time.monotonic() - started, 2)}
                )
            )
            return 0
    print(
        f"{args.command}: not done within {args.deadline:.0f} s "
        f"({tries} tries; the last: {reason})",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
