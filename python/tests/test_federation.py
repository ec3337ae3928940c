"""A federation of real NVFLARE processes on this machine: provisioned by NVFLARE, talking mutual
TLS over gRPC, with the CC configuration that NVFLARE's provisioning writes and our manager in its
place. Only the agents are fake.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from .fake_agent import FakeAgent

_PROJECT = """\
api_version: 3
name: p
description: test
participants:
  - name: server1
    type: server
    org: acme
    fed_learn_port: {port}
    admin_port: {port}
    default_host: localhost
  - {{name: site-1, type: client, org: acme}}
  - {{name: site-2, type: client, org: acme}}
  - {{name: admin@acme.com, type: admin, org: acme, role: project_admin}}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {{config_folder: config, scheme: grpc}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""
_FREQUENCY_S = 4
_PATIENCE_S = 600.0


class Process:
    """One site: a fake agent and an NVFLARE process."""

    def __init__(self, kit: Path, role: str) -> None:
        self.kit, self.role = kit, role
        self.agent = FakeAgent(kit.name, role)
        self.log_file = kit / "process.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._configure()

    def _configure(self) -> None:
        components = {
            "cc_manager": {
                "id": "cc_manager",
                "path": "nvflare.app_opt.confidential_computing.cc_manager.CCManager",
                "args": {
                    "cc_issuers_conf": [{"issuer_id": "cvm_authorizer", "token_expiration": 300}],
                    "cc_verifier_ids": ["cvm_authorizer"],
                    "verify_frequency": _FREQUENCY_S,
                    "cc_enabled_sites": ["server", "site-1", "site-2"],
                },
            },
            "cvm_authorizer": {
                "id": "cvm_authorizer",
                "path": "flare_cvm.CVMAuthorizer",
                "args": {"socket": self.agent.socket},
            },
        }
        for name, component in components.items():
            path = self.kit / "local" / f"{name}__p_resources.json"
            path.write_text(json.dumps({"components": [component]}))
        if self.role == "server":  # what NVFLARE keeps under /tmp by default
            path = self.kit / "local" / "resources.json.default"
            path.write_text(path.read_text().replace("/tmp/nvflare", str(self.kit / "storage")))

    def start(self) -> None:
        module = {"server": "app.server.server_train", "client": "app.client.client_train"}[
            self.role
        ]
        options = ["secure_train=true", "org=acme", "config_folder=config"]
        options += [f"uid={self.kit.name}"] if self.role == "client" else []
        command = [sys.executable, "-u", "-m", f"nvflare.private.fed.{module}", "-m", str(self.kit)]
        command += ["-s", f"fed_{self.role}.json", "--set", *options]
        here = Path(__file__).resolve().parent.parent
        path = [str(here), str(self.kit.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path),
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self.agent.close()


class RealFederation(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="federation-", ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        kits = provision(Path(folder.name))
        self.server = Process(kits / "server1", "server")
        self.one, self.two = Process(kits / "site-1", "client"), Process(kits / "site-2", "client")
        self.sites = (self.server, self.one, self.two)
        for site in self.sites:
            self.addCleanup(site.stop)

    def wait_for(self, what: str, condition: Any) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(
                    f"--- {site.kit.name}\n{site.log()[-6000:]}" for site in self.sites
                )
                self.fail(f"{what}: not within {_PATIENCE_S:.0f} s\n{logs}")
            time.sleep(0.2)

    def start_all(self) -> None:
        for site in self.sites:
            site.start()
        passed = "Cross-site validation passed"
        self.wait_for(
            "all sites validate each other",
            lambda: all(passed in site.log() for site in self.sites),
        )

    def asked_by(self, site: Process) -> set[str]:
        return {
            r["peer"]["name"] for r in site.agent.requests if r["op"] == "verify" and r["challenge"]
        }

    def test_real_processes_start_validate_each_other_and_stop_when_one_fails(self) -> None:
        self.start_all()
        everybody = {"server1", "site-1", "site-2"}
        self.wait_for(
            "everybody asks everybody",
            lambda: all(self.asked_by(s) == everybody for s in self.sites),
        )
        for site in self.sites:
            verified = [request for request in site.agent.requests if request["op"] == "verify"]
            self.assertTrue(all(request["peer"]["tls_cert_sha256"] for request in verified))
            self.assertNotIn(verified[0]["token"][60:120], site.log())
        self.two.agent.measurement = "bad"
        self.wait_for("every site ends", lambda: all(site.ended() for site in self.sites))
        self.assertIn("AGT-033", "".join(site.log() for site in self.sites))
        # The site that fails stays down, and so does the federation's server. Another client may
        # have noticed no more than their silence: it may start again, and ask again.
        for site in (self.server, self.two):
            self.assertTrue((site.kit / "shutdown.fl").exists(), site.kit.name)

    def test_attack_real_server_without_our_cvm(self) -> None:
        """It holds valid certificates, and is in order to itself."""
        self.server.agent.measurement = "bad"
        self.server.agent.accepts_any_measurement = True
        self.server.start()
        self.one.start()
        self.wait_for("the client refuses it", self.one.ended)
        self.assertIn("AGT-033", self.one.log(), self.server.log())
        self.assertTrue((self.one.kit / "shutdown.fl").exists())


def provision(folder: Path) -> Path:
    """The kits, as `nvflare provision` makes them. Its command line is not used: it imports
    packages that only its dashboard needs.
    """
    from nvflare.lighter.provision import define_provision_parser, handle_provision

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    project = folder / "project.yml"
    project.write_text(_PROJECT.format(port=port))
    parser = argparse.ArgumentParser()
    define_provision_parser(parser)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        handle_provision(parser.parse_args(["-p", str(project), "-w", str(folder / "workspace")]))
    kits = folder / "workspace" / "p" / "prod_00"
    # Read at every start of Python, where the image has a .pth file. Whole before any process
    # starts: a process that finds it half written runs NVFLARE's own manager.
    (kits / "sitecustomize.py").write_text("import flare_cvm_substitute\n")
    return kits
