"""An agent that keeps AGENT-PROTOCOL version 1 on a real socket. Its "evidence" is an HMAC under a
key that all fake agents share and nobody else has, in the place of the TEE vendor's signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flare_cvm.agent_client import MAX_MESSAGE

_TEE_KEY = secrets.token_bytes(32)
_MEMBERS = {
    "status": set(),
    "challenge": {"peer"},
    "generate": {"challenge", "tls_cert_sha256"},
    "verify": {"token", "peer", "challenge"},
    "report": {"since", "until"},
}
# What to do instead of answering: raw bytes, or a function that is given the connection.
Override = bytes | Callable[[socket.socket], object]


class Refusal(Exception):
    def __init__(
        self, code: str, reason: str, retry: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.answer = {
            "ok": False,
            "code": code,
            "reason": reason,
            "help": "see the manual",
            "retry": retry,
        }
        if wait_s is not None:
            self.answer["wait_s"] = wait_s


class FakeAgent:
    leeway_s = 2.0
    token_lifetime_s = 300.0
    challenge_lifetime_s = 60.0
    max_clock_wait_s = 120.0

    def __init__(self, site: str, role: str) -> None:
        self.site, self.role = site, role
        self.measurement = "good"
        self.accepts_any_measurement = False  # an attacker's own
        self.clock_offset_s = 0.0
        self.starting = False
        self.overrides: dict[str, Override] = {}
        self.calls: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="agent-")
        self.socket = str(Path(self._folder.name) / "agent.sock")
        self._memory = threading.Lock()
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Starts, with an empty memory, as after a crash."""
        self._challenges: dict[str, tuple[str, float]] = {}
        self._seen: set[str] = set()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.socket)
        listener.listen(16)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def kill(self) -> None:
        if self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            Path(self.socket).unlink()

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()

    def now(self) -> float:
        return time.time() + self.clock_offset_s

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = json.loads(connection.makefile("rb").readline(MAX_MESSAGE))
                override = self.overrides.get(request["op"])
                if callable(override):
                    override(connection)
                else:
                    connection.sendall(self._answer(request) if override is None else override)
            except OSError:
                pass  # the client went away

    def _answer(self, request: dict[str, Any]) -> bytes:
        try:
            op = request["op"]
            if (
                request.get("v") != 1
                or op not in _MEMBERS
                or set(request) != {"v", "op"} | _MEMBERS[op]
            ):
                raise Refusal("AGT-001", "no request of version 1")
            with self._memory:
                self.calls[op] += 1
                self.requests.append(request)
                if self.starting and op != "status":
                    raise Refusal("AGT-002", "the agent is starting", retry=True, wait_s=0.05)
                answer = getattr(self, f"_{op}")(request)
            return json.dumps({"ok": True, **answer}).encode() + b"\n"
        except Refusal as refusal:
            return json.dumps(refusal.answer).encode() + b"\n"

    def _status(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {
            "site": self.site,
            "role": self.role,
            "state": "starting" if self.starting else "healthy",
            "reason": "",
            "self_verified_at": None if self.starting else rfc3339(self.now()),
            "kinds": ["fake"],
            "leeway_s": self.leeway_s,
            "token_lifetime_s": self.token_lifetime_s,
        }

    def _challenge(self, request: dict[str, Any]) -> dict[str, Any]:
        challenge = secrets.token_hex(32)
        self._challenges[challenge] = (request["peer"], self.now() + self.challenge_lifetime_s)
        return {"challenge": challenge, "lifetime_s": self.challenge_lifetime_s}

    def _generate(self, request: dict[str, Any]) -> dict[str, Any]:
        now = self.now()
        body = {
            "id": secrets.token_hex(8),
            "site": self.site,
            "role": self.role,
            "tls_cert_sha256": request["tls_cert_sha256"],
            "challenge": request["challenge"],
            "issued_at": now,
            "expires_at": now + self.token_lifetime_s,
            "measurement": self.measurement,
        }
        return {
            "token": seal(body),
            "issued_at": rfc3339(now),
            "expires_at": rfc3339(now + self.token_lifetime_s),
        }

    def _verify(self, request: dict[str, Any]) -> dict[str, Any]:
        body, now, peer = unseal(request["token"]), self.now(), request["peer"]
        if body["issued_at"] > now + self.leeway_s:
            wait_s = body["issued_at"] - now - self.leeway_s
            raise Refusal(
                "AGT-010", "this guest's clock is slow", wait_s <= self.max_clock_wait_s, wait_s
            )
        if body["expires_at"] < now - self.leeway_s:
            raise Refusal("AGT-011", "the token has expired")
        if body["challenge"] != request["challenge"]:
            raise Refusal("AGT-014", "the token answers another challenge")
        for member in ("site", "role", "tls_cert_sha256") if peer else ():
            given = peer["name" if member == "site" else member]
            if given is not None and body[member] != given:
                raise Refusal(
                    "AGT-013", f"the token is another's: {member} is {body[member]}, not {given}"
                )
        if body["measurement"] != "good" and not self.accepts_any_measurement:
            raise Refusal("AGT-033", "the evidence does not meet the cross policy")
        if request["challenge"] is None:
            if body["id"] in self._seen:
                raise Refusal("AGT-016", "the token was seen before")
            self._seen.add(body["id"])
        else:
            asked, expires = self._challenges.pop(request["challenge"], ("", 0.0))
            if not peer or asked != peer["name"] or expires < now:
                raise Refusal("AGT-015", "this challenge is not open for this peer")
        return {
            "verified": True,
            "claims": {"site": body["site"]},
            "not_checked": [] if peer else ["peer"],
        }

    def _report(self, _request: dict[str, Any]) -> dict[str, Any]:
        return {"entries": [{"peer": "site-1", "result": "accepted"}]}


def seal(body: dict[str, Any]) -> str:
    data = json.dumps(body, sort_keys=True).encode()
    return base64.b64encode(hmac.digest(_TEE_KEY, data, hashlib.sha256) + data).decode()


def unseal(token: str) -> dict[str, Any]:
    try:
        raw = base64.b64decode(token, validate=True)
    except ValueError:
        raise Refusal("AGT-020", "no token") from None
    if not hmac.compare_digest(raw[:32], hmac.digest(_TEE_KEY, raw[32:], hashlib.sha256)):
        raise Refusal("AGT-031", "the evidence is not signed by a TEE")
    body: dict[str, Any] = json.loads(raw[32:])
    return body


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
