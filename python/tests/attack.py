"""What the attack tests share."""

from __future__ import annotations

from typing import Any

from nvflare.app_opt.confidential_computing.cc_manager import CCManager
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellChannelTopic

from .harness import Client, FederationTest

STOCK = {"kind": CCManager}
REGISTER = CellChannelTopic.Register


class AttackTest(FederationTest):
    def change_reply(self, topic: str, change: Any, sender: str = "server") -> None:
        def tamper(source: str, _target: str, on: str, reply: Message) -> Message:
            if on == topic and source == sender:
                change(reply)
            return reply

        self.network.tamper_reply = tamper

    def honest(self) -> None:
        self.network.tamper_reply = lambda _from, _to, _topic, message: message
        self.network.tamper_request = lambda _from, _to, _topic, message: message

    def registers(self, client: Client) -> bool:
        """Whether the client takes the server for one that it may work with."""
        self.failures.pop(client.name, None)
        client.start()
        return bool(client.token) and client.name not in self.failures
