"""The studio's pages on a free port, answered by a thread of the tests; and requests as bytes, which no client mends."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlencode

import uvicorn

from langslice.studio.main import guarded_app
from langslice.studio.options import StudioOptions


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Served:
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answered:
        """Send a request; names of headers are written with underscores."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        found = Answered(answer.status, dict(answer.getheaders()), answer.read().decode())
        connection.close()
        return found

    def raw(self, request: bytes) -> int:
        """Send bytes; the status of the answer, 0 for none."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as there:
            there.sendall(request)
            answer = HTTPResponse(there)
            try:
                answer.begin()
            except OSError:
                return 0
            return answer.status

    def post(self, path: str, secret: str | None = None, **fields: str) -> Answered:
        """Send a form as a page of this server does."""
        fields["secret"] = self.secret() if secret is None else secret
        kind = "application/x-www-form-urlencoded"
        return self.ask(path, "POST", urlencode(fields), Content_Type=kind, Origin=self.address)

    def secret(self) -> str:
        found = re.search(r'name="secret" value="([^"]+)"', self.ask("/parts?model=mini&languages=ko").text)
        assert found
        return unescape(found[1])


@contextmanager
def served(models: list[str], **options: object) -> Iterator[Served]:
    app = guarded_app(models, StudioOptions(**options))  # type: ignore[arg-type]
    config = uvicorn.Config(app, log_level="warning", http="h11", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)
