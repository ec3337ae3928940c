#!/usr/bin/env python3
"""How long the parts of `make test` take, and each of its tests.

times.py step NAME COMMAND...  runs a step and notes its time
times.py run BINARY ARGUMENT... runs a test binary, as cargo's runner, and notes its tests' times
times.py show                  the list: steps, binaries, and the slowest tests, slowest first

Notes are in target/times. On stable Rust libtest tells its times only where RUSTC_BOOTSTRAP is set;
it is set for the test binary alone, which compiles nothing. CHECK_PACKAGES, where set, names the
packages whose tests run.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

NOTES = Path(__file__).resolve().parent.parent / "target" / "times"
TOP = 30
TEST = re.compile(r"^test (?P<name>\S+)(?: - should panic)? \.\.\. .*?<(?P<seconds>[0-9.]+)s>$")


def note(kind: str, seconds: float, name: str) -> None:
    NOTES.mkdir(parents=True, exist_ok=True)
    with (NOTES / kind).open("a") as notes:
        notes.write(f"{seconds:.3f} {name}\n")


def step(name: str, command: list[str]) -> int:
    start = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    note("steps", time.monotonic() - start, name)
    return status


def run(binary: str, arguments: list[str]) -> int:
    package = os.environ.get("CARGO_PKG_NAME", "")
    wanted = os.environ.get("CHECK_PACKAGES")
    if wanted is not None and package not in wanted.split():
        return 0
    # cargo's name of a binary ends with a hash of 16 digits.
    name = f"{package} {re.sub(r'-[0-9a-f]{16}$', '', Path(binary).name)}"
    if "--list" in arguments:
        return subprocess.run([binary, *arguments], check=False).returncode
    start = time.monotonic()
    child = subprocess.Popen(
        [binary, "-Zunstable-options", "--report-time", *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "RUSTC_BOOTSTRAP": "1"},
    )
    for line in child.stdout or ():
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if found := TEST.match(line.decode(errors="replace").rstrip()):
            note("tests", float(found["seconds"]), f"{name} {found['name']}")
    status = child.wait()
    note("binaries", time.monotonic() - start, name)
    # As a shell says it: a signal's number is no exit status.
    return status if status >= 0 else 128 - status


def show() -> int:
    for kind, limit, title in (
        ("steps", None, "Steps"),
        ("binaries", None, "Test binaries, all their tests"),
        ("tests", TOP, f"The {TOP} slowest tests"),
    ):
        path = NOTES / kind
        lines = (
            [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
        )
        slowest = sorted(((float(seconds), name) for seconds, name in lines), reverse=True)
        total = sum(seconds for seconds, _ in slowest)
        print(f"\n{title}, slowest first ({len(slowest)}, {total:.0f} s in all)")
        for seconds, name in slowest[:limit]:
            print(f"{seconds:9.1f} s  {name}")
    return 0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["step", name, *command] if command:
            return step(name, command)
        case ["run", binary, *rest]:
            return run(binary, rest)
        case ["show"]:
            return show()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
