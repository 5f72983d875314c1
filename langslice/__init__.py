"""langslice: slice a pretrained multilingual model to the languages that are needed, and verify it.

The verbs of the command line are the functions of this module:

    inspect(model)                  what is in a model, and what each slice would save
    plan(model, languages=...)      choose what to keep, without writing anything
    tradeoff(model, ...)            what smaller vocabularies cost, without writing any
    fit(model, out, ...)            the slice that meets a budget and loses least, over all axes
    slice(model, out, ...)          plan, write and verify; or slice(model, tokenizer, ...) with loaded objects
    mask(model, out, ...)           zero heads and neurons instead of removing them
    verify(model, out)              verify again
    demo()                          the main job on the packaged model
    count(model, corpus)            token counts that plans can reuse
    score(model, kind, method)      the importance of each layer, head and neuron
    make_demonstrations(out, ...)   text laid out for weight pruning and features
    find_features(model, out, ...)  hidden dimensions that stand out
    evaluate(model, out, ...)       scores of a model and its slice, side by side
    heal(model, out, ...)           train a slice on
    restore(healed, out, base=...)  a trained slice back into the full model
    shrink(model, tokenizer, ...)   train a slice in memory; trained rows go back into the model
    adapter(adapter, out, plan=...) a LoRA between a model and its slice
    report(folder, ...)             one HTML page and the model card
    export(folder, out, to=...)     a slice in the format of another program
    push(folder, repo_id, ...)      a slice onto the hub
    init(model, languages)          a first recipe
    run(recipe, work)               all of it, from one recipe
    sweep(recipe, out, ...)         a grid of jobs
    reproduce(paper, model, out)    the experiment of a paper
    open_studio(models)             pages in a browser: look, try, start jobs

`help(langslice.slice)` lists the parameters. Work in progress is logged under the name `langslice`.
"""

from langslice.lazy import lazy_names
from langslice.version import __version__

_HOMES = {
    "langslice.errors": ("LangsliceError",),
    "langslice.slicing.result": ("SliceResult",),
    "langslice.slicing.main": ("count", "inspect", "mask", "plan", "verify"),
    "langslice.slicing.loaded_objects": ("slice",),
    "langslice.tradeoffs.main": ("tradeoff",),
    "langslice.budgets.main": ("fit",),
    "langslice.slicing.demo": {"demo": "run_demo"},
    "langslice.slicing.publish": ("push",),
    "langslice.planning.plan": ("SlicePlan", "load_plan"),
    "langslice.scoring.main": ("score",),
    "langslice.demonstrations.main": ("make_demonstrations",),
    "langslice.formats.main": ("export",),
    "langslice.features.main": ("find_features",),
    "langslice.evaluation.main": ("evaluate",),
    "langslice.healing.main": ("heal",),
    "langslice.restoration.main": ("restore",),
    "langslice.restoration.shrinking": ("shrink",),
    "langslice.restoration.adapters": {"adapter": "carry_adapter"},
    "langslice.reporting": {"report": "write_report"},
    "langslice.recipes.draft": {"init": "draft"},
    "langslice.recipes.main": ("run",),
    "langslice.sweeps.main": ("sweep",),
    "langslice.reproduction.main": ("reproduce",),
    "langslice.studio.main": ("open_studio",),
}
__all__ = [
    "LangsliceError", "SlicePlan", "SliceResult", "__version__", "adapter", "count", "demo", "evaluate", "export",
    "find_features", "fit", "heal", "init", "inspect", "load_plan", "make_demonstrations", "mask", "open_studio",
    "plan", "push", "report", "reproduce", "restore", "run", "score", "shrink", "slice", "sweep", "tradeoff", "verify",
]  # fmt: skip
# Public names are imported when they are first used, so that `import langslice` stays light; __init__.pyi says what they are.
__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
