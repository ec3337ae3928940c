"""The wheel: what is in it, and that two builds from two places are the same bytes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


class Wheel(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="wheel-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_a_build_from_another_place_gives_the_same_bytes(self) -> None:
        elsewhere = self.folder / "elsewhere"
        shutil.copytree(_ROOT, elsewhere, ignore=shutil.ignore_patterns("tests", "__pycache__"))
        digests = set()
        for number, source in enumerate((_ROOT, elsewhere)):
            target = self.folder / str(number)
            target.mkdir()
            wheel = target / backend(source).build_wheel(str(target))
            digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
        self.assertEqual(len(digests), 1)

    def test_its_record_lists_every_file_and_its_metadata_are_the_projects(self) -> None:
        name = backend(_ROOT).build_wheel(str(self.folder))
        with zipfile.ZipFile(self.folder / name) as wheel:
            record = wheel.read("flare_cvm-0.1.0.dist-info/RECORD").decode()
            listed = {line.split(",")[0] for line in record.splitlines()}
            self.assertEqual(listed, set(wheel.namelist()))
            self.assertLessEqual(
                {"flare_cvm/py.typed", "flare_cvm/manager.py", "flare_cvm_substitute.py"}, listed
            )
            metadata = wheel.read("flare_cvm-0.1.0.dist-info/METADATA").decode()
        project = (_ROOT / "pyproject.toml").read_text()
        for line, value in (
            ("name", "Name"),
            ("version", "Version"),
            ("requires-python", "Requires-Python"),
        ):
            stated = next(
                entry.split(": ", 1)[1]
                for entry in metadata.splitlines()
                if entry.startswith(f"{value}: ")
            )
            self.assertIn(f'{line} = "{stated}"', project)


class Substitute(unittest.TestCase):
    """NVFLARE's components are made from their paths: module, then attribute."""

    def manager(self, *imports: str) -> str:
        manager = "nvflare.app_opt.confidential_computing.cc_manager"
        lookup = [f"from {manager} import CCManager", "print(CCManager.__name__)"]
        code = "; ".join([*(f"import {module}" for module in imports), *lookup])
        run = subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return run.stdout.strip() or run.stderr.strip().splitlines()[-1]

    def test_ours_is_where_nvflare_looks_for_its_own(self) -> None:
        self.assertEqual(self.manager(), "CCManager")
        self.assertEqual(self.manager("flare_cvm"), "CCManager")
        self.assertEqual(self.manager("flare_cvm_substitute"), "CVMManager")
        self.assertEqual(self.manager("flare_cvm_substitute", "flare_cvm"), "CVMManager")

    def test_a_kit_without_an_authorizer_of_ours_keeps_nvflares_manager(self) -> None:
        with tempfile.TemporaryDirectory() as workspace:
            local = Path(workspace) / "local"
            local.mkdir()
            component = local / "authorizer__p_resources.json"
            process = f"sys; sys.argv[1:] = ['-m', {workspace!r}, '-s', 'fed_client.json']"
            for content, expected in (
                ({"components": [{"id": "a", "path": "flare_cvm.CVMAuthorizer"}]}, "CVMManager"),
                (
                    {
                        "components": [
                            {"id": "a", "path": "nvflare.app_opt.confidential_computing.x.Y"}
                        ]
                    },
                    "CCManager",
                ),
                ({"components": [None]}, "CVMManager"),
                (["flare_cvm."], "CVMManager"),
                (None, "CVMManager"),
            ):
                component.write_text("{" if content is None else json.dumps(content))
                self.assertEqual(
                    self.manager("flare_cvm_substitute", process), expected, str(content)
                )

    def test_it_does_not_come_too_late_unnoticed(self) -> None:
        self.assertIn("too late", self.manager("flare_cvm", "flare_cvm_substitute"))

    def test_a_package_that_is_broken_does_not_leave_nvflares_own(self) -> None:
        self.assertIn(
            "Error",
            self.manager("flare_cvm_substitute", "sys; sys.modules['flare_cvm.manager'] = None"),
        )


def backend(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("build_backend", folder / "build_backend.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
