"""NVFLARE's CC manager, hardened.

Events, frequencies and what a failure does are NVFLARE's. What counts as a failure is ours.

The weaknesses of NVFLARE's own, and where each is closed:

(a) A name outside `cc_enabled_sites` counts as valid, so a server without a TEE that answers `{"x":
    []}` passes; so does one that sends nothing, because the client then finds its own tokens; so
    does one whose list of sites leaves itself out. Closed in `_verify_participants_tokens`,
    `_validate_server_tokens`, `_sites`, `_get_all_sites`.
(b) A site's reply carries its own name, and that is believed. Closed in `_ask`,
    `_validate_client_tokens`: the name is the one that was asked for, or that NVFLARE authenticates
    at the registration, and the peer's TLS key proves it.
(c) The attester picks the nonce. Closed in `_ask`, `_prepare_registration` and
    `_validate_before_job`: the verifier's agent issues one challenge per peer and question. A
    client's first token is the exception (its server cannot send anything before it), so the server
    puts a challenge to every new client before the next job is scheduled.
(d) A token is bound to nothing. Closed by `CVMAuthorizer`: site, role, TLS certificate and validity
    window are in it and are compared with the identity of (b).
(e) A slow clock makes fresh tokens fail. Closed in `CVMAuthorizer`: it waits, within
    bounds, and logs.
(f) The first question that is not answered ends the federation. Closed in `_validate_sites`: until
    a deadline, with jitter. A wrong answer ends it at once.
(g) A client that ends for a wrong answer is started again by what started it. Closed in
    `_shutdown_system`: it stays down, as after an admin's `shutdown`. Silence accuses nobody: such
    a client starts again, and attests anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import NotAuthenticated
from nvflare.app_opt.confidential_computing.cc_manager import (
    CC_INFO,
    CC_NAMESPACE,
    CC_TOKEN,
    CCManager,
)
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import ReturnCode

from .agent_client import is_challenge
from .asking import Unanswered, ask_until, challenge_in, entries_of, replied
from .authorizer import CVM_NAMESPACE, PeerToken, VerifyLater, answered_challenge, answering
from .deadline import Deadline
from .federation import Federation
from .identity import SERVER, IdentityError, NotConfigured
from .registration import Registrations
from .wire import CC_CHALLENGE, Entry, signed

# NVFLARE's scripts, and nvflare.service, start nothing where this file lies in the workspace.
_SHUT_DOWN = "shutdown.fl"
# A client waits for the reply to its registration for its `maint_msg_timeout`, 30 s unless
# configured.
_REGISTRATION_WAIT_S = 20.0


class _Stopping(Exception):
    """NVFLARE is shutting this site down: there is nothing to validate any more."""


class CVMManager(CCManager):
    """Drop-in for NVFLARE's `CCManager`, with two more arguments; see the module's text."""

    def __init__(
        self,
        cc_issuers_conf: list[dict[str, Any]],
        cc_verifier_ids: list[str],
        verify_frequency: int = 600,
        cc_enabled_sites: Sequence[str] = (),
        get_site_request_timeout: float = 30.0,
        get_token_request_timeout: float = 30.0,
        unattested_sites: Sequence[str] = (),
        peer_deadline_s: float | None = None,
    ) -> None:
        """
        Args:
            unattested_sites: sites that may take part without attestation. Any name that is neither
                here nor in `cc_enabled_sites` is refused.
            peer_deadline_s: how long a site is asked again before its silence counts as a failure:
                half of `verify_frequency`, or a minute if that is longer; at most
                `verify_frequency` counts.

        The others are NVFLARE's, with longer defaults: a site that starts a job is busy, not false.
        The server's name in `cc_enabled_sites` is `server`.
        """
        super().__init__(
            cc_issuers_conf=cc_issuers_conf,
            cc_verifier_ids=cc_verifier_ids,
            verify_frequency=verify_frequency,
            cc_enabled_sites=list(cc_enabled_sites),
            get_site_request_timeout=get_site_request_timeout,
            get_token_request_timeout=get_token_request_timeout,
        )
        self.unattested_sites = frozenset(unattested_sites)
        patience = max(60.0, verify_frequency / 2) if peer_deadline_s is None else peer_deadline_s
        self.peer_deadline_s = min(patience, float(verify_frequency))
        self._registrations = Registrations()
        self._federation: Federation | None = None
        self._server_challenge: str | None = None
        self._validated_clients: set[str] = set()
        self._failure: str | None = None
        self._silence = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """NVFLARE's handling, with what has to happen around it.

        NVFLARE logs an exception of a handler and goes on. Where going on would let somebody in,
        the exception is turned into what NVFLARE heeds: a shutdown, `NotAuthenticated`, or a
        blocked job.
        """
        if event_type == EventType.CLIENT_REGISTER_RECEIVED:
            self._receive_registration(event_type, fl_ctx)
        elif event_type == EventType.BEFORE_CLIENT_REGISTER:
            self._or_shut_down(fl_ctx, self._prepare_registration, event_type, fl_ctx)
        elif event_type == EventType.BEFORE_CHECK_CLIENT_RESOURCES:
            self._validate_before_job(event_type, fl_ctx)
        else:
            super().handle_event(event_type, fl_ctx)
            if event_type == EventType.SYSTEM_BOOTSTRAP:
                self._or_shut_down(fl_ctx, self._start)

    def _start(self) -> None:
        if self._failure is not None:
            return
        self._federation = Federation(
            self.engine,
            self.site_name,
            self.cc_enabled_sites,
            self.unattested_sites,
            self.cc_verifiers,
        )
        if CVM_NAMESPACE not in self.cc_verifiers:
            self.logger.warning(
                "no CVMAuthorizer among cc_verifier_ids: "
                "tokens are signed by their sites, but not bound to them"
            )
        if self._federation.is_server:
            self._registrations.watch(self.engine)

    def _prepare_registration(self, event_type: str, fl_ctx: FLContext) -> None:
        """(c) The client asks the server: NVFLARE carries a public property of the context to it.

        (f) A client whose agent cannot make a token stays away. NVFLARE's would register without,
            and the server would
        shut the federation down.
        """
        with answering(None, self.peer_deadline_s):
            super().handle_event(event_type, fl_ctx)
        if not any((fl_ctx.get_prop(CC_INFO) or {}).values()):
            raise RuntimeError("this site has no token to register with")
        self._server_challenge = self._known().challenge_patiently(
            SERVER, Deadline(self.peer_deadline_s)
        )
        fl_ctx.set_prop(CC_CHALLENGE, self._server_challenge, private=False, sticky=False)

    def _validate_server_tokens(self, fl_ctx: FLContext) -> None:
        """(a) The server's tokens and nothing else: a reply without any leaves this client's own in
        the context.

        (b), (c) They come under the server's certificate, in answer to this client's challenge.
        """
        if not fl_ctx.get_prop(FLContextKey.CLIENT_TOKEN):
            # NVFLARE ends the client for it, so there is nobody to trust
            self.logger.error("registration failed")
            return
        if SERVER in self.unattested_sites:
            return
        self._or_shut_down(fl_ctx, self._validate_server, fl_ctx)

    def _validate_server(self, fl_ctx: FLContext) -> None:
        entries = entries_of(fl_ctx.get_prop(CC_INFO), SERVER)
        challenge, self._server_challenge = self._server_challenge, None
        if challenge is None:
            raise IdentityError("the server was asked nothing")
        _, bound = self._known().authenticated(entries, SERVER, challenge, self.peer_deadline_s)
        self._validate_cc_infos({SERVER: bound}, fl_ctx)

    def _receive_registration(self, event_type: str, fl_ctx: FLContext) -> None:
        """(b) Knows who registers before NVFLARE's handling starts. Refuses whom NVFLARE would
        refuse as well, without ending the federation for it: everybody who can connect can get
        here.
        """
        try:
            challenge = self._registrations.admit(self._known(), fl_ctx)
            with answering(challenge, _REGISTRATION_WAIT_S):
                super().handle_event(event_type, fl_ctx)
            if challenge and not any((fl_ctx.get_prop(CC_INFO) or {}).values()):
                raise IdentityError("this server has no token to answer with")
        except Exception as error:
            self.logger.error(f"registration refused: {error}")
            raise NotAuthenticated(str(error)) from None
        if self._failure is not None:
            raise NotAuthenticated(self._failure)

    def _validate_client_tokens(self, fl_ctx: FLContext) -> None:
        """(b) The tokens of the client that NVFLARE is about to authenticate, under the certificate
        that it registers with; not those of the name that its context carries.
        """
        if self._registrations.skips_attestation:
            return
        try:
            name, bound = self._registrations.tokens(fl_ctx, _REGISTRATION_WAIT_S)
        except IdentityError as error:
            self._fail("CC info validation failed", error, fl_ctx)
        else:
            self._validate_cc_infos({name: bound}, fl_ctx)

    def _validate_before_job(self, event_type: str, fl_ctx: FLContext) -> None:
        """(c) NVFLARE validates before the first job only. Clients join later, and some without a
        registration: a server that restarted takes them back at their next heartbeat. So: before a
        job whenever there is a new one.
        """
        reason = "not all clients are attested"
        try:
            self.cross_validation_run_once = self._known().sessions() <= self._validated_clients
            super().handle_event(event_type, fl_ctx)
            if self._failure is None and self._known().sessions() <= self._validated_clients:
                reason = ""
        finally:
            if reason:
                fl_ctx.set_prop(
                    FLContextKey.JOB_BLOCK_REASON,
                    self._failure or reason,
                    private=True,
                    sticky=False,
                )

    def _perform_cross_site_validation(self, fl_ctx: FLContext) -> bool:
        clients = self._known().sessions()
        try:
            self._validate_sites(fl_ctx)
        except _Stopping:
            return False
        except Exception as error:
            self._fail("Cross-site validation failed", error, fl_ctx)
            return False
        self._validated_clients = clients
        self.logger.info("Cross-site validation passed")
        return True

    def _validate_sites(self, fl_ctx: FLContext) -> None:
        """(f) Until a deadline. (c) Each question is a new challenge, and each answer is judged at
        once, before its challenge can expire.
        """
        deadline = Deadline(self.peer_deadline_s)

        def judge(name: str, cell: str) -> None:
            try:
                tokens = self._ask(name, cell, deadline)
            # NVFLARE's server starts its components before it configures them
            except NotConfigured as error:
                raise Unanswered(str(error)) from None
            failure = self._validate_participants_tokens({name: tokens})
            if failure:
                raise IdentityError(failure)

        def pause(waiting: dict[str, Exception], seconds: float) -> None:
            self.logger.warning(
                f"asking again: {', '.join(f'{name} ({why})' for name, why in waiting.items())}"
            )
            if self.cross_validation_stop_event.wait(seconds):
                raise _Stopping

        ask_until(deadline, lambda: self._sites(fl_ctx), judge, pause)

    def _sites(self, fl_ctx: FLContext) -> dict[str, str]:
        """(a) On a client the server's list, to which the server itself always belongs, whatever it
        says.
        """
        if self._known().is_server:
            return self._known().cells(self._get_all_sites())
        listed = self._request_sites_from_server(fl_ctx)
        if not listed:
            raise Unanswered("the server sent no list of sites")
        return self._known().cells(listed)

    def _get_all_sites(self) -> list[tuple[str, str]]:
        """(a) NVFLARE leaves out registered clients that are not in `cc_enabled_sites`."""
        self._known().refuse_strangers()
        sites: list[tuple[str, str]] = super()._get_all_sites()
        return sites

    def _ask(self, name: str, cell: str, deadline: Deadline) -> list[Entry]:
        """(b), (c) The tokens of the site `name`, asked for with a challenge for it alone."""
        challenge = self._known().challenge(name)
        if name == self.site_name:
            with answering(challenge, deadline.left()):
                entries: object = self._generate_fresh_tokens_for_validation()
            if not entries:
                raise Unanswered("this site has no token of its own")
        else:
            entries = self._known().ask(cell, challenge, self.get_token_request_timeout)
        return self._known().authenticated(entries, name, challenge, deadline.left())[1]

    def _handle_token_refresh_request(self, request: Any) -> Any:
        """(c) Answers a challenge, and nothing but a challenge."""
        challenge = challenge_in(request)
        if not is_challenge(challenge):
            return make_reply(ReturnCode.INVALID_REQUEST, "the request carries no challenge", None)
        with answering(str(challenge), self.get_token_request_timeout / 2):
            return replied(super()._handle_token_refresh_request, request)

    def _handle_get_sites_request(self, request: Any) -> Any:
        return replied(super()._handle_get_sites_request, request)

    def _generate_fresh_tokens_for_validation(self) -> list[Entry]:
        """(b) Signs what is sent. Before SYSTEM_BOOTSTRAP there is no key yet, and nobody to send
        to.
        """
        entries: list[Entry] = super()._generate_fresh_tokens_for_validation()
        return (
            entries
            if self.engine is None
            else signed(entries, answered_challenge(), self._known().identity)
        )

    def _verify_participants_tokens(
        self, participants_tokens: dict[str, Any]
    ) -> tuple[dict[str, bool], list[str]]:
        """(a) A name that is on no list fails. So does a site without a token of our agent that is
        bound to it, even where the tokens of other authorizers are good.
        """
        result, invalid = super()._verify_participants_tokens(participants_tokens)
        for name, entries in participants_tokens.items():
            if name not in self.cc_enabled_sites and name not in self.unattested_sites:
                result.pop(name, None)
                invalid.append(f"{name} (on no list) ")
            elif name in self.cc_enabled_sites and CVM_NAMESPACE in self.cc_verifiers:
                ours = [
                    entry.get(CC_TOKEN)
                    for entry in entries
                    if entry.get(CC_NAMESPACE) == CVM_NAMESPACE
                ]
                if not ours or not all(isinstance(token, PeerToken) for token in ours):
                    invalid.append(f"{name} (no bound token of its agent) ")
        return result, invalid

    def _shutdown_system(self, reason: str, fl_ctx: FLContext) -> None:
        """Nobody is admitted while NVFLARE shuts down. Its last resort is `sys.exit`, which in a
        thread of NVFLARE's ends the thread and leaves the server running.
        """
        self._failure = reason
        self._stay_down()
        try:
            super()._shutdown_system(reason, fl_ctx)
        except SystemExit:
            os._exit(1)

    def _known(self) -> Federation:
        if self._federation is None:
            raise IdentityError("this site has not started")
        return self._federation

    def _stay_down(self) -> None:
        workspace = getattr(getattr(self.engine, "args", None), "workspace", None)
        if self._silence or not workspace:
            return
        try:
            (Path(workspace) / _SHUT_DOWN).touch()
        except OSError as error:  # then it is started again, and refused again
            self.logger.error(f"this site may start again: {error}")

    def _fail(self, what: str, error: Exception, fl_ctx: FLContext) -> None:
        self._silence = isinstance(error, (Unanswered, VerifyLater))
        self.logger.error(f"{what}: {error}")
        self._shutdown_system(f"{what}: {error}", fl_ctx)

    def _or_shut_down(self, fl_ctx: FLContext, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception as error:
            self._fail("CC info validation failed", error, fl_ctx)
