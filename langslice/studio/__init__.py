"""Pages in a browser on the library: look into a model, try sizes and texts, strike parts, start jobs.

Starlette serves them, Jinja2 writes them; they work without a script and load nothing of other hosts. A framework such as Gradio
brings its own script and layout: its pages show nothing without that script.

Reading order: wish.py (what is chosen so far), shelf.py (the models), commands.py (what a choice amounts to), jobs.py (processes
in folders), views.py (what pages show), guard.py (what is refused), app.py (addresses), main.py (the server).
"""

from __future__ import annotations

__all__: list[str] = []
