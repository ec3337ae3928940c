"""NVFLARE's authorizer for sealed sites: cvm-agent makes the tokens and judges them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.app_opt.confidential_computing.cc_authorizer import (
    CCAuthorizer,
    CCTokenGenerateError,
    CCTokenVerifyError,
)

from .agent_client import (
    DEFAULT_SOCKET,
    AgentClient,
    AgentError,
    AgentRefused,
    AgentTimeout,
    AgentUnavailable,
    Challenge,
    Peer,
)
from .deadline import Backoff, Deadline
from .identity import certificate_path, fingerprint

CVM_NAMESPACE = "x-flare-cvm"
_T = TypeVar("_T")


class PeerToken(str):
    """A token with what its receiver knows by itself: who sent it, and the open challenge.

    A `str`, so that it passes through NVFLARE's code as one. Never sent: what arrives from a peer
    is a plain `str`.
    """

    peer: Peer
    challenge: str | None
    patience_s: float

    def __new__(cls, token: str, peer: Peer, challenge: str | None, patience_s: float) -> PeerToken:
        bound = super().__new__(cls, token)
        bound.peer, bound.challenge, bound.patience_s = peer, challenge, patience_s
        return bound


class VerifyLater(Exception):
    """There is no verdict yet: the agent is away, or this guest's clock is still slow.

    Raised only for a `PeerToken`: our manager knows what to do then, and NVFLARE's would go on.
    """


@dataclass(frozen=True)
class _Answering:
    challenge: str | None
    patience_s: float


_answering: ContextVar[_Answering | None] = ContextVar("flare_cvm_answering", default=None)


@contextmanager
def answering(challenge: str | None, patience_s: float) -> Iterator[None]:
    """Within it, tokens answer this challenge, which NVFLARE's `generate()` cannot take."""
    reset = _answering.set(_Answering(challenge, patience_s))
    try:
        yield
    finally:
        _answering.reset(reset)


def answered_challenge() -> str | None:
    """The challenge that this thread answers, if it answers one."""
    request = _answering.get()
    return request.challenge if request else None


class CVMAuthorizer(FLComponent, CCAuthorizer):
    """Issuer and verifier in one.

    It works in `CVMManager`, which supplies challenges and peers' names, and in NVFLARE's own
    CCManager, without them.
    """

    def __init__(
        self,
        socket: str = DEFAULT_SOCKET,
        timeout: float = 30.0,
        max_wait_s: float = 20.0,
        tls_cert: str | None = None,
    ) -> None:
        """
        Args:
            socket: the agent's socket.
            timeout: for one exchange with the agent, in seconds.
            max_wait_s: how long to wait where the agent is away, or asks to come back because it
                still starts or this guest's clock is slow. Under NVFLARE's own CCManager it should
                stay below the clients' `maint_msg_timeout` (30 s unless configured), within which
                the server answers a registration.
            tls_cert: this site's certificate (PEM); by default the one in NVFLARE's configuration.
        """
        FLComponent.__init__(self)
        self.agent = AgentClient(socket, timeout)
        self.max_wait_s = max_wait_s
        self._tls_cert = tls_cert
        self._engine: Any = None
        self._own_fingerprint: str | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            self._engine = fl_ctx.get_engine()

    def get_namespace(self) -> str:
        return CVM_NAMESPACE

    def challenge(self, peer: str) -> Challenge:
        """A challenge for one peer, once. Raises `VerifyLater` or CCTokenVerifyError."""
        try:
            return self.agent.challenge(peer)
        except AgentError as error:
            self.logger.warning(f"no challenge for {peer}: {error.code}")
            raise _no_verdict(error) from None

    def generate(self) -> str:
        request = _answering.get() or _Answering(None, self.max_wait_s)
        try:
            own = self._fingerprint()
            issued = self._patiently(
                lambda: self.agent.generate(request.challenge, own), request.patience_s
            )
        except AgentError as error:
            self.logger.error(f"no token: {error}")
            raise CCTokenGenerateError(str(error)) from None
        except Exception as error:
            self.logger.error(f"no token: {error}")
            raise CCTokenGenerateError(f"this site's TLS certificate: {error}") from None
        return issued.token

    def verify(self, token: str) -> bool:
        if not isinstance(token, str) or not token:
            raise CCTokenVerifyError("there is no token")
        if isinstance(token, PeerToken):
            return self._verify_peers(token)
        # NVFLARE's own CCManager says neither whose token this is nor what was asked for: evidence,
        # policy and validity window are all that can be checked.
        try:
            self._patiently(lambda: self.agent.verify(token, None, None), self.max_wait_s)
        except AgentError as error:
            self.logger.error(f"token refused: {error}")
            raise CCTokenVerifyError(str(error)) from None
        return True

    def _verify_peers(self, token: PeerToken) -> bool:
        try:
            verdict = self._patiently(
                lambda: self.agent.verify(str(token), token.peer, token.challenge),
                token.patience_s,
                agent_stays=True,
            )
        except AgentError as error:
            self.logger.error(f"token of {token.peer.name} not accepted: {error}")
            raise _no_verdict(error) from None
        if verdict.not_checked:
            self.logger.warning(
                f"token of {token.peer.name} accepted; not checked: "
                f"{', '.join(verdict.not_checked)}"
            )
        return True

    def _patiently(self, ask: Callable[[], _T], patience_s: float, agent_stays: bool = False) -> _T:
        """Asks until the deadline while the agent is away or says that waiting helps.

        `agent_stays`: an agent that was restarted has forgotten its challenges, so only a new one
        helps.
        """
        deadline, backoff = Deadline(patience_s), Backoff()
        while True:
            try:
                return ask()
            except AgentRefused as error:
                if not error.retry or deadline.over():
                    raise
                pause = backoff.next_pause(deadline)
                if error.wait_s is not None:
                    pause = min(max(pause, error.wait_s), deadline.left())
                self.logger.warning(f"waiting {pause:.1f} s: {error}")
            except AgentUnavailable as error:
                if agent_stays or deadline.over():
                    raise
                pause = backoff.next_pause(deadline)
                self.logger.warning(f"waiting {pause:.1f} s: {error.code}")
            time.sleep(pause)

    def _fingerprint(self) -> str:
        if self._own_fingerprint is None:
            path = self._tls_cert or certificate_path(self._engine)
            self._own_fingerprint = fingerprint(
                x509.load_pem_x509_certificate(Path(path).read_bytes())
            )
        return self._own_fingerprint


def _no_verdict(error: AgentError) -> Exception:
    later = isinstance(error, (AgentUnavailable, AgentTimeout)) or (
        isinstance(error, AgentRefused) and error.retry
    )
    return VerifyLater(str(error)) if later else CCTokenVerifyError(str(error))
