#!/usr/bin/env python3
"""`make check`: lint, and the unit tests of what changed since main, and of what is made of it.

Builds select the whole workspace, as `make test` does: another selection would have other features,
and compile dependencies again. What did not change is not compiled; times.py leaves out the tests
of other packages.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ["--release", "--locked", "--workspace"]
# Minutes of boots, of load and of building images: `make test` runs them.
SLOW = {"boots", "builder", "guest", "load"}
# Folders outside of any package that tests of one read.
READS = {
    "stages": "cvm-image",
    "partitions": "cvm-image",
    "python": "cvm-image",
    "keys": "flare-cvm",
    "docs": "cvm-init",
}


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def changed_files() -> list[str]:
    mains = ("origin/main", "main")
    found = [
        name
        for name in mains
        if subprocess.run(
            ["git", "rev-parse", "-q", "--verify", name], cwd=ROOT, capture_output=True, check=False
        ).returncode
        == 0
    ]
    base = output("git", "merge-base", "HEAD", found[0]).strip() if found else "HEAD"
    tracked = output("git", "diff", "--name-only", base)
    return (tracked + output("git", "ls-files", "--others", "--exclude-standard")).splitlines()


def changed_packages(files: list[str], packages: dict[str, dict]) -> set[str]:
    """Those that a file lies in; what all share changes all."""
    folders = {
        str(Path(package["manifest_path"]).parent.relative_to(ROOT)): name
        for name, package in packages.items()
    }
    changed = set()
    for file in files:
        if file in ("Cargo.toml", "Cargo.lock"):
            return set(packages)
        above = [str(parent) for parent in Path(file).parents]
        owner = next(
            (folders[folder] for folder in above if folder in folders),
            READS.get(file.split("/")[0]),
        )
        changed |= {owner} & set(packages)
    return changed


def with_dependents(changed: set[str], packages: dict[str, dict]) -> set[str]:
    found = set(changed)
    while True:
        more = {
            name
            for name, package in packages.items()
            if any(needed["name"] in found for needed in package["dependencies"])
        }
        if more <= found:
            return found
        found |= more


def main() -> int:
    files = changed_files()
    metadata = json.loads(
        output("cargo", "metadata", "--no-deps", "--format-version", "1", "--locked")
    )
    packages = {package["name"]: package for package in metadata["packages"]}
    changed = changed_packages(files, packages)
    print("changed since main:", ", ".join(sorted(changed)) or "no package", flush=True)
    steps = [["cargo", "fmt", "--all", "--check"]]
    if changed:
        steps.append(["cargo", "clippy", *WORKSPACE, "--all-targets", "--", "-D", "warnings"])
        tests = {
            target["name"]
            for name in changed
            for target in packages[name]["targets"]
            if "test" in target["kind"]
        }
        steps.append(
            [
                "cargo",
                "test",
                *WORKSPACE,
                "--lib",
                *(f"--test={name}" for name in sorted(tests - SLOW)),
            ]
        )
    python = ROOT / "target/tools/nvflare/bin/python3"
    if any(file.startswith("python/") for file in files):
        steps.append(
            [str(python), "-B", "-m", "unittest", "discover", "-s", "python/tests", "-t", "python"]
        )
    wanted = with_dependents(changed, packages)
    env = {
        **os.environ,
        "CHECK_PACKAGES": " ".join(wanted),
        "FLARE_CVM_PYTHON": str(python),
        "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER": f"{ROOT}/scripts/times.py run",
    }
    for step in steps:
        if subprocess.run(step, cwd=ROOT, env=env, check=False).returncode != 0:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
