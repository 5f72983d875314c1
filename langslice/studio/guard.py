"""What every request passes before a page sees it: whom it is for, where it comes from, how long it is.

A page of another site can make a browser send requests here, and a name that turns to this address (DNS rebinding) makes them
look like this site's own. So the host must be one that is known, and what changes anything carries a secret that only the
pages here hold.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_MOST_BYTES: Final = 64 << 10
_FORM: Final = "application/x-www-form-urlencoded"
_PAGE: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors "
)
# A report is a file of somebody's model: it may draw, and nothing else.
_FILE: Final = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors "

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Refusal(Exception):
    """Why a request is not answered."""

    status: int
    reason: str


@dataclass(frozen=True)
class Guard:
    """The pages, behind what they are guarded by.

    names      hosts by which they may be reached
    framed_by  sites that may show them inside of their own
    secret     that forms carry
    """

    app: Application
    names: Sequence[str]
    framed_by: Sequence[str]
    secret: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers(scope["path"])]
            await send(message)

        try:
            self._check(scope["method"], Headers(scope=scope))
            if scope["method"] == "POST":
                scope["form"] = await self._form(Headers(scope=scope), receive)
        except Refusal as refusal:
            await PlainTextResponse(f"refused: {refusal.reason}\n", refusal.status)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)

    def _headers(self, path: str) -> list[tuple[bytes, bytes]]:
        framing = " ".join(self.framed_by) or "'none'"
        policy = (_FILE if "/files/" in path else _PAGE) + framing
        said = {
            "content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin", "cache-control": "no-store",
        }  # fmt: skip
        return [(name.encode(), value.encode()) for name, value in said.items()]

    def _check(self, method: str, headers: Headers) -> None:
        if method not in ("GET", "HEAD", "POST"):
            raise Refusal(405, f"the method {method[:20]}")
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _hostname(hosts[0]) not in self.names:
            raise Refusal(421, "this host is not served here; `--name` adds one")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != hosts[0].lower():
            raise Refusal(403, "a request of another site")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            # A link here from elsewhere is a navigation; pictures, scripts and frames are not.
            shown = headers.get("sec-fetch-dest") == "document" or (
                headers.get("sec-fetch-dest") == "iframe" and self.framed_by
            )
            if method == "POST" or headers.get("sec-fetch-mode") != "navigate" or not shown:
                raise Refusal(403, "a request of another site")

    async def _form(self, headers: Headers, receive: Receive) -> dict[str, list[str]]:
        """The fields of a form that is whole, not too long, and from a page of this server."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise Refusal(415, "only forms are read")
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > _MOST_BYTES:
                raise Refusal(413, f"a form of more than {_MOST_BYTES:,} bytes")
            if not message.get("more_body") or message["type"] == "http.disconnect":
                break
        try:
            fields = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20_000)
        except ValueError as error:
            raise Refusal(400, "a form that cannot be read") from error
        if not hmac.compare_digest(fields.pop("secret", [""])[-1].encode(), self.secret.encode()):
            raise Refusal(
                403, "the form is not of this server's pages, or is from before it was started; load the page again"
            )
        return fields


def _hostname(host: str) -> str:
    """The name in a Host header, without its port; "" for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower() if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""
