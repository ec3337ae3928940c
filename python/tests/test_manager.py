"""The hardened manager in an honest federation: what it keeps of NVFLARE's, and what it does better
when sites start, stall and come back.
"""

from __future__ import annotations

import threading
from pathlib import Path
from unittest import mock

from flare_cvm import manager as manager_module
from nvflare.apis.app_validation import AppValidationKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.app_opt.confidential_computing.cc_authorizer import CCAuthorizer
from nvflare.app_opt.confidential_computing.cc_manager import (
    CC_CHANNEL,
    CC_TOPIC_GET_SITES,
    CC_TOPIC_REQUEST_TOKEN,
    CCManager,
)
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import new_cell_message

from .harness import Client, FederationTest, Server


class HonestFederation(FederationTest):
    def test_all_sites_register_and_validate_each_other(self) -> None:
        server, one, two = self.server(), self.client("site-1"), self.client("site-2")
        self.start(server, one, two)
        self.assertEqual(server.clients(), {"site-1", "site-2"})
        self.assertTrue(server.validate() and one.validate() and two.validate())
        self.assertIsNone(server.schedule_job())
        self.assertEqual(self.failures, {})

    def test_each_asked_peer_gets_a_challenge_of_its_own(self) -> None:
        server, one, two = self.server(), self.client("site-1"), self.client("site-2")
        self.start(server, one, two)
        server.agent.requests.clear()
        self.assertTrue(server.validate())
        asked = [
            request["peer"] for request in server.agent.requests if request["op"] == "challenge"
        ]
        self.assertEqual(sorted(asked), ["server1", "site-1", "site-2"])
        verified = [request for request in server.agent.requests if request["op"] == "verify"]
        self.assertEqual(len({request["challenge"] for request in verified}), 3)
        self.assertEqual(
            {request["peer"]["name"] for request in verified}, {"server1", "site-1", "site-2"}
        )
        self.assertTrue(all(request["peer"]["tls_cert_sha256"] for request in verified))

    def test_the_server_challenges_a_client_before_the_next_job(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        self.assertIsNone(server.schedule_job())
        before = one.agent.calls["generate"]
        self.assertIsNone(server.schedule_job())
        self.assertEqual(one.agent.calls["generate"], before)  # nobody new
        self.start(self.client("site-2"))
        self.assertIsNone(server.schedule_job())
        self.assertGreater(one.agent.calls["generate"], before)

    def test_an_unattested_site_takes_part_where_it_is_named(self) -> None:
        server, one = self.server(unattested_sites=["site-9"]), self.client("site-1")
        plain = self.client("site-9", cc_enabled_sites=[], unattested_sites=["site-9", "server"])
        self.start(server, one, plain)
        self.assertEqual(server.clients(), {"site-1", "site-9"})
        self.assertTrue(server.validate() and one.validate())
        self.assertEqual(plain.agent.calls["verify"], 0)
        self.assertIsNone(server.schedule_job())

    def test_other_authorizers_work_beside_ours(self) -> None:
        server, one = self.server(), self.client("site-1")
        for site in (server, one):
            add_authorizer(site, Bytes())
        self.start(server, one)
        self.assertTrue(server.validate() and one.validate())
        self.assertEqual(self.failures, {})

    def test_the_periodic_check_finds_evidence_that_stops_meeting_the_policy(self) -> None:
        server, one = self.server(verify_frequency=1), self.client("site-1", verify_frequency=1)
        self.start(server, one)
        one.agent.measurement = "bad"
        self.eventually(lambda: set(self.failures) == {"server", "site-1"})
        self.assertIn("site-1", self.failures["server"])


class KeptFromNvflare(FederationTest):
    def test_a_byoc_job_is_blocked(self) -> None:
        server = self.server()
        self.start(server)
        blocked = server.fire(
            EventType.SUBMIT_JOB, **{FLContextKey.JOB_META: {AppValidationKey.BYOC: True}}
        )
        self.assertIn("BYOC", blocked.get_prop(FLContextKey.JOB_BLOCK_REASON))
        allowed = server.fire(
            EventType.SUBMIT_JOB, **{FLContextKey.JOB_META: {AppValidationKey.BYOC: False}}
        )
        self.assertIsNone(allowed.get_prop(FLContextKey.JOB_BLOCK_REASON))

    def test_a_failure_shuts_the_site_down_and_blocks_jobs_meanwhile(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        one.agent.measurement = "bad"
        self.assertIn("site-1", server.schedule_job() or "")
        self.assertIn("Cross-site validation failed", self.failures["server"])
        self.start(self.client("site-2"))
        self.assertEqual(server.clients(), {"site-1"})

    def test_nvflares_last_resort_ends_the_process_and_not_a_thread(self) -> None:
        server = self.server()
        self.start(server)
        with (
            mock.patch.object(CCManager, "_shutdown_system", side_effect=SystemExit(1)),
            mock.patch("os._exit") as leave,
        ):
            server.manager._shutdown_system("test", server.engine.new_context())
        leave.assert_called_once_with(1)

    def test_a_wrong_answer_keeps_the_site_down_and_silence_does_not(self) -> None:
        for measurement, stays_down in (("good", False), ("bad", True)):
            with self.subTest(measurement=measurement):
                server, one = self.server(peer_deadline_s=0.5), self.client("site-1")
                self.start(server, one)
                one.agent.measurement = measurement
                if not stays_down:
                    one.cell.callbacks.clear()
                self.assertFalse(server.validate())
                self.assertEqual(
                    (Path(server.engine.args.workspace) / "shutdown.fl").exists(), stays_down
                )

    def test_a_configuration_without_the_server_or_the_site_is_refused(self) -> None:
        for sites in (["site-1"], ["server"], []):
            with self.subTest(sites=sites):
                self.failures.clear()
                self.client("site-1", cc_enabled_sites=sites).fire(EventType.SYSTEM_BOOTSTRAP)
                self.assertIn("cc_enabled_sites", self.failures["site-1"])


class StartsAndStalls(FederationTest):
    """(e) and (f): nobody is an attacker for being late."""

    def test_a_server_that_validates_before_its_configuration_is_known_waits_for_it(self) -> None:
        server = self.server()
        server.fire(EventType.SYSTEM_BOOTSTRAP)
        server.fire(EventType.SYSTEM_START)
        later = threading.Timer(0.5, server.configure)
        later.start()
        self.assertTrue(server.validate())
        later.join()
        self.assertEqual(self.failures, {})

    def test_a_server_that_validates_between_two_steps_of_its_configuration_waits_for_the_second(
        self,
    ) -> None:
        """server_train.py tells the addresses, and then whether it is secure."""
        server = self.server()
        server.fire(EventType.SYSTEM_BOOTSTRAP)
        server.fire(EventType.SYSTEM_START)
        fl_ctx = server.engine.new_context()
        fl_ctx.set_prop(
            FLContextKey.SERVER_CONFIG, [server.participant.config()], private=True, sticky=True
        )
        later = threading.Timer(0.5, server.configure)
        later.start()
        self.assertTrue(server.validate())
        later.join()
        self.assertEqual(self.failures, {})

    def test_a_client_whose_handler_is_not_there_yet_is_asked_again(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        handler = one.cell.callbacks.pop((CC_CHANNEL, CC_TOPIC_REQUEST_TOKEN))
        back = threading.Timer(
            0.5, one.cell.register_request_cb, (CC_CHANNEL, CC_TOPIC_REQUEST_TOKEN, handler)
        )
        back.start()
        self.assertTrue(server.validate())
        self.assertEqual(self.failures, {})

    def test_a_client_that_never_answers_fails_at_the_deadline(self) -> None:
        server, one = self.server(peer_deadline_s=0.5), self.client("site-1")
        self.start(server, one)
        one.cell.callbacks.clear()
        self.assertFalse(server.validate())
        self.assertIn("site-1", self.failures["server"])

    def test_a_client_that_leaves_is_not_waited_for(self) -> None:
        server, one, two = self.server(), self.client("site-1"), self.client("site-2")
        self.start(server, one, two)
        two.cell.callbacks.clear()
        threading.Timer(0.5, server.server.client_manager.remove_client, (two.token,)).start()
        self.assertTrue(server.validate())

    def test_an_agent_that_restarts_during_a_validation(self) -> None:
        """It has forgotten the challenge that it issued: a new one is put, and nobody shut down."""
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        restarted: list[threading.Timer] = []

        def restart(_from: str, _to: str, topic: str, reply: Message) -> Message:
            if topic == CC_TOPIC_REQUEST_TOKEN and not restarted:
                server.agent.kill()
                restarted.append(threading.Timer(0.5, server.agent.start))
                restarted[0].start()
            return reply

        self.network.tamper_reply = restart
        self.assertTrue(server.validate())
        self.assertTrue(restarted)

    def test_shutting_down_ends_a_validation_that_waits_without_failing_it(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        one.cell.callbacks.clear()
        threading.Timer(0.5, server.manager.cross_validation_stop_event.set).start()
        self.assertFalse(server.validate())
        self.assertEqual(self.failures, {})

    def test_a_slow_clock_at_a_registration_and_at_a_validation(self) -> None:
        server, one = self.server(), self.client("site-1")
        server.agent.clock_offset_s = -server.agent.leeway_s - 0.5
        with self.assertLogs("flare_cvm", "WARNING") as logs:
            self.start(server, one)
            self.assertEqual(server.clients(), {"site-1"})
            self.assertTrue(server.validate())
        self.assertIn("AGT-010", "\n".join(logs.output))
        self.assertEqual(self.failures, {})

    def test_a_clock_too_slow_for_a_registration_refuses_it_and_ends_nothing(self) -> None:
        server, one = self.server(), self.client("site-1")
        server.agent.clock_offset_s = -30.0
        with mock.patch.object(manager_module, "_REGISTRATION_WAIT_S", 0.3):
            self.start(server, one)
        self.assertEqual((server.clients(), self.failures), (set(), {}))
        server.agent.clock_offset_s = 0.0
        self.start(self.client("site-1"))
        self.assertEqual(server.clients(), {"site-1"})

    def test_a_failure_to_answer_is_answered(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        one.agent.kill()
        one.manager.get_token_request_timeout = 0.2
        server.server.client_manager.heartbeat(
            "session", "site-9", "site-9", server.engine.new_context()
        )
        for cell, target, topic in (
            (server.cell, "site-1", CC_TOPIC_REQUEST_TOKEN),
            (one.cell, "server", CC_TOPIC_GET_SITES),
        ):
            reply = cell.send_request(
                target, CC_CHANNEL, topic, new_cell_message({}, {"challenge": "0" * 64})
            )
            self.assertEqual(
                reply.get_header(MessageHeaderKey.RETURN_CODE), ReturnCode.PROCESS_EXCEPTION
            )

    def test_a_client_without_an_agent_stays_away(self) -> None:
        server, one = self.server(), self.client("site-1", peer_deadline_s=0.3)
        one.agent.kill()
        self.start(server, one)
        self.assertEqual(set(self.failures), {"site-1"})
        self.assertEqual(server.clients(), set())

    def test_a_client_whose_agent_starts_late_registers(self) -> None:
        server, one = self.server(), self.client("site-1")
        one.agent.kill()
        threading.Timer(0.5, one.agent.start).start()
        self.start(server, one)
        self.assertEqual((server.clients(), self.failures), ({"site-1"}, {}))

    def test_a_registration_before_the_server_has_started_is_refused(self) -> None:
        server, one = self.server(), self.client("site-1")
        one.start()
        self.assertEqual(server.clients(), set())
        server.start()
        self.start(self.client("site-1"))
        self.assertEqual(server.clients(), {"site-1"})


class Bytes(CCAuthorizer):
    """Like NVFLARE's SNPAuthorizer, whose tokens are bytes."""

    def get_namespace(self) -> str:
        return "x-bytes"

    def generate(self) -> bytes:
        return b"report"

    def verify(self, token: bytes) -> bool:
        return token == b"report"


def add_authorizer(site: Server | Client, authorizer: CCAuthorizer) -> None:
    name = authorizer.get_namespace()
    site.components[name] = authorizer
    site.manager.cc_issuers_conf.append({"issuer_id": name, "token_expiration": 300})
    site.manager.cc_verifier_ids.append(name)
