"""The command `langslice` for scripts, run in forks of one process that has loaded what every command loads.

Each command is a process of its own, with its arguments, folder and exit code; it only starts without the seconds that
torch and transformers take to import. `tests/cli/test_cli.py` starts commands from nothing.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Client, Listener
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

from langslice.sweeps.scheduler import PRELOAD

CLIENT = """#!{python} -IS
import sys, os
from multiprocessing.connection import Client
with Client({address!r}) as there:
    there.send((os.getcwd(), sys.argv[1:]))
    output, code = there.recv()
sys.stdout.write(output)
sys.exit(code)
"""


@contextmanager
def langslice_command(folder: Path) -> Iterator[Path]:
    """Put `langslice` into a folder, for PATH, and answer it as long as the context lasts."""
    address = f"{mkdtemp(prefix='langslice-')}/socket"  # the name of a socket has at most 107 characters
    script = folder / "langslice"
    folder.mkdir(exist_ok=True)
    script.write_text(CLIENT.format(python=sys.executable, address=address))
    script.chmod(0o755)
    with Listener(address) as listener:
        answering = threading.Thread(target=_answer, args=(listener, folder), daemon=True)
        answering.start()
        try:
            yield folder
        finally:
            with Client(address) as there:
                there.send(None)
            answering.join()
    Path(address).parent.rmdir()


def _answer(listener: Listener, folder: Path) -> None:
    """Run one command after the other, until None is asked for."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    log = folder / "output.txt"
    while True:
        with listener.accept() as asking:
            command = asking.recv()
            if command is None:
                return
            process = context.Process(target=_run, args=(*command, log))
            process.start()
            process.join()
            asking.send((log.read_text(encoding="utf-8"), process.exitcode))


def _run(where: str, arguments: list[str], log: Path) -> None:
    """The command, in a process of its own; what it prints goes into a file."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", buffering=1) for stream in (1, 2))
    os.chdir(where)
    sys.argv = ["langslice", *arguments]
    from langslice.cli.app import main

    # What it forks in turn comes from the server that it came from itself, which CPython 3.11 means to do and does not.
    with patch.object(forkserver._forkserver, "ensure_running"):
        main()
