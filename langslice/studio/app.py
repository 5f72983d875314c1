"""The pages: which address shows what, and the errors of the library as pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from langslice.errors import LangsliceError
from langslice.formatting import bytes_text, count_text
from langslice.reporting.markup import visible
from langslice.studio.commands import WORK
from langslice.studio.views import Studio, Values
from langslice.studio.wish import Wish, read_wish
from langslice.version import __version__

_STEPS: Final = {
    "/model": "Model", "/size": "Size", "/sentence": "Sentence", "/parts": "Layers and heads", "/start": "Command and job",
}  # fmt: skip
# What a page of a job can show or hand out -> where the job leaves it.
_FILES: Final = {
    "report": (f"{WORK}/report.html", "text/html; charset=utf-8"), "picture": ("tradeoff.svg", "image/svg+xml"),
    "recipe": ("recipe.yaml", "text/plain; charset=utf-8"),
}  # fmt: skip
_ASSETS: Final = {
    "report.css": ("langslice.reporting", "report.css", "text/css"),
    "studio.css": ("langslice.studio", "static/studio.css", "text/css"),
    "icon.svg": ("langslice.studio", "static/icon.svg", "image/svg+xml"),
    "studio.js": ("langslice.studio", "static/studio.js", "text/javascript"),
}  # fmt: skip


@dataclass(frozen=True)
class Pages:
    """What answers requests."""

    studio: Studio
    templates: Environment

    def step(self, template: str, values: Callable[[Wish], Values]) -> Callable[[Request], Response]:
        """A page of a choice, which stands in its query."""

        def page(request: Request) -> Response:
            wish = read_wish(parse_qs(request.url.query))
            return self._shown(request, template, wish=wish, **values(wish))

        return self.answered(page)

    def begin(self, request: Request) -> Response:
        """Start a job, and go to its page."""
        form = request.scope["form"]
        job = self.studio.begin(form.get("kind", [""])[-1], read_wish(form))
        return RedirectResponse(f"/jobs/{job.name}", 303)

    def job(self, request: Request) -> Response:
        """A job as it is now; only that, for the script that asks again and again."""
        template = "job_state.html" if request.url.path.endswith("/state") else "job.html"
        found = self.studio.job(request.path_params["name"])
        return self._shown(request, template, wish=read_wish(parse_qs(found["job"].request.wish)), **found)

    def stop(self, request: Request) -> Response:
        """Stop a job, and go to its page."""
        job = self.studio.job(request.path_params["name"])["job"]
        self.studio.jobs.stop(job.name)
        return RedirectResponse(f"/jobs/{job.name}", 303)

    def file(self, request: Request) -> Response:
        """A file that a job made, of those that have a name here."""
        path, kind = _FILES.get(request.path_params["file"], ("", ""))
        found = self.studio.job(request.path_params["name"])["job"].result(path) if path else None
        return _not_found() if found is None else FileResponse(found, media_type=kind)

    def answered(self, work: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """The same, its errors as pages."""

        def page(request: Request) -> Response:
            try:
                return work(request)
            except LangsliceError as error:
                return self._shown(request, "error.html", 400, message=error.message, hint=error.hint)
            except OSError as error:
                hint = "check the path, the rights and the disk"
                return self._shown(request, "error.html", 400, message=str(error), hint=hint)

        return page

    def _shown(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        given = {"wish": Wish(), **values}
        return HTMLResponse(self.templates.get_template(template).render(path=request.url.path, **given), status)


def make_app(studio: Studio, secret: str) -> Starlette:
    """The application, unguarded. `secret` is what forms carry (guard.py)."""
    templates = Environment(loader=PackageLoader("langslice.studio"), autoescape=True, undefined=StrictUndefined)
    templates.filters.update(bytes=bytes_text, count=count_text, seen=visible)
    templates.globals.update(secret=secret, steps=_STEPS, version=__version__)
    pages = Pages(studio, templates)
    steps = {
        "/": pages.step("home.html", studio.home), "/model": pages.step("model.html", studio.model),
        "/size": pages.step("size.html", studio.size), "/sentence": pages.step("sentence.html", studio.sentence),
        "/parts": pages.step("parts.html", studio.parts), "/start": pages.step("start.html", studio.start),
        "/jobs/{name}": pages.answered(pages.job), "/jobs/{name}/state": pages.answered(pages.job),
        "/jobs/{name}/files/{file}": pages.answered(pages.file), "/static/{name}": _asset,
        # Which browsers ask for beside a report, which names no icon.
        "/favicon.ico": lambda request: RedirectResponse("/static/icon.svg"),
    }  # fmt: skip
    changes = {"/jobs": pages.answered(pages.begin), "/jobs/{name}/stop": pages.answered(pages.stop)}
    return Starlette(
        routes=[
            *(Route(path, page, methods=["GET"]) for path, page in steps.items()),
            *(Route(path, page, methods=["POST"]) for path, page in changes.items()),
        ]
    )


def _asset(request: Request) -> Response:
    if request.path_params["name"] not in _ASSETS:
        return _not_found()
    package, path, kind = _ASSETS[request.path_params["name"]]
    return Response(files(package).joinpath(path).read_bytes(), media_type=kind)


def _not_found() -> Response:
    return PlainTextResponse("not found\n", 404)
