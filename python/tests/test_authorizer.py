"""The authorizer by itself, and in NVFLARE's own CCManager."""

from __future__ import annotations

import threading
import unittest

from cryptography.hazmat.primitives.serialization import Encoding
from flare_cvm import CVMAuthorizer
from flare_cvm.agent_client import Peer
from flare_cvm.authorizer import PeerToken, VerifyLater, answering
from flare_cvm.identity import fingerprint
from nvflare.app_opt.confidential_computing.cc_authorizer import (
    CCTokenGenerateError,
    CCTokenVerifyError,
)
from nvflare.app_opt.confidential_computing.cc_manager import CCManager

from . import pki
from .fake_agent import FakeAgent, unseal
from .harness import FederationTest

_HOUR = 3600.0


class AuthorizerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.agent = FakeAgent("site-1", "client")
        self.addCleanup(self.agent.close)
        self.site = pki.participant("site-1")
        self.authorizer = CVMAuthorizer(
            socket=self.agent.socket,
            timeout=50.0,
            max_wait_s=2.0,
            tls_cert=str(self.site.cert_file),
        )
        self.peer = Peer("site-1", "client", fingerprint(self.site.cert))

    def bound(self, token: str, challenge: str | None, patience_s: float = 2.0) -> PeerToken:
        return PeerToken(token, self.peer, challenge, patience_s)


class Tokens(AuthorizerTest):
    def test_a_token_carries_site_role_certificate_window_and_challenge(self) -> None:
        challenge = self.authorizer.challenge("site-1").challenge
        with answering(challenge, 1.0):
            body = unseal(self.authorizer.generate())
        self.assertEqual(
            (body["site"], body["role"], body["challenge"]), ("site-1", "client", challenge)
        )
        self.assertEqual(body["tls_cert_sha256"], self.peer.tls_cert_sha256)
        self.assertLess(body["issued_at"], body["expires_at"])

    def test_a_token_answers_its_challenge_once(self) -> None:
        challenge = self.authorizer.challenge("site-1").challenge
        with answering(challenge, 1.0):
            token = self.authorizer.generate()
        self.assertTrue(self.authorizer.verify(self.bound(token, challenge)))
        with self.assertRaises(CCTokenVerifyError):
            self.authorizer.verify(self.bound(token, challenge))

    def test_an_agent_that_starts_is_waited_for(self) -> None:
        self.agent.starting = True
        threading.Timer(0.3, lambda: setattr(self.agent, "starting", False)).start()
        self.assertTrue(self.authorizer.generate())

    def test_an_agent_that_is_not_there_yet_is_waited_for(self) -> None:
        self.agent.kill()
        threading.Timer(0.3, self.agent.start).start()
        self.assertTrue(self.authorizer.generate())

    def test_a_slow_clock_waits_and_is_logged(self) -> None:
        token = self.authorizer.generate()
        self.agent.clock_offset_s = -self.agent.leeway_s - 0.3
        with self.assertLogs("flare_cvm", "WARNING") as logs:
            self.assertTrue(self.authorizer.verify(self.bound(token, None)))
        self.assertIn("AGT-010", "\n".join(logs.output))

    def test_a_slow_clock_waits_no_longer_than_its_bound(self) -> None:
        token = self.authorizer.generate()
        self.agent.clock_offset_s = -60.0
        with self.assertRaises(VerifyLater):
            self.authorizer.verify(self.bound(token, None, patience_s=0.3))
        self.authorizer.max_wait_s = 0.3
        with self.assertRaises(CCTokenVerifyError):  # NVFLARE's own manager knows no "later"
            self.authorizer.verify(token)

    def test_a_clock_that_is_behind_beyond_repair_fails_at_once(self) -> None:
        token = self.authorizer.generate()
        self.agent.clock_offset_s = -_HOUR
        with self.assertRaises(CCTokenVerifyError):
            self.authorizer.verify(self.bound(token, None, patience_s=60.0))

    def test_an_agent_that_is_away_gives_no_verdict(self) -> None:
        token = self.authorizer.generate()
        self.agent.kill()
        with self.assertRaises(VerifyLater):
            self.authorizer.verify(self.bound(token, "0" * 64))

    def test_logs_and_errors_name_codes_and_never_a_token(self) -> None:
        token = self.authorizer.generate()
        self.agent.measurement = "bad"
        bad = self.authorizer.generate()
        with self.assertLogs("flare_cvm", "DEBUG") as logs:
            for attempt in (bad, self.bound(bad, None), token[:-4] + "AAAA", token):
                try:
                    self.authorizer.verify(attempt)
                except CCTokenVerifyError as error:
                    logs.output.append(str(error))
            self.agent.kill()
            with self.assertRaises(CCTokenGenerateError):
                self.authorizer.generate()
        text = "\n".join(logs.output)
        self.assertIn("AGT-033", text)
        self.assertIn("CVM-AGENT-UNAVAILABLE", text)
        for secret in (token, bad):
            self.assertNotIn(secret[40:80], text)

    def test_errors_are_nvflares(self) -> None:
        with self.assertRaises(CCTokenVerifyError):
            self.authorizer.verify("no token")
        for empty in ("", None, b"bytes"):
            with self.assertRaises(CCTokenVerifyError):
                self.authorizer.verify(empty)  # type: ignore[arg-type]
        self.authorizer = CVMAuthorizer(socket=self.agent.socket, tls_cert="/nonexistent")
        with self.assertRaises(CCTokenGenerateError):
            self.authorizer.generate()


class Attacks(AuthorizerTest):
    def refused(self, token: PeerToken) -> str:
        with self.assertRaises(CCTokenVerifyError) as caught:
            self.authorizer.verify(token)
        return str(caught.exception)[:7]

    def test_attack_replayed_token(self) -> None:
        token = self.authorizer.generate()
        self.assertTrue(self.authorizer.verify(self.bound(token, None)))
        self.assertEqual(self.refused(self.bound(token, None)), "AGT-016")

    def test_attack_expired_token(self) -> None:
        token = self.authorizer.generate()
        self.agent.clock_offset_s = _HOUR
        self.assertEqual(self.refused(self.bound(token, None)), "AGT-011")

    def test_attack_token_for_another_challenge(self) -> None:
        asked, other = (self.authorizer.challenge("site-1").challenge for _ in range(2))
        with answering(other, 1.0):
            token = self.authorizer.generate()
        self.assertEqual(self.refused(self.bound(token, asked)), "AGT-014")

    def test_attack_token_without_the_challenge(self) -> None:
        asked = self.authorizer.challenge("site-1").challenge
        self.assertEqual(self.refused(self.bound(self.authorizer.generate(), asked)), "AGT-014")

    def test_attack_challenge_for_another_peer(self) -> None:
        asked = self.authorizer.challenge("site-2").challenge
        with answering(asked, 1.0):
            token = self.authorizer.generate()
        self.assertEqual(self.refused(self.bound(token, asked)), "AGT-015")

    def test_attack_token_of_another_certificate(self) -> None:
        other = pki.project().issue("site-1")
        token = CVMAuthorizer(socket=self.agent.socket, tls_cert=str(other.cert_file)).generate()
        self.assertNotEqual(
            other.cert.public_bytes(Encoding.DER), self.site.cert.public_bytes(Encoding.DER)
        )
        self.assertEqual(self.refused(self.bound(token, None)), "AGT-013")

    def test_attack_agent_that_never_answers(self) -> None:
        done = threading.Event()
        self.addCleanup(done.set)
        self.agent.overrides = dict.fromkeys(
            ("generate", "verify"), lambda _connection: done.wait(60)
        )
        authorizer = CVMAuthorizer(
            socket=self.agent.socket, timeout=0.2, tls_cert=str(self.site.cert_file)
        )
        with self.assertRaises(CCTokenGenerateError):
            authorizer.generate()
        with self.assertRaises(VerifyLater):
            authorizer.verify(self.bound("token", None))
        with self.assertRaises(CCTokenVerifyError):
            authorizer.verify("token")


class InNvflaresOwnManager(FederationTest):
    """Without challenges and names, as that manager gives none. It asks as it always does."""

    def test_a_federation_registers_and_validates(self) -> None:
        stock = {"kind": CCManager}
        server, one = self.server(**stock), self.client("site-1", **stock)
        self.start(server, one)
        self.assertEqual(server.clients(), {"site-1"})
        self.assertTrue(server.validate() and one.validate())
        self.assertEqual(self.failures, {})

    def test_evidence_that_does_not_meet_the_policy_shuts_down(self) -> None:
        stock = {"kind": CCManager}
        server, one = self.server(**stock), self.client("site-1", **stock)
        self.start(server, one)
        one.agent.measurement = "bad"
        self.assertFalse(server.validate())
        self.assertEqual(set(self.failures), {"server"})
