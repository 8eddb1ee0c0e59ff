"""The door of the emulator: keys, the vendors' response headers, and the faults of single requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nightbatch.emulator import connection
from nightbatch.emulator.answers import PROBLEMS, Kind, Problem
from nightbatch.emulator.anthropic_api import bodies as anthropic_bodies
from nightbatch.emulator.clock import ticking_s
from nightbatch.emulator.dice import digest, roll
from nightbatch.emulator.faults import UnknownFault
from nightbatch.emulator.openai_api import bodies as openai_bodies
from nightbatch.emulator.operations import operation, vendor_of
from nightbatch.emulator.settings import Account, Vendor
from nightbatch.emulator.world import FaultPlan, Requester, World

FAULTS_HEADER = "x-emulator-faults"
OPEN_PATHS = frozenset({"/", "/emulator/health"})

_AFTER_SUCCESS = (
    "create_timeout_after_success",
    "create_reset_after_success",
    "create_500_after_success",
    "create_529_after_success",
)
LOGIN_PAGE = b"<!doctype html>\n<title>Sign in</title>\n<p>Your session has ended.</p>\n"

_MESSAGES = {
    401: "Incorrect API key provided.",
    429: "Rate limit reached for requests. Please try again later.",
    500: "The server had an error while processing your request.",
    529: "Overloaded",
}


@dataclass(slots=True)
class Call:
    """One request on its way to the application."""

    scope: Scope
    receive: Receive
    send: Send
    vendor: Vendor
    operation: str
    request_id: str
    plan: FaultPlan | None = None
    began_s: float = field(default_factory=ticking_s)

    async def turn_away(
        self, problem: Problem, headers: dict[str, str] | None = None, account: Account | None = None
    ) -> None:
        """Answer with an error instead of the application, once the client has sent all of its request."""
        await connection.drain(self.receive)
        await self.refuse(problem, headers, account)

    async def refuse(
        self, problem: Problem, headers: dict[str, str] | None = None, account: Account | None = None
    ) -> None:
        """Answer with an error."""
        body = orjson.dumps(error_body(self.vendor, problem, self.request_id))
        raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        send = self.labelled(account)
        await send({"type": "http.response.start", "status": problem.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    async def show_page(self, page: bytes) -> None:
        """Answer as a proxy that lets nobody through: a page, a good status, and no header of the vendor's."""
        await connection.drain(self.receive)
        raw = [(b"content-type", b"text/html"), (b"content-length", str(len(page)).encode())]
        await self.send({"type": "http.response.start", "status": 200, "headers": raw})
        await self.send({"type": "http.response.body", "body": page})

    def labelled(self, account: Account | None) -> Send:
        """Return a `send` that adds the vendor's headers."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers(account))
            await self.send(message)

        return send

    def _headers(self, account: Account | None) -> dict[str, str]:
        organization = account.organization if account else "unknown"
        if self.vendor == "anthropic":
            return {"request-id": self.request_id, "anthropic-organization-id": organization}
        return {
            "x-request-id": self.request_id,
            "openai-organization": organization,
            "openai-project": account.workspace if account else "unknown",
            "openai-processing-ms": str(int((ticking_s() - self.began_s) * 1000)),
            "openai-version": "2020-10-01",
        }


def error_body(vendor: Vendor, problem: Problem, request_id: str) -> dict[str, object]:
    """Put a vendor's words around an error."""
    if vendor == "anthropic":
        return anthropic_bodies.error_body(problem, request_id)
    kind = problem.type or ("server_error" if problem.status >= 500 else "invalid_request_error")
    return openai_bodies.error_body(Problem(problem.status, kind, problem.message, problem.code, problem.param))


class Gate:
    """Stands before the application, outside of all other middleware."""

    def __init__(self, app: ASGIApp, world: World) -> None:
        self.app, self.world = app, world
        self._accounts = {account.key: account for account in world.settings.accounts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or not."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        headers, store = Headers(scope=scope), self.world.store
        vendor = vendor_of(scope["path"], dict(headers))
        call = Call(scope, receive, send, vendor, operation(scope["method"], scope["path"]), store.ids.next("req_"))
        store.requests[f"{vendor} {call.operation}"] += 1
        account = self._accounts.get(_key(headers))
        if account is None:
            await call.turn_away(_invalid_key(vendor))
            return
        try:
            call.plan = self.world.plan(account, vendor, headers.get(FAULTS_HEADER, ""))
        except UnknownFault as error:
            await call.turn_away(Problem(400, "invalid_request_error", str(error)), account=account)
            return
        scope["emulator.requester"] = Requester(account, call.plan)
        scope["emulator.vendor"], scope["emulator.request_id"] = vendor, call.request_id
        await self._let_in(call, account, call.plan)

    async def _let_in(self, call: Call, account: Account, plan: FaultPlan) -> None:
        send = call.labelled(account)
        if not _is_meant(call, plan):
            await self.app(call.scope, call.receive, send)
        elif not await self._refused(call, account, plan):
            await self._answered(call, account, plan, _spoilt(call, plan, send))

    async def _refused(self, call: Call, account: Account, plan: FaultPlan) -> bool:
        """Carry out a fault that keeps a request from the application; say whether there was one."""
        if plan.take("reset"):
            await connection.reset(call.send, call.receive)
        elif plan.take("hang"):
            await asyncio.sleep(plan.faults.hang_seconds)
            await connection.hang_up(call.send, call.receive)
        elif plan.take("http_401"):
            await call.turn_away(_invalid_key(call.vendor), account=account)
        elif plan.take("http_404"):
            await call.turn_away(Problem(404, "not_found_error", "Not found."), account=account)
        elif plan.take("login_page"):
            await call.show_page(LOGIN_PAGE)
        elif plan.take("http_429"):
            after = plan.faults.http_429_retry_after
            problem = Problem(429, _type(call.vendor, 429), _MESSAGES[429], "rate_limit_exceeded")
            await call.turn_away(problem, {"retry-after": f"{after:g}"} if after else None, account)
        elif plan.take("credit_error_requests"):
            await call.turn_away(PROBLEMS[call.vendor][Kind.CREDIT], account=account)
        elif plan.take("http_5xx") or self._unlucky(plan):
            await call.turn_away(_server_error(call.vendor, plan.faults.http_5xx_status), account=account)
        else:
            return False
        return True

    def _unlucky(self, plan: FaultPlan) -> bool:
        share = plan.faults.http_5xx_share
        arrived = digest(self.world.store.requests.total())
        return bool(share) and roll(self.world.settings.seed, "http_5xx_share", arrived) < share

    async def _answered(self, call: Call, account: Account, plan: FaultPlan, send: Send) -> None:
        """Ask the application; a fault may keep back the reply to a create call that went well."""
        wanted = [name for name in _AFTER_SUCCESS if call.operation == "create_batch" and plan.left(name)]
        if not wanted:
            await self.app(call.scope, call.receive, send)
            return
        withholding = connection.Withholding(send)
        await self.app(call.scope, call.receive, withholding)
        if withholding.withheld and plan.take(wanted[0]):
            await self._left_wondering(call, account, plan, wanted[0])

    async def _left_wondering(self, call: Call, account: Account, plan: FaultPlan, fault: str) -> None:
        if fault == "create_timeout_after_success":
            await asyncio.sleep(plan.faults.hang_seconds)
            await connection.hang_up(call.send, call.receive)
        elif fault == "create_reset_after_success":
            await connection.reset(call.send, call.receive)
        else:
            await call.refuse(_server_error(call.vendor, int(fault.split("_")[1])), account=account)


def _is_meant(call: Call, plan: FaultPlan) -> bool:
    """Say whether the faults of single requests are aimed at this call; the admin surface has none."""
    faults = plan.faults
    if call.scope["path"].startswith("/emulator/"):
        return False
    return not faults.on or call.operation in faults.on.split("+")


def _spoilt(call: Call, plan: FaultPlan, send: Send) -> Send:
    """Return a `send` that spoils bodies as the faults say."""
    if plan.take("slow_drip"):
        send = connection.Dripping(send, plan.faults.drip_bytes, plan.faults.drip_seconds)
    if call.operation != "download" and plan.take("garbled"):
        send = connection.Garbling(send)
    if call.operation == "download" and plan.take("garbled_download"):
        send = connection.Garbling(send)
    if call.operation == "download" and plan.take("truncated_download"):
        send = connection.Truncating(send, lambda: connection.hang_up(call.send, call.receive))
    return send


def _key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _type(vendor: Vendor, status: int) -> str:
    if vendor == "anthropic":
        return anthropic_bodies.TYPES.get(status, "api_error")
    return "rate_limit_error" if status == 429 else "server_error"


def _invalid_key(vendor: Vendor) -> Problem:
    if vendor == "anthropic":
        return Problem(401, "authentication_error", "invalid x-api-key")
    return Problem(401, "invalid_request_error", _MESSAGES[401], "invalid_api_key")


def _server_error(vendor: Vendor, status: int) -> Problem:
    return Problem(status, _type(vendor, status), _MESSAGES.get(status, _MESSAGES[500]))
