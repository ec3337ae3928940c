"""The federation as this site knows it: its members, their identity, how they are asked."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from functools import cached_property
from typing import Any

from nvflare.fuel.f3.cellnet.fqcn import FQCN

from .agent_client import Peer
from .asking import ask_for_tokens, read_sites
from .authorizer import CVM_NAMESPACE, CVMAuthorizer, VerifyLater
from .deadline import Backoff, Deadline
from .identity import CLIENT, SERVER, IdentityError, SiteIdentity, expected_server, role_of
from .wire import Entry, authenticated


class Federation:
    """This site's view.

    `attested` and `unattested` are NVFLARE's names of sites; the server's is `server`.
    """

    def __init__(
        self,
        engine: Any,
        site: str,
        attested: Collection[str],
        unattested: Collection[str],
        verifiers: dict[str, Any],
    ) -> None:
        self._engine = engine
        self._site = site
        self._attested = attested
        self._unattested = unattested
        self._verifiers = verifiers
        for name in (site, SERVER):
            if not self.includes(name):
                raise ValueError(f"{name!r} is neither in cc_enabled_sites nor in unattested_sites")

    @property
    def is_server(self) -> bool:
        return role_of(self._engine) == SERVER

    @cached_property
    def identity(self) -> SiteIdentity:
        """Read at its first use: NVFLARE's server has no configuration when components start."""
        return SiteIdentity(self._engine)

    def includes(self, name: str) -> bool:
        return name in self._attested or name in self._unattested

    def attests(self, name: str) -> bool:
        return name in self._attested

    def sessions(self) -> set[str]:
        """The registered clients, by session: one that comes back has a new one."""
        return (
            {client.get_token() for client in self._engine.get_clients()}
            if self.is_server
            else set()
        )

    def refuse_strangers(self) -> None:
        strangers = [
            client.name for client in self._engine.get_clients() if not self.includes(client.name)
        ]
        if strangers:
            raise IdentityError(
                f"registered, but not a site of this federation: {', '.join(strangers)}"
            )

    def cells(self, listed: object) -> dict[str, str]:
        """The sites to ask, as name → cell: those listed, and always this site and the server."""
        sites = read_sites(listed, self._attested)
        for name, cell in ((self._site, ""), (SERVER, FQCN.ROOT_SERVER)):
            if name in self._attested:
                sites[name] = cell
        return sites

    def ask(self, cell: str, challenge: str, timeout: float) -> object:
        return ask_for_tokens(self._engine.get_cell(), cell, self._site, challenge, timeout)

    def authenticated(
        self, entries: object, name: str, challenge: str | None, patience_s: float
    ) -> tuple[Peer, list[Entry]]:
        role = SERVER if name == SERVER else CLIENT
        return authenticated(
            entries, self._certificate_name(name), role, challenge, self.identity, patience_s
        )

    def challenge(self, name: str) -> str:
        """A challenge for one site.

        Without our agent, the site's signature over it is what makes a token fresh.
        """
        authorizer = self._verifiers.get(CVM_NAMESPACE)
        if isinstance(authorizer, CVMAuthorizer):
            return authorizer.challenge(self._certificate_name(name)).challenge
        return secrets.token_hex(32)

    def challenge_patiently(self, name: str, deadline: Deadline) -> str:
        backoff = Backoff()
        while True:
            try:
                return self.challenge(name)
            except VerifyLater:
                if deadline.over():
                    raise
                time.sleep(backoff.next_pause(deadline))

    def _certificate_name(self, name: str) -> str:
        """NVFLARE calls every server `server`; its certificate does not."""
        if name != SERVER:
            return name
        return (
            self.identity.peer.name if self.is_server else expected_server(self._engine, self._site)
        )
