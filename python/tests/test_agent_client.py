"""The agent's client against answers that no agent should give, and the protocol's good ones."""

from __future__ import annotations

import json
import socket
import threading
import unittest
from typing import Any

from flare_cvm.agent_client import (
    MAX_MESSAGE,
    MAX_TOKEN,
    AgentClient,
    AgentProtocolError,
    AgentRefused,
    AgentTimeout,
    AgentUnavailable,
    Peer,
)

from .fake_agent import FakeAgent, Override

_HASH = "ab" * 32


class AgentTest(unittest.TestCase):
    def setUp(self) -> None:
        self.agent = FakeAgent("site-1", "client")
        self.addCleanup(self.agent.close)
        self.client = AgentClient(self.agent.socket, timeout=50.0)

    def answer(self, op: str, override: Override) -> None:
        self.agent.overrides[op] = override


class Protocol(AgentTest):
    def test_every_operation(self) -> None:
        status = self.client.status()
        self.assertEqual((status.site, status.role, status.state), ("site-1", "client", "healthy"))
        challenge = self.client.challenge("site-1").challenge
        token = self.client.generate(challenge, _HASH).token
        verdict = self.client.verify(token, Peer("site-1", "client", _HASH), challenge)
        self.assertEqual((verdict.claims, verdict.not_checked), ({"site": "site-1"}, []))
        self.assertEqual(len(self.client.report("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")), 1)

    def test_a_refusal_carries_its_code_and_whether_to_retry(self) -> None:
        self.agent.starting = True
        with self.assertRaises(AgentRefused) as caught:
            self.client.generate(None, _HASH)
        self.assertEqual((caught.exception.code, caught.exception.retry), ("AGT-002", True))
        self.assertEqual(caught.exception.wait_s, 0.05)

    def test_nobody_listens(self) -> None:
        self.agent.kill()
        with self.assertRaises(AgentUnavailable):
            self.client.status()

    def test_a_request_that_is_too_long_is_not_sent(self) -> None:
        with self.assertRaises(AgentProtocolError):
            self.client.verify("a" * (MAX_TOKEN + 1), None, None)
        self.assertEqual(self.agent.calls["verify"], 0)


class Attacks(AgentTest):
    def test_attack_agent_killed_mid_request(self) -> None:
        def half(connection: socket.socket) -> None:
            connection.sendall(b'{"ok": true, "verified": true, "claims": {}')

        self.answer("verify", half)
        with self.assertRaises(AgentUnavailable):
            self.client.verify("token", None, None)

    def test_attack_agent_that_never_answers(self) -> None:
        done = threading.Event()
        self.addCleanup(done.set)
        self.answer("verify", lambda _connection: done.wait(60))
        with self.assertRaises(AgentTimeout):
            AgentClient(self.agent.socket, timeout=0.2).verify("token", None, None)

    def test_attack_agent_that_drips(self) -> None:
        """One byte before each time-out of a single read: only a deadline for the whole ends it."""
        done = threading.Event()
        self.addCleanup(done.set)

        def drip(connection: socket.socket) -> None:
            while not done.wait(0.02):
                connection.sendall(b" ")

        self.answer("status", drip)
        with self.assertRaises(AgentTimeout):
            AgentClient(self.agent.socket, timeout=0.3).status()

    def test_attack_answer_of_1_gb(self) -> None:
        sent = []

        def flood(connection: socket.socket) -> None:
            chunk = b"a" * (1 << 20)
            for _ in range(1024):
                sent.append(connection.send(chunk))

        self.answer("verify", flood)
        with self.assertRaises(AgentProtocolError):
            self.client.verify("token", None, None)
        self.assertLess(sum(sent), 16 * MAX_MESSAGE)

    def test_attack_malformed_json(self) -> None:
        for line in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'"ok"',
            b"\xff\xfe",
            b'{"ok": true, "ok": false}',
            b'{"ok": NaN}',
            b"[" * 500_000,
            b'{"a":' * 100_000,
            b"9" * 100_000,
        ):
            with self.subTest(line=line[:20]):
                self.answer("verify", line + b"\n")
                with self.assertRaises(AgentProtocolError):
                    self.client.verify("token", None, None)

    def test_attack_answer_that_does_not_quite_say_yes(self) -> None:
        good = {"ok": True, "verified": True, "claims": {}, "not_checked": []}
        changes: tuple[dict[str, Any], ...] = (
            {"ok": 1},
            {"ok": "true"},
            {"ok": None},
            {"verified": 1},
            {"verified": "true"},
            {"verified": False},
            {"claims": []},
            {"claims": None},
            {"not_checked": None},
            {"not_checked": [1]},
        )
        for change in changes:
            with self.subTest(change=change):
                self.answer("verify", json.dumps({**good, **change}).encode() + b"\n")
                with self.assertRaises(AgentProtocolError):
                    self.client.verify("token", None, None)

    def test_attack_second_answer_behind_the_first(self) -> None:
        self.answer("status", b'{"ok": false}\n{"ok": true}\n')
        with self.assertRaises(AgentProtocolError):
            self.client.status()

    def test_attack_challenge_that_is_none(self) -> None:
        for challenge in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, 0, None, ["0" * 64]):
            with self.subTest(challenge=challenge):
                self.answer(
                    "challenge",
                    json.dumps({"ok": True, "challenge": challenge, "lifetime_s": 1}).encode()
                    + b"\n",
                )
                with self.assertRaises(AgentProtocolError):
                    self.client.challenge("site-1")

    def test_attack_token_of_a_wrong_kind(self) -> None:
        for token in ("", "ä", "a" * (MAX_TOKEN + 1), 1, None):
            with self.subTest(token=str(token)[:10]):
                body = {"ok": True, "token": token, "issued_at": "x", "expires_at": "y"}
                self.answer("generate", json.dumps(body).encode() + b"\n")
                with self.assertRaises(AgentProtocolError):
                    self.client.generate(None, _HASH)

    def test_attack_numbers_that_would_wait_for_ever(self) -> None:
        for wait_s in (-1, 1e10, "1", True, 10**400):
            with self.subTest(wait_s=str(wait_s)[:10]):
                body = {
                    "ok": False,
                    "code": "AGT-010",
                    "reason": "r",
                    "retry": True,
                    "wait_s": wait_s,
                }
                self.answer("verify", json.dumps(body).encode() + b"\n")
                with self.assertRaises(AgentProtocolError):
                    self.client.verify("token", None, None)

    def test_attack_log_lines_in_a_reason(self) -> None:
        body = {
            "ok": False,
            "code": "AGT-1\n",
            "reason": "no\nCRITICAL all is well\x1b[2J" + "a" * 9999,
            "retry": False,
        }
        self.answer("verify", json.dumps(body).encode() + b"\n")
        with self.assertRaises(AgentRefused) as caught:
            self.client.verify("token", None, None)
        self.assertTrue(str(caught.exception).isprintable())
        self.assertLess(len(str(caught.exception)), 2000)
