"""Attacks with another's name, token or certificate, and with old answers. One a test; where
NVFLARE's own manager lets one pass, the test shows that first.
"""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

from flare_cvm import CVM_NAMESPACE
from flare_cvm.agent_client import MAX_TOKEN
from flare_cvm.identity import IdentityError, SiteIdentity, fingerprint
from flare_cvm.wire import CC_CERTIFICATES, CC_CHALLENGE, CC_SIGNATURE, authenticated
from nvflare.apis.fl_constant import FLContextKey
from nvflare.app_opt.confidential_computing.cc_manager import (
    CC_CHANNEL,
    CC_INFO,
    CC_NAMESPACE,
    CC_TOKEN,
    CC_TOPIC_REQUEST_TOKEN,
)
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import new_cell_message
from nvflare.private.fed.authenticator import Authenticator

from . import pki
from .attack import REGISTER, STOCK, AttackTest


class Identities(AttackTest):
    """(b) and (d)"""

    def test_attack_peer_that_claims_anothers_name(self) -> None:
        """site-2 has no agent. It passes the question on to site-1, whose answer names site-1 and
        is good.
        """
        for stock in (STOCK, {}):
            server, one, two = (
                self.server(**stock),
                self.client("site-1", **stock),
                self.client("site-2", **stock),
            )
            self.start(server, one, two)
            key = (CC_CHANNEL, CC_TOPIC_REQUEST_TOKEN)
            two.cell.callbacks[key] = one.cell.callbacks[key]
            two.agent.measurement = "bad"
            self.assertIs(server.validate(), bool(stock))
            self.failures.clear()

    def test_attack_another_peers_token(self) -> None:
        """The CVM of site-2 answers for site-1, which signs what it gets with its own, genuine
        key.
        """
        server, one, two = self.server(), self.client("site-1"), self.client("site-2")
        self.start(server, one, two)
        one.authorizer.agent = two.authorizer.agent
        self.assertFalse(server.validate())

    def test_attack_clients_token_in_the_servers_role(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server)
        server.agent.role = "client"
        self.assertFalse(self.registers(one))

    def test_attack_server_without_our_cvm_with_valid_certificates(self) -> None:
        server = self.server()
        server.agent.measurement = "bad"
        server.agent.accepts_any_measurement = True
        self.start(server)
        self.assertFalse(self.registers(self.client("site-1")))
        self.assertTrue(server.validate())

    def test_attack_server_with_another_certificate_of_the_same_name(self) -> None:
        """The project's CA issued it, so NVFLARE's registration accepts it; the CVM's token is for
        the first one.
        """
        server = self.server(pki.project().issue("server1"))
        self.start(server)
        server.authorizer._own_fingerprint = fingerprint(pki.participant("server1").cert)
        self.assertFalse(self.registers(self.client("site-1")))

    def test_attack_registration_under_one_name_with_the_tokens_of_another(self) -> None:
        captured: dict[str, Any] = {}

        def steal(source: str, _target: str, topic: str, request: Message) -> Message:
            if topic == REGISTER:
                context = request.payload.get_peer_context()
                if source == "site-1":
                    captured.update(context.get_prop(CC_INFO))
                    raise ConnectionError("lost on the way")
                context.set_prop(CC_INFO, captured, private=False, sticky=False)
            return request

        self.network.tamper_request = steal
        for stock in (STOCK, {}):
            captured.clear()
            server = self.server(**stock)
            self.start(server, self.client("site-1", **stock))
            two = self.client("site-2", **stock)
            two.agent.measurement = "bad"
            two.start()
            self.assertIs("site-2" in server.clients(), bool(stock))

    def test_attack_registration_with_anothers_name_and_the_own_key(self) -> None:
        """Refused as by NVFLARE, and the federation goes on."""
        server = self.server()
        self.start(server)
        self.assertFalse(self.registers(self.client("site-1", pki.participant("site-2"))))
        self.assertEqual((server.clients(), "server" in self.failures), (set(), False))

    def test_attack_registration_under_another_certificate_than_the_tokens(self) -> None:
        server, one = self.server(), self.client("site-1", pki.project().issue("site-1"))
        self.start(server)
        prepare = one.manager._prepare_registration

        def under_the_other(*args: Any) -> None:
            known, genuine = one.manager._federation, pki.participant("site-1")
            known.__dict__["identity"] = SiteIdentity(self.client_engine(genuine))
            prepare(*args)

        with mock.patch.object(one.manager, "_prepare_registration", under_the_other):
            self.assertFalse(self.registers(one))
        self.assertIn("another certificate", self.failures["server"])

    def test_attack_registration_before_the_server_knows_that_it_is_secure(self) -> None:
        """NVFLARE's server listens before it reads its configuration, and until then asks for no
        certificate.
        """
        for stock in (STOCK, {}):
            server, one = (
                self.server(**stock),
                self.client("site-1", pki.participant("site-2"), **stock),
            )
            server.start()
            insecure = server.engine.new_context()
            insecure.set_prop(FLContextKey.SECURE_MODE, False, private=True, sticky=True)

            with mock.patch.object(
                Authenticator, "_challenge_server", lambda _self: ("nonce", None)
            ):
                one.start()
            self.assertIs("site-1" in server.clients(), bool(stock))

    def client_engine(self, participant: pki.Participant) -> Any:
        client = self.client("site-1", participant)
        fl_ctx = client.engine.new_context()
        fl_ctx.set_prop(FLContextKey.CLIENT_CONFIG, participant.config(), private=True, sticky=True)
        fl_ctx.set_prop(FLContextKey.SECURE_MODE, True, private=True, sticky=True)
        return client.engine


class Challenges(AttackTest):
    """(c)"""

    def test_attack_replayed_answer(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        recorded: list[Message] = []

        def replay(source: str, _target: str, topic: str, reply: Message) -> Message:
            if topic == CC_TOPIC_REQUEST_TOKEN and source == "site-1":
                recorded.append(reply)
                return copy.deepcopy(recorded[0])
            return reply

        self.network.tamper_reply = replay
        self.assertTrue(server.validate())
        self.assertFalse(server.validate())
        self.assertEqual(len(recorded), 2)

    def test_attack_replayed_token_under_a_fresh_signature(self) -> None:
        """site-1 has its TLS key, but no CVM any more: it signs an old token for the new
        challenge.
        """
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        old = one.authorizer.generate()
        with mock.patch.object(one.authorizer, "generate", lambda: old):
            self.assertFalse(server.validate())

    def test_attack_replayed_registration_of_the_server(self) -> None:
        server = self.server()
        self.start(server)
        recorded: list[dict[str, Any]] = []

        def replay(reply: Message) -> None:
            recorded.append(reply.payload[CC_INFO])
            reply.payload[CC_INFO] = recorded[0]

        self.change_reply(REGISTER, replay)
        self.assertTrue(self.registers(self.client("site-1")))
        self.assertFalse(self.registers(self.client("site-1")))

    def test_attack_token_for_another_challenge(self) -> None:
        """A site in the middle puts a challenge of its own, and passes the answer on."""
        server, one = self.server(), self.client("site-1")
        self.start(server, one)

        def own_challenge(_source: str, _target: str, topic: str, request: Message) -> Message:
            if topic == CC_TOPIC_REQUEST_TOKEN:
                request.payload["challenge"] = "0" * 64
            return request

        self.network.tamper_request = own_challenge
        self.assertFalse(server.validate())

    def test_attack_question_without_a_challenge(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        before = one.agent.calls["generate"]
        challenges: list[Any] = [None, "0", "A" * 64, ["0" * 64]]
        payloads: list[Any] = [
            None,
            [],
            {"requester": "x"},
            *({"challenge": challenge} for challenge in challenges),
        ]
        for payload in payloads:
            reply = server.cell.send_request(
                "site-1", CC_CHANNEL, CC_TOPIC_REQUEST_TOKEN, new_cell_message({}, payload)
            )
            self.assertEqual(
                reply.get_header(MessageHeaderKey.RETURN_CODE), ReturnCode.INVALID_REQUEST
            )
        self.assertEqual(one.agent.calls["generate"], before)

    def test_attack_client_that_puts_no_challenge_to_the_server(self) -> None:
        def without(_source: str, _target: str, topic: str, request: Message) -> Message:
            if topic == REGISTER:
                request.payload.get_peer_context().props.pop(CC_CHALLENGE)
            return request

        self.network.tamper_request = without
        server = self.server()
        self.start(server)
        self.assertFalse(self.registers(self.client("site-1")))
        self.assertEqual((server.clients(), "server" in self.failures), (set(), False))

    def test_attack_signature_for_a_token_used_to_register(self) -> None:
        """Who may put a challenge gets a signature over it. It must not pass for a
        registration's.
        """
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        identity = one.manager._federation.identity
        for nonce in ("6a2f0d5e-6c5c-4b57-9d2c-2a4f6f0d8e11", "0" * 64):
            proof = identity.prove(nonce, CVM_NAMESPACE, "token")
            with self.assertRaises(IdentityError):
                identity.authenticate_registration("site-1", nonce, proof)


class Agents(AttackTest):
    def test_attack_agent_killed_mid_request(self) -> None:
        server, one = self.server(peer_deadline_s=0.5), self.client("site-1")
        self.start(server, one)
        server.agent.overrides["verify"] = lambda connection: connection.close()
        self.assertFalse(server.validate())
        self.assertIsNotNone(server.schedule_job())

    def test_attack_agent_that_says_no_evidence_is_needed(self) -> None:
        server, one = self.server(peer_deadline_s=0.5), self.client("site-1")
        self.start(server, one)
        for answer in (
            b'{"ok": true}\n',
            b"{}\n",
            b"true\n",
            b"a" * (2 << 20),
            b'{"ok": true, "verified": 1}\n',
        ):
            with self.subTest(answer=answer[:20]):
                self.failures.clear()
                server.agent.overrides["verify"] = answer
                self.assertFalse(server.validate())
                self.assertIn("server", self.failures)


class MalformedEntries(AttackTest):
    def test_attack_malformed_tokens_of_every_kind(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        identity = one.manager._federation.identity
        proof = identity.prove("0" * 64, CVM_NAMESPACE, "token")
        good = {
            CC_TOKEN: "token",
            CC_NAMESPACE: CVM_NAMESPACE,
            CC_CERTIFICATES: proof.certificates,
            CC_SIGNATURE: proof.signature,
        }
        peer, _ = authenticated([good], "site-1", "client", "0" * 64, identity, 1.0)
        self.assertEqual(peer.name, "site-1")
        bad: list[Any] = [None, "", {}, [], [good] * 2, [good] * 17, [None], ["token"], [[good]]]
        changes: list[dict[str, Any]] = [
            *(
                {CC_TOKEN: token}
                for token in (None, "", 1, ["token"], "a" * (MAX_TOKEN + 1), "\ud800", "tokem")
            ),
            *(
                {CC_NAMESPACE: space}
                for space in (None, "", 1, "x\n", "a" * 101, "x-mock", "\ud800")
            ),
            *({CC_CERTIFICATES: cert} for cert in (None, "", b"", b"-----BEGIN", b"a" * (1 << 20))),
            {CC_CERTIFICATES: pki.participant("site-2").cert_file.read_bytes()},
            *(
                {CC_SIGNATURE: sig}
                for sig in (None, "", b"", b"a", b"a" * (1 << 20), proof.signature[::-1])
            ),
        ]
        bad += [[{**good, **change}] for change in changes]
        for entries in bad:
            with self.subTest(entries=str(entries)[:80]), self.assertRaises(IdentityError):
                authenticated(entries, "site-1", "client", "0" * 64, identity, 1.0)
        for name, role, challenge in (
            ("site-2", "client", "0" * 64),
            ("site-1", "client", "1" * 64),
        ):
            with self.assertRaises(IdentityError):
                authenticated([good], name, role, challenge, identity, 1.0)
        with self.assertRaises(IdentityError):
            authenticated([good], "site-1", "client", None, identity, 1.0)

    def test_attack_malformed_registrations(self) -> None:
        server = self.server()
        self.start(server)
        infos: list[Any] = [
            None,
            [],
            {},
            {"site-1": None},
            {"site-1": []},
            {"site-1": ["x"]},
            {"site-2": []},
            {1: 2},
        ]
        for cc_info in infos:
            with self.subTest(cc_info=cc_info):
                self.failures.clear()
                server.manager._failure = None

                def change(
                    _s: str, _t: str, topic: str, request: Message, cc_info: Any = cc_info
                ) -> Message:
                    if topic == REGISTER:
                        context = request.payload.get_peer_context()
                        context.set_prop(CC_INFO, cc_info, private=False, sticky=False)
                    return request

                self.network.tamper_request = change
                self.assertFalse(self.registers(self.client("site-1")))
                self.assertEqual(server.clients(), set())
