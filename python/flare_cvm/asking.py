"""Asking other sites: the requests on NVFLARE's channel, and the form of their replies."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from nvflare.app_opt.confidential_computing.cc_manager import CC_CHANNEL, CC_TOPIC_REQUEST_TOKEN
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.private.defs import new_cell_message

from .authorizer import VerifyLater
from .deadline import Backoff, Deadline
from .identity import SERVER, IdentityError

CHALLENGE = "challenge"


class Unanswered(Exception):
    """The site did not answer, or cannot yet, because it or its agent is starting."""


def ask_for_tokens(cell: Any, fqcn: str, requester: str, challenge: str, timeout: float) -> object:
    """What the cell `fqcn` sends back: untrusted. The name in its reply is not even read."""
    try:
        reply = cell.send_request(
            target=fqcn,
            channel=CC_CHANNEL,
            topic=CC_TOPIC_REQUEST_TOKEN,
            request=new_cell_message({}, {"requester": requester, CHALLENGE: challenge}),
            timeout=timeout,
            optional=True,
        )
    except Exception as error:  # whatever NVFLARE's transport raises: no answer came
        raise Unanswered(f"{fqcn}: {type(error).__name__}") from None
    code = reply.get_header(MessageHeaderKey.RETURN_CODE) if reply else None
    if code != ReturnCode.OK:
        raise Unanswered(f"{fqcn}: {code}")
    if not isinstance(reply.payload, dict):
        raise IdentityError(f"{fqcn} answered with no object")
    return reply.payload.get("cc_info")


def ask_until(
    deadline: Deadline,
    sites: Callable[[], dict[str, str]],
    judge: Callable[[str, str], None],
    pause: Callable[[dict[str, Exception], float], None],
) -> None:
    """Asks every site until each has been judged once.

    Sites that did not answer are asked again: a site that still starts is not an attacker. The list
    is read anew in each round, because nobody waits for a site that left. A wrong answer ends this
    at once (`judge` raises), silence at the deadline.
    """
    backoff = Backoff()
    passed: set[str] = set()
    while True:
        waiting: dict[str, Exception] = {}
        try:
            cells = sites()
        except Unanswered as error:
            cells, waiting = {}, {SERVER: error}
        for name in [name for name in cells if name not in passed]:
            try:
                judge(name, cells[name])
                passed.add(name)
            except (Unanswered, VerifyLater) as error:
                waiting[name] = error
        if not waiting:
            return
        if deadline.over():
            raise Unanswered("; ".join(f"{name}: {why}" for name, why in waiting.items()))
        pause(waiting, backoff.next_pause(deadline))


def challenge_in(request: Any) -> object:
    payload = getattr(request, "payload", None)
    return payload.get(CHALLENGE) if isinstance(payload, dict) else None


def replied(handle: Callable[[Any], Any], request: Any) -> Any:
    """Makes a failure of a handler reach who asked.

    NVFLARE's handlers report failures with a return code that does not exist, and so not at all:
    who asked would wait for its time-out.
    """
    try:
        return handle(request)
    except Exception:  # NVFLARE's handler has logged its cause
        return make_reply(ReturnCode.PROCESS_EXCEPTION, "the request failed at this site", None)


def read_sites(listed: object, expected: Collection[str]) -> dict[str, str]:
    """The server's list of sites, as name → cell. A name outside of `expected` fails it."""
    sites: dict[str, str] = {}
    if not isinstance(listed, (list, tuple)) or len(listed) > len(expected):
        raise IdentityError(
            "the server's list of sites is not a list, or is longer than the federation"
        )
    for site in listed:
        if (
            not isinstance(site, (list, tuple))
            or len(site) != 2
            or not all(isinstance(part, str) for part in site)
        ):
            raise IdentityError(
                "the server's list of sites holds something else than pairs of cell and name"
            )
        fqcn, name = site
        if name not in expected or name in sites:
            raise IdentityError(
                f"the server's list of sites names {name!r}, which is none of ours or listed twice"
            )
        sites[name] = fqcn
    return sites


def entries_of(cc_info: object, name: str) -> object:
    """A registration's `_cc_info`: exactly one site's, the one that was authenticated."""
    if not isinstance(cc_info, dict) or list(cc_info) != [name]:
        raise IdentityError(f"the tokens are not those of {name!r} alone")
    return cc_info[name]
