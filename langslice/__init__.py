"""langslice: slice a pretrained multilingual model to the languages that are needed, and prove it.

The verbs of the command line are the functions of this module:

    inspect(model)              what is in a model, and what each cut would save
    plan(model, languages=...)  choose what to keep, without writing anything
    slice(model, out, ...)      plan, write and prove
    verify(model, out)          prove again
    count(model, corpus=...)    token counts that plans can reuse
    run(recipe, work)           all of it, and evaluation, healing and a report, from one recipe
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langslice.version import __version__

__all__ = ["LangsliceError", "__version__", "count", "inspect", "plan", "run", "slice", "verify"]

if TYPE_CHECKING:
    from langslice.errors import LangsliceError
    from langslice.recipes.main import run
    from langslice.slicing.main import count, inspect, plan, slice, verify


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used, so that `import langslice` stays light."""
    if name == "LangsliceError":
        from langslice.errors import LangsliceError

        return LangsliceError
    if name == "run":
        from langslice.recipes.main import run

        return run
    if name in __all__:
        from langslice.slicing import main as job

        return getattr(job, name)
    raise AttributeError(f"module 'langslice' has no attribute {name!r}")
