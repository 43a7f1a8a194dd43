"""The page on which a known person approves or rejects a candidate, opened by a signed link."""

from __future__ import annotations

import asyncio
import time
from html import escape
from typing import Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import Response

from escultor.errors import EscultorError
from escultor.serve.approval_links import PATH, Approval, decide_by_link, open_link
from escultor.serve.gateway.bodies import read_pieces
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.wire.errors import ApiError, to_api_error
from escultor.types import Verdict

router = APIRouter()
DECISIONS: dict[str, Literal["approved", "rejected"]] = {"approve": "approved", "reject": "rejected"}
MAX_REASON, MAX_FORM = 500, 8192
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><h1>{title}</h1>
{body}
</html>
"""
_FORM = """<p>You are {person}. Your decision is recorded under your name; the link works once.</p>
<form method="post"><p><label>Reason <input name="reason" maxlength="{most}" required size="60"></label></p>
<p><button name="decision" value="approve">Approve</button>
<button name="decision" value="reject">Reject</button></p></form>"""


@router.get(f"{PATH}{{token}}", include_in_schema=False)
async def show_candidate(request: Request, token: str) -> Response:
    """What waits for approval, and the form; asking for it changes nothing."""
    gateway = _gateway_of(request)
    try:
        approval = await asyncio.to_thread(open_link, gateway.store, token, time.time())
        body = await asyncio.to_thread(_describe, gateway, approval)
    except EscultorError as error:
        return _refusal(error)
    form = _FORM.format(person=escape(approval.person.name), most=MAX_REASON)
    return _page("A candidate waits for your approval", body + form)


@router.post(f"{PATH}{{token}}", include_in_schema=False)
async def decide(request: Request, token: str) -> Response:
    """Record the decision of the person whom the link was made for."""
    gateway = _gateway_of(request)
    try:
        await asyncio.to_thread(open_link, gateway.store, token, time.time())  # before its body is read
        form = await _form(request)
        state, reason = DECISIONS.get(form.get("decision", "")), form.get("reason", "").strip()
        if state is None or not 0 < len(reason) <= MAX_REASON:
            return _page("Nothing was decided", "<p>Go back, give a reason, and approve or reject.</p>", 422)
        cycle = await asyncio.to_thread(decide_by_link, gateway.store, token, state, reason)
    except EscultorError as error:
        return _refusal(error)
    return _page(f"The candidate is {state}", f"<p>{escape(cycle.id)}: {escape(cycle.last.by)}</p>")


def _gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    gateway.limit_rate(request.client.host if request.client else "", None)
    return gateway


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises ApiError for one that is too large."""
    data = b""
    async for piece in read_pieces(request):
        data += piece
        if len(data) > MAX_FORM:
            raise ApiError(413, f"the form has more than {MAX_FORM} bytes", "too_large")
    return {name: values[0] for name, values in parse_qs(data.decode("utf-8", "replace")).items()}


def _describe(gateway: Gateway, approval: Approval) -> str:
    """The candidate, the verdict on it and its measured effects, as HTML."""
    cycle, verdict = approval.cycle, gateway.store.log.get(Verdict, approval.cycle.verdict)
    facts: dict[str, Any] = {"Skill": cycle.skill or "all feedback", "Cycle": cycle.id}
    facts["Candidate"] = cycle.candidate
    if verdict is not None:
        facts |= {"Champion": verdict.because.champion, "Verdict": type(verdict).__name__}
        facts["Why"] = verdict.because.reason
        facts |= {
            effect.metric: f"{effect.state}: {effect.difference:+.4g} [{effect.low:.4g}, {effect.high:.4g}]"
            for effect in verdict.because.effects
        }
    rows = (f"<tr><th>{escape(str(name))}<td>{escape(str(value))}" for name, value in facts.items())
    return f"<table>{''.join(rows)}</table>"


def _refusal(error: EscultorError) -> Response:
    return _page("This link opens nothing", f"<p>{escape(str(error))}</p>", to_api_error(error).status)


def _page(title: str, body: str, status: int = 200) -> Response:
    text = _PAGE.format(title=escape(title), body=body)
    return Response(text, status, media_type="text/html; charset=utf-8")
