"""Who is registering: the server's view of the request that NVFLARE's event does not show.

NVFLARE fires CLIENT_REGISTER_RECEIVED before it authenticates the client, and gives its handlers
the context that the client wrote, not the request. So the request is remembered for the thread that
handles it, and its proof of identity is checked here first, as NVFLARE does itself a moment later.
"""

from __future__ import annotations

import threading
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_opt.confidential_computing.cc_manager import CC_INFO
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey
from nvflare.private.defs import (
    CellChannel,
    CellChannelTopic,
    CellMessageHeaderKeys,
    ClientRegSession,
    ClientType,
    InternalFLContextKey,
)

from .agent_client import Peer, is_challenge
from .asking import entries_of
from .federation import Federation
from .identity import IdentityError, Proof, SiteIdentity
from .wire import CC_CHALLENGE, Entry


class Registrations:
    """The registration that the current thread handles, if it handles one."""

    def __init__(self) -> None:
        self._current = threading.local()

    def watch(self, engine: Any) -> None:
        """Puts itself around NVFLARE's handler of registrations."""
        register_client = engine.server.register_client

        def register(request: Any) -> Any:
            self._current.request = request
            try:
                return register_client(request)
            finally:
                self._current.__dict__.clear()

        engine.get_cell().register_request_cb(
            channel=CellChannel.SERVER_MAIN, topic=CellChannelTopic.Register, cb=register
        )

    def admit(self, federation: Federation, fl_ctx: FLContext) -> str | None:
        """Raises unless the client proves its name, and that name belongs to the federation.

        Returns the challenge that the client puts to this server; None where it need not put one.
        """
        self._current.federation = federation
        name = self._claimed_name()
        if fl_ctx.get_prop(FLContextKey.CLIENT_TYPE) == ClientType.ADMIN:
            # NVFLARE asks who says to be an admin for no token, and the session that it gives them
            # passes for a client's at the next heartbeat.
            if federation.includes(name):
                raise IdentityError(f"the site {name!r} registers as an admin")
            return None
        peer = self._authenticate(name, federation.identity, fl_ctx)
        if not federation.includes(name):
            raise IdentityError(f"{name!r} is not a site of this federation")
        self._current.peer = peer
        peer_ctx = fl_ctx.get_peer_context()
        challenge = peer_ctx.get_prop(CC_CHALLENGE) if isinstance(peer_ctx, FLContext) else None
        if is_challenge(challenge):
            return str(challenge)
        if federation.attests(name):
            raise IdentityError(f"{name!r} puts no challenge to this server")
        return None

    @property
    def skips_attestation(self) -> bool:
        peer = self._peer()
        return peer is not None and not self._current.federation.attests(peer.name)

    def tokens(self, fl_ctx: FLContext, patience_s: float) -> tuple[str, list[Entry]]:
        """The admitted client's tokens, bound to it. Raises `IdentityError`."""
        peer = self._peer()
        if peer is None:
            raise IdentityError("the client is not authenticated")
        peer_ctx = fl_ctx.get_peer_context()
        entries = entries_of(
            peer_ctx.get_prop(CC_INFO) if isinstance(peer_ctx, FLContext) else None, peer.name
        )
        sender, bound = self._current.federation.authenticated(entries, peer.name, None, patience_s)
        if sender != peer:
            raise IdentityError(
                f"{peer.name!r} registers under another certificate than its tokens'"
            )
        return peer.name, bound

    def _claimed_name(self) -> str:
        request = getattr(self._current, "request", None)
        name = (
            request.get_header(CellMessageHeaderKeys.CLIENT_NAME) if request is not None else None
        )
        if not isinstance(name, str) or not name:
            raise IdentityError("no registration is under way, or it names no client")
        return name

    def _authenticate(self, name: str, identity: SiteIdentity, fl_ctx: FLContext) -> Peer:
        payload, session = (
            self._current.request.payload,
            fl_ctx.get_prop(InternalFLContextKey.CLIENT_REG_SESSION),
        )
        if not isinstance(session, ClientRegSession) or not isinstance(payload, Shareable):
            raise IdentityError(f"{name!r} registers without NVFLARE's challenge")
        certificates, signature = (
            payload.get(IdentityChallengeKey.CERT),
            payload.get(IdentityChallengeKey.SIGNATURE),
        )
        if not isinstance(certificates, bytes) or not isinstance(signature, bytes):
            raise IdentityError(f"{name!r} registers without certificate and signature")
        return identity.authenticate_registration(
            name, session.nonce, Proof(certificates, signature)
        )

    def _peer(self) -> Peer | None:
        """The client whose registration this thread handles, once it is admitted."""
        return getattr(self._current, "peer", None)
