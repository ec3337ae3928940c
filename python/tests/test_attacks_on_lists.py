"""Attacks with names that are on no list, and on lists that lack names. One a test; where NVFLARE's
own manager lets one pass, the test shows that first: the attack is real, and ours is what stops
it.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

from flare_cvm import CVM_NAMESPACE
from nvflare.app_opt.confidential_computing.cc_manager import (
    CC_INFO,
    CC_NAMESPACE,
    CC_TOKEN,
    CC_TOPIC_GET_SITES,
)
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys, ClientType

from .attack import REGISTER, STOCK, AttackTest


class NamesOutsideTheList(AttackTest):
    """(a)"""

    def test_attack_server_that_answers_a_name_outside_the_list(self) -> None:
        self.change_reply(REGISTER, lambda reply: reply.payload.update({CC_INFO: {"x": []}}))
        self.start(self.server(**STOCK))
        self.assertTrue(self.registers(self.client("site-1", **STOCK)), "NVFLARE's own believes it")
        self.start(self.server())
        self.assertFalse(self.registers(self.client("site-1")))

    def test_attack_server_that_answers_nothing(self) -> None:
        """The client's own tokens are still in its context, where NVFLARE's looks for the
        server's.
        """
        self.change_reply(REGISTER, lambda reply: reply.payload.pop(CC_INFO))
        self.start(self.server(**STOCK))
        self.assertTrue(
            self.registers(self.client("site-1", **STOCK)), "NVFLARE's own verifies itself"
        )
        self.start(self.server())
        self.assertFalse(self.registers(self.client("site-1")))

    def test_attack_server_that_reflects_the_clients_tokens(self) -> None:
        captured: dict[str, Any] = {}

        def capture(_source: str, _target: str, topic: str, request: Message) -> Message:
            if topic == REGISTER:
                captured.update(request.payload.get_peer_context().get_prop(CC_INFO))
            return request

        self.network.tamper_request = capture
        for name in ("server", "site-1"):
            self.change_reply(
                REGISTER,
                lambda r, name=name: r.payload.update({CC_INFO: {name: captured["site-1"]}}),
            )
            self.start(self.server())
            self.assertFalse(self.registers(self.client("site-1")))

    def test_attack_server_that_leaves_itself_out_of_the_list(self) -> None:
        def leave_out(reply: Message) -> None:
            reply.payload["sites"] = [
                site for site in reply.payload["sites"] if site[1] != "server"
            ]

        for stock in (STOCK, {}):
            self.honest()
            server, one = self.server(**stock), self.client("site-1", **stock)
            self.start(server, one)
            server.agent.measurement = "bad"
            self.change_reply(CC_TOPIC_GET_SITES, leave_out)
            self.assertIs(one.validate(), bool(stock))

    def test_attack_list_of_sites_that_is_none(self) -> None:
        server, one = self.server(), self.client("site-1", peer_deadline_s=0.2)
        self.start(server, one)
        for sites in (
            [["site-9", "site-9"]],
            [["site-1"]],
            [["site-2", 2]],
            [["site-2", "site-2"]] * 2,
            [["site-2", "site-2"]] * 10_000,
            {"site-1": "site-1"},
            "site-1",
            None,
        ):
            with self.subTest(sites=str(sites)[:40]):
                self.failures.clear()
                self.change_reply(
                    CC_TOPIC_GET_SITES, lambda reply, sites=sites: reply.payload.update(sites=sites)
                )
                self.assertFalse(one.validate())
                self.assertIn("site-1", self.failures)

    def test_attack_client_that_is_on_no_list(self) -> None:
        server = self.server()
        self.start(server)
        self.assertFalse(
            self.registers(self.client("site-9", cc_enabled_sites=["server", "site-9"]))
        )
        self.assertEqual((server.clients(), "server" in self.failures), (set(), False))

    def test_attack_client_that_registers_as_an_admin(self) -> None:
        """NVFLARE asks an admin for no token. It gives one a session, which at a heartbeat becomes
        a client's.
        """

        def as_admin(_source: str, _target: str, topic: str, request: Message) -> Message:
            if topic == REGISTER:
                request.set_header(CellMessageHeaderKeys.CLIENT_TYPE, ClientType.ADMIN)
                request.payload.get_peer_context().props.pop(CC_INFO)
            return request

        self.network.tamper_request = as_admin
        for stock in (STOCK, {}):
            server, one = self.server(**stock), self.client("site-1", **stock)
            self.start(server)
            one.agent.measurement = "bad"
            one.start()
            self.assertIs(bool(one.token), bool(stock))

    def test_attack_client_that_comes_back_with_a_heartbeat(self) -> None:
        """After a restart the server knows no clients, and takes one that shows an old session
        without registration.
        """
        for stock in (STOCK, {}):
            server, one = self.server(**stock), self.client("site-1", **stock)
            self.start(server, one)
            self.assertIsNone(server.schedule_job())
            self.client("site-2", **stock).agent.measurement = "bad"
            server.server.client_manager.heartbeat(
                "session", "site-2", "site-2", server.engine.new_context()
            )
            server.manager.peer_deadline_s = 0.2
            self.assertIs(server.schedule_job() is None, bool(stock))

    def test_attack_stranger_among_the_registered_clients(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        server.server.client_manager.heartbeat(
            "session", "site-9", "site-9", server.engine.new_context()
        )
        self.assertIn("site-9", server.schedule_job() or "")

    def test_attack_site_with_a_good_token_of_another_kind_only(self) -> None:
        server, one = self.server(), self.client("site-1")
        self.start(server, one)
        server.manager.cc_verifiers["x-mock"] = mock.Mock(verify=lambda _token: True)
        for entry in (
            {CC_TOKEN: "t", CC_NAMESPACE: "x-mock"},
            # good, but bound to nobody
            {CC_TOKEN: one.authorizer.generate(), CC_NAMESPACE: CVM_NAMESPACE},
            {CC_TOKEN: one.authorizer.generate().encode(), CC_NAMESPACE: CVM_NAMESPACE},
        ):
            _, invalid = server.manager._verify_participants_tokens({"site-1": [entry]})
            self.assertIn("no bound token", invalid[-1])
