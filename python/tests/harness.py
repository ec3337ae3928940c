"""A federation in one process, of NVFLARE's own server, registration and event code. Only cells are
ours: they pass messages, serialized by NVFLARE, from one to another in new threads.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from flare_cvm import CVMAuthorizer, CVMManager
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.apis.workspace import Workspace
from nvflare.app_opt.confidential_computing.cc_manager import CCManager
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.fuel.utils import fobs
from nvflare.private.fed.client import communicator
from nvflare.private.fed.server.fed_server import FederatedServer
from nvflare.private.fed.server.run_manager import RunManager
from nvflare.private.fed.server.server_state import HotState

from . import pki
from .fake_agent import FakeAgent

flare_decomposers.register()  # as NVFLARE's processes do before they talk
SITES = ("server", "site-1", "site-2")
# What travels may be changed on the way: (from, to, topic, message) → message, or None for "lost".
Tamper = Callable[[str, str, str, Message], Message | None]


class Network:
    def __init__(self) -> None:
        self.cells: dict[str, Cell] = {}
        self.tamper_request: Tamper = lambda _from, _to, _topic, message: message
        self.tamper_reply: Tamper = lambda _from, _to, _topic, message: message


class Cell:
    def __init__(self, network: Network, fqcn: str) -> None:
        self.network, self.fqcn = network, fqcn
        self.callbacks: dict[tuple[str, str], Callable[[Message], Any]] = {}
        network.cells[fqcn] = self

    def get_fqcn(self) -> str:
        return self.fqcn

    def register_request_cb(self, channel: str, topic: str, cb: Callable[[Message], Any]) -> None:
        self.callbacks[channel, topic] = cb

    def send_request(
        self,
        target: str,
        channel: str,
        topic: str,
        request: Message,
        timeout: float = 10.0,
        optional: bool = False,
    ) -> Message:
        del optional
        sent = self.network.tamper_request(self.fqcn, target, topic, travelled(request))
        cell = self.network.cells.get(target)
        callback = cell.callbacks.get((channel, topic)) if cell else None
        if sent is None or callback is None:
            return make_reply(ReturnCode.TARGET_UNREACHABLE)
        sent.add_headers({MessageHeaderKey.ORIGIN: self.fqcn, MessageHeaderKey.DESTINATION: target})
        replies: list[Message] = []
        handler = threading.Thread(target=lambda: replies.append(callback(sent)), daemon=True)
        handler.start()
        handler.join(timeout)
        reply = (
            self.network.tamper_reply(target, self.fqcn, topic, travelled(replies[0]))
            if replies
            else None
        )
        return reply or make_reply(ReturnCode.TIMEOUT)


def travelled(message: Message) -> Message:
    payload = None if message.payload is None else fobs.loads(fobs.dumps(message.payload))
    return Message(copy.deepcopy(message.headers), payload)


class Site:
    """What a server and a client have in common here: an agent, an authorizer and a CC manager."""

    def __init__(
        self, name: str, role: str, participant: pki.Participant, manager: dict[str, Any]
    ) -> None:
        self.agent = FakeAgent(name, role)
        self.participant = participant
        self.authorizer = CVMAuthorizer(socket=self.agent.socket, timeout=50.0, max_wait_s=2.0)
        kind = manager.pop("kind", CVMManager)
        self.manager = kind(
            cc_issuers_conf=[{"issuer_id": "cvm_authorizer", "token_expiration": 300}],
            cc_verifier_ids=["cvm_authorizer"],
            **{"cc_enabled_sites": list(SITES), "get_token_request_timeout": 5.0, **manager},
        )
        self.components = {"cvm_authorizer": self.authorizer, "cc_manager": self.manager}
        self.handlers = [self.authorizer, self.manager]
        self.engine: Any = None

    def fire(self, event: str, **props: Any) -> FLContext:
        fl_ctx = self.engine.new_context()
        for key, value in props.items():
            fl_ctx.set_prop(key, value, private=True, sticky=False)
        self.engine.fire_event(event, fl_ctx)
        return fl_ctx

    def validate(self) -> bool:
        with self.manager.lock:
            return bool(self.manager._perform_cross_site_validation(self.engine.new_context()))

    def close(self) -> None:
        self.fire(EventType.SYSTEM_END)
        self.agent.close()


class Server(Site):
    def __init__(self, network: Network, participant: pki.Participant, **manager: Any) -> None:
        super().__init__(participant.name, "server", participant, manager)
        self._folder = tempfile.TemporaryDirectory(prefix="server-")
        for folder in ("startup", "local"):
            (Path(self._folder.name) / folder).mkdir()
        args = SimpleNamespace(workspace=self._folder.name, set=[], config_folder="config")
        self.server = FederatedServer(project_name="p", args=args, secure_train=True)
        self.engine = self.server.engine
        self.cell = Cell(network, "server")
        self.server.cell = self.engine.cell = self.cell
        self.engine.set_run_manager(
            RunManager(
                "server",
                self.engine,
                "",
                Workspace(self._folder.name, "server"),
                self.components,
                None,
                [],
            )
        )
        self.engine.run_manager.handlers = self.handlers
        self.server.server_state = HotState(host="localhost", port="8002")
        self.server._register_cellnet_cbs()

    def start(self) -> None:
        """In NVFLARE's order: the configuration is known only after the components have started."""
        self.fire(EventType.SYSTEM_BOOTSTRAP)
        self.fire(EventType.SYSTEM_START)
        self.configure()

    def configure(self) -> None:
        fl_ctx = self.engine.new_context()
        fl_ctx.set_prop(
            FLContextKey.SERVER_CONFIG, [self.participant.config()], private=True, sticky=True
        )
        fl_ctx.set_prop(FLContextKey.SECURE_MODE, True, private=True, sticky=True)

    def schedule_job(self) -> str | None:
        """Why NVFLARE's scheduler would not schedule a job now; None where it would."""
        reason: str | None = self.fire(EventType.BEFORE_CHECK_CLIENT_RESOURCES).get_prop(
            FLContextKey.JOB_BLOCK_REASON
        )
        return reason

    def clients(self) -> set[str]:
        return {client.name for client in self.engine.get_clients()}

    def close(self) -> None:
        super().close()
        self.server.shutdown = True
        self._folder.cleanup()


class ClientEngine:
    def __init__(
        self, name: str, cell: Cell, components: dict[str, Any], handlers: list[Any]
    ) -> None:
        self.contexts = FLContextManager(engine=self, identity_name=name)
        self.cell, self.components, self.handlers = cell, components, handlers

    def new_context(self) -> FLContext:
        return self.contexts.new_context()

    def get_cell(self) -> Cell:
        return self.cell

    def get_component(self, name: str) -> Any:
        return self.components.get(name)

    def fire_event(self, event: str, fl_ctx: FLContext) -> None:
        fire_event_to_components(event, self.handlers, fl_ctx)


class Client(Site):
    def __init__(
        self, network: Network, participant: pki.Participant, name: str = "", **manager: Any
    ) -> None:
        self.name = name or participant.name
        super().__init__(self.name, "client", participant, manager)
        self.cell = Cell(network, self.name)
        self.engine = ClientEngine(self.name, self.cell, self.components, self.handlers)

    def start(self) -> None:
        """As client_train.py does: three events around NVFLARE's own registration, then
        SYSTEM_START.
        """
        fl_ctx = self.engine.new_context()
        config = {"client_name": self.name, **self.participant.config()}
        fl_ctx.set_prop(FLContextKey.CLIENT_CONFIG, config, private=True, sticky=True)
        fl_ctx.set_prop(
            FLContextKey.SERVER_CONFIG, [{"identity": "server1"}], private=True, sticky=True
        )
        fl_ctx.set_prop(FLContextKey.SECURE_MODE, True, private=True, sticky=True)
        self.engine.fire_event(EventType.SYSTEM_BOOTSTRAP, fl_ctx)
        self.register(fl_ctx)
        self.fire(EventType.SYSTEM_START)

    def register(self, fl_ctx: FLContext) -> None:
        link = communicator.Communicator(
            client_config={"client_name": self.name}, secure_train=True, cell=self.cell
        )
        self.engine.fire_event(EventType.BEFORE_CLIENT_REGISTER, fl_ctx)
        token = None
        # as NVFLARE's FederatedClient does: the client ends after the event
        with contextlib.suppress(Exception):
            token, _, _ = link.client_registration(self.name, "p", fl_ctx)
        fl_ctx.set_prop(FLContextKey.CLIENT_TOKEN, token)
        self.token = token
        self.engine.fire_event(EventType.AFTER_CLIENT_REGISTER, fl_ctx)


class FederationTest(unittest.TestCase):
    """A server and clients that can be started. `failures` holds what each site's manager shut down
    for.
    """

    def setUp(self) -> None:
        self.network = Network()
        self.failures: dict[str, str] = {}

        def shut_down(manager: CCManager, reason: str, _fl_ctx: FLContext) -> None:
            self.failures.setdefault(manager.site_name or "?", reason)

        # The process ends here in NVFLARE.
        self.enterContext(mock.patch.object(CCManager, "_shutdown_system", shut_down))
        # Adds NVFLARE's session to messages; wants NVFLARE's own cells.
        self.enterContext(mock.patch.object(communicator, "set_add_auth_headers_filters"))
        self.enterContext(mock.patch("traceback.print_exc"))

    def server(self, participant: pki.Participant | None = None, **manager: Any) -> Server:
        server = Server(self.network, participant or pki.participant("server1"), **manager)
        self.addCleanup(server.close)
        return server

    def client(
        self, name: str, participant: pki.Participant | None = None, **manager: Any
    ) -> Client:
        client = Client(self.network, participant or pki.participant(name), name, **manager)
        self.addCleanup(client.close)
        return client

    def eventually(self, condition: Callable[[], bool]) -> None:
        for _ in range(600):
            if condition():
                return
            time.sleep(0.1)
        self.fail("it did not happen within a minute")

    def start(self, *sites: Site) -> None:
        for site in sites:
            site.start()  # type: ignore[attr-defined]
