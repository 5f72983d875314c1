"""The studio's server: where it listens, to whom it answers; it runs until it is stopped."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_urlsafe
from threading import Lock
from typing import TYPE_CHECKING

from langslice.errors import OptionError
from langslice.options import listed, taking
from langslice.studio.options import StudioOptions

if TYPE_CHECKING:
    from langslice.studio.guard import Guard

Ready = Callable[[str], None]
"""Called with the address once pages are served."""
_MOST_HEADER_BYTES = 64 << 10
_MOST_CONNECTIONS = 64


@taking(StudioOptions)
def open_studio(
    models: str | Path | Sequence[str | Path] = (), *, options: StudioOptions, ready: Ready = print
) -> None:
    """Serve the studio's pages until they are stopped (Ctrl-C).

    models   models to offer, and folders that models lie in; `mini` unless given
    options  see StudioOptions
    ready    called with the address once pages are served
    Raises   OptionError for a place where it cannot listen, or without the packages of langslice[studio]; CheckpointError for a
             folder that holds no model
    """
    try:
        import uvicorn
    except ImportError as error:
        raise OptionError("the studio needs starlette and uvicorn", 'pip install "langslice[studio]"') from error

    app = guarded_app(listed(models), options)
    listening = _listen(options.bind, options.port)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, http="h11", ws="none", lifespan="off", server_header=False,
        h11_max_incomplete_event_size=_MOST_HEADER_BYTES, limit_concurrency=_MOST_CONNECTIONS, timeout_graceful_shutdown=3,
    )  # fmt: skip
    shown = f"[{options.bind}]" if ":" in options.bind else options.bind
    ready(f"http://{shown}:{listening.getsockname()[1]}/")
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def guarded_app(models: Sequence[str], options: StudioOptions) -> Guard:
    """The pages as an ASGI application that refuses what is not for it.

    Raises  OptionError where others than this machine could ask and no name is given; CheckpointError for a folder without models
    """
    from langslice.studio.app import make_app
    from langslice.studio.guard import LOOPBACK, Guard
    from langslice.studio.jobs import Jobs
    from langslice.studio.shelf import Shelf
    from langslice.studio.views import Studio

    names = [name.lower() for name in listed(options.name)]
    if not _is_loopback(options.bind) and not names:
        raise OptionError(
            f"--bind {options.bind} lets other machines ask, and no name is given by which they may",
            "add --name HOST, or leave --bind away",
        )
    secret = token_urlsafe(32)
    studio = Studio(Shelf(models), Jobs(Path(options.work).expanduser().absolute() / "jobs"), Lock())
    return Guard(make_app(studio, secret), (*LOOPBACK, *names), listed(options.framed_by), secret)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _listen(address: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise OptionError(
            f"cannot listen on {address}, port {port}: {error.strerror}", "name another --port"
        ) from error
