"""The client of cvm-agent's socket: version 1 of its protocol, one request per connection.

The agent is on the same side of the trust boundary. Still it can be dead, stuck or replaced while
it answers. So reads are bounded in size and by one deadline for the whole exchange, and an answer
is checked member by member. Nothing here looks into a token, and no error's text holds one.
"""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from typing import Any, NoReturn

from .deadline import Deadline

DEFAULT_SOCKET = "/run/flare-cvm/agent.sock"
# The agent's own bounds (`cvm_agent::MAX_MESSAGE`, `cvm_agent::token::MAX_BYTES`).
MAX_MESSAGE = 3 << 20
MAX_TOKEN = 1536 << 10
_VERSION = 1
_HEX_256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 64 << 10
_MAX_TEXT = 500


class AgentError(Exception):
    """The agent gave no usable answer. `code` is stable; the text says what happened."""

    code = "CVM-AGENT"


class AgentUnavailable(AgentError):
    """Nobody listens on the socket, or the agent went away before it answered."""

    code = "CVM-AGENT-UNAVAILABLE"


class AgentTimeout(AgentError):
    """The agent did not finish its answer in time."""

    code = "CVM-AGENT-TIMEOUT"


class AgentProtocolError(AgentError):
    """What came back, or what was to be sent, is not a message of the protocol."""

    code = "CVM-AGENT-PROTOCOL"


class AgentRefused(AgentError):
    """The agent refused, with its own code.

    `retry`: the same request may succeed later without anybody acting.
    """

    def __init__(
        self, code: str, reason: str, help_text: str, retry: bool, wait_s: float | None
    ) -> None:
        super().__init__(f"{code}: {reason} ({help_text})" if help_text else f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.help = help_text
        self.retry = retry
        self.wait_s = wait_s


@dataclass(frozen=True)
class Peer:
    """A site by the name and certificate that it proved, never by what its message says."""

    name: str
    role: str
    tls_cert_sha256: str | None


@dataclass(frozen=True)
class Status:
    site: str
    role: str
    state: str
    reason: str
    self_verified_at: str | None
    kinds: list[str]
    leeway_s: float
    token_lifetime_s: float


@dataclass(frozen=True)
class Challenge:
    challenge: str
    lifetime_s: float


@dataclass(frozen=True)
class IssuedToken:
    token: str
    issued_at: str
    expires_at: str


@dataclass(frozen=True)
class Verdict:
    claims: dict[str, Any]
    not_checked: list[str]


def is_challenge(value: object) -> bool:
    return isinstance(value, str) and _HEX_256.fullmatch(value) is not None


class AgentClient:
    """One method per operation: raises an `AgentError` or returns what the agent vouches for."""

    def __init__(self, socket_path: str = DEFAULT_SOCKET, timeout: float = 30.0) -> None:
        self._socket_path = socket_path
        self._timeout = timeout

    def status(self) -> Status:
        answer = self._ask("status")
        return Status(
            site=_text(answer, "site"),
            role=_text(answer, "role"),
            state=_text(answer, "state"),
            reason=_text(answer, "reason", optional=True) or "",
            self_verified_at=_text(answer, "self_verified_at", optional=True),
            kinds=_texts(answer, "kinds"),
            leeway_s=_number(answer, "leeway_s"),
            token_lifetime_s=_number(answer, "token_lifetime_s"),
        )

    def challenge(self, peer: str) -> Challenge:
        """A challenge for the site `peer`, which the agent accepts once and from that site only."""
        answer = self._ask("challenge", peer=peer)
        challenge = _text(answer, "challenge")
        if not is_challenge(challenge):
            _bad("`challenge` is not 64 hex digits")
        return Challenge(challenge, _number(answer, "lifetime_s"))

    def generate(self, challenge: str | None, tls_cert_sha256: str) -> IssuedToken:
        """A token of this site, bound to its TLS certificate and to the challenge, if any."""
        answer = self._ask("generate", challenge=challenge, tls_cert_sha256=tls_cert_sha256)
        token = _text(answer, "token")
        if not 0 < len(token) <= MAX_TOKEN or not token.isascii():
            _bad(f"`token` is not 1 to {MAX_TOKEN} ASCII characters")
        return IssuedToken(token, _text(answer, "issued_at"), _text(answer, "expires_at"))

    def verify(self, token: str, peer: Peer | None, challenge: str | None) -> Verdict:
        """Returns only if the agent accepts the token. `peer` is None if no name is known."""
        if len(token) > MAX_TOKEN or not token.isascii():
            _bad(f"the token to verify is not at most {MAX_TOKEN} ASCII characters")
        known = peer and {
            "name": peer.name,
            "role": peer.role,
            "tls_cert_sha256": peer.tls_cert_sha256,
        }
        answer = self._ask("verify", token=token, peer=known, challenge=challenge)
        if answer.get("verified") is not True:
            _bad("`verified` is not true")
        claims = answer.get("claims")
        if not isinstance(claims, dict):
            _bad("`claims` is not an object")
        return Verdict(claims, _texts(answer, "not_checked"))

    def report(self, since: str, until: str) -> list[dict[str, Any]]:
        entries = self._ask("report", since=since, until=until).get("entries")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            _bad("`entries` is not a list of objects")
        return entries

    def _ask(self, op: str, **members: Any) -> dict[str, Any]:
        request = json.dumps({"v": _VERSION, "op": op, **members}, allow_nan=False).encode() + b"\n"
        if len(request) > MAX_MESSAGE:
            _bad(f"the request has {len(request)} bytes, more than {MAX_MESSAGE}")
        answer = _parse(self._exchange(request))
        if answer.get("ok") is True:
            return answer
        if answer.get("ok") is not False:
            _bad("`ok` is neither true nor false")
        raise _refusal(answer)

    def _exchange(self, request: bytes) -> bytes:
        deadline = Deadline(self._timeout)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                _arm(connection, deadline)
                connection.connect(self._socket_path)
                _send(connection, request, deadline)
                return _read_line(connection, deadline)
        except TimeoutError:
            raise AgentTimeout(f"no answer from the agent within {self._timeout:g} s") from None
        except OSError as error:
            raise AgentUnavailable(
                f"the agent's socket {self._socket_path}: {error.strerror or error}"
            ) from None


def _arm(connection: socket.socket, deadline: Deadline) -> None:
    if deadline.over():  # a time-out of 0 would mean "never wait", not "time is up"
        raise TimeoutError
    connection.settimeout(deadline.left())


def _send(connection: socket.socket, request: bytes, deadline: Deadline) -> None:
    left = memoryview(request)
    while left:
        _arm(connection, deadline)
        left = left[connection.send(left) :]


def _read_line(connection: socket.socket, deadline: Deadline) -> bytes:
    answer = bytearray()
    while True:
        _arm(connection, deadline)
        chunk = connection.recv(_CHUNK)
        if not chunk:
            raise AgentUnavailable("the agent closed the connection before its answer was whole")
        answer += chunk
        end = answer.find(b"\n", len(answer) - len(chunk))
        if end >= 0 and end + 1 != len(answer):
            _bad("bytes follow the answer")
        if len(answer) > MAX_MESSAGE:
            _bad(f"the answer is longer than {MAX_MESSAGE} bytes")
        if end >= 0:
            return bytes(answer[:end])


def _parse(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(
            line, object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):  # the text is left out: it may hold a token
        _bad("the answer is not JSON")
    if not isinstance(answer, dict):
        _bad("the answer is not an object")
    return answer


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member occurs twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refusal(answer: dict[str, Any]) -> AgentRefused:
    retry, wait_s = answer.get("retry"), answer.get("wait_s")
    if not isinstance(retry, bool):
        _bad("`retry` is neither true nor false")
    if wait_s is not None:
        wait_s = _number(answer, "wait_s")
    help_text = _text(answer, "help", optional=True) or ""
    return AgentRefused(
        _printable(_text(answer, "code")),
        _printable(_text(answer, "reason")),
        _printable(help_text),
        retry,
        wait_s,
    )


def _printable(text: str) -> str:
    """One bounded line without control characters: a peer's words may reach a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_TEXT])


def _text(answer: dict[str, Any], member: str, optional: bool = False) -> Any:
    value = answer.get(member)
    if not isinstance(value, str) and not (optional and value is None):
        _bad(f"`{member}` is not a string")
    return value


def _texts(answer: dict[str, Any], member: str) -> list[str]:
    value = answer.get(member)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _bad(f"`{member}` is not a list of strings")
    return value


def _number(answer: dict[str, Any], member: str) -> float:
    value = answer.get(member)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e9:
        _bad(f"`{member}` is not a number from 0 to 1e9")
    return float(value)


def _bad(what: str) -> NoReturn:
    raise AgentProtocolError(what)
