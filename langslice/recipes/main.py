"""The flow of a run: every step of a recipe, unless what it depends on is as it was when it was last done.

A step's key is a digest of its part of the recipe, of the content of every file that it names, of the model, and of the keys
of the steps that it builds on; so a changed step is done again, and those after it. The key is written when the step's output
is under its final name, so that a run that was killed goes on with the step that it was at.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from langslice.errors import RecipeError
from langslice.files.folder_lock import locked
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.progress import Report, silent
from langslice.recipes.content import Read, digest, remembering
from langslice.recipes.document import Recipe, placed
from langslice.recipes.parts import INPUTS
from langslice.recipes.references import MODEL, resolved
from langslice.recipes.steps import PLAN, Step, StepContext, steps_of
from langslice.recipes.validation import load_recipe

STATE: Final = ".langslice"
"""Below the work folder: what was done, and the digests of files. Its presence says that the folder is a run's."""
# Files in a model folder that a report writes, and that do not change the model.
_BESIDE = ("README.md", "report.html")


@dataclass(frozen=True)
class Done:
    """A step, after a run or before one.

    path     its output
    kept     whether it was there already, made of the same
    seconds  that making it took, in this run or in the one that made it; None where it is yet to be made
    """

    name: str
    path: Path
    kept: bool
    seconds: float | None


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    folder   the work folder
    steps    in the order in which they were done
    model    folder of the last model: restored, healed, sparsified or sliced; None where none was made
    results  files of the evaluations
    report   the page; None without one
    left     outputs of an earlier recipe in the same folder, which this one does not make
    """

    folder: Path
    steps: tuple[Done, ...]
    left: tuple[Path, ...] = ()

    @property
    def model(self) -> Path | None:
        """Folder of the last model."""
        paths = self._paths()
        return next((paths[name] for name in ("restore", "heal", "sparsify", "slice") if name in paths), None)

    @property
    def results(self) -> tuple[Path, ...]:
        """JSON files of `langslice evaluate`."""
        paths = self._paths()
        return tuple(paths[name] for name in ("evaluate", "evaluate healed") if name in paths)

    @property
    def report(self) -> Path | None:
        """The page."""
        return self._paths().get("report")

    def _paths(self) -> dict[str, Path]:
        return {step.name: step.path for step in self.steps}


def run(recipe: str | Path | Mapping[str, Any], work: str | Path, *, report: Report = silent) -> RunResult:
    """Do what a recipe says: choose, slice, verify, evaluate, heal, evaluate again, restore, report, as far as it asks for them.

    recipe   a YAML file, or its content
    work     folder of everything that is made; what is there already from the same parts of a recipe, the same files and
             the same model is not made again
    Returns  every step with its output
    Raises   RecipeError before anything is done; what a step raises, with its place in the recipe
    """
    asked = load_recipe(recipe)
    steps = steps_of(asked)
    folder = Path(work).expanduser()
    _refuse_foreign(folder)
    source = _open(asked)
    with locked(folder, "run"):
        state = folder / STATE
        (state / "steps").mkdir(parents=True, exist_ok=True)
        read = remembering(state / "digests.json")
        made = _inputs(asked, steps, folder, source)
        keys: dict[str, str] = {}
        done = []
        for number, step in enumerate(steps):
            keys[step.name] = key = _key(step, keys, source, read)
            kept = _kept(step, key, folder)
            if kept is None:
                place = StepContext(
                    folder, source, state / "work" / key, _numbered(report, step.name, number, len(steps))
                )
                kept = _make(asked, step, key, place, made)
            done.append(kept)
        shutil.rmtree(state / "work", ignore_errors=True)
        return RunResult(folder, tuple(done), _left(folder, steps))


def preview(recipe: str | Path | Mapping[str, Any], work: str | Path) -> RunResult:
    """What `run` would do, and what it would keep; nothing is made or written. Raises as `run` does."""
    asked = load_recipe(recipe)
    folder = Path(work).expanduser()
    _refuse_foreign(folder)
    source = _open(asked)
    read = remembering(None)
    keys: dict[str, str] = {}
    done = []
    for step in steps_of(asked):
        keys[step.name] = _key(step, keys, source, read)
        done.append(_kept(step, keys[step.name], folder) or Done(step.name, folder / step.out, False, None))
    return RunResult(folder, tuple(done))


def _refuse_foreign(folder: Path) -> None:
    """Outputs are replaced where a recipe changes, so only a folder that runs have made may be used."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is not a folder", "choose another name")
    if folder.is_dir() and not (folder / STATE).is_dir():
        names = [path.name for path in folder.iterdir() if path.name != ".lock"]
        if names:
            raise RecipeError(
                f"{folder} holds other files, such as {min(names)}, and is not the work folder of a run",
                "name a new folder",
            )


def _open(recipe: Recipe) -> Checkpoint | None:
    model = recipe.document.get("model")
    if model is None:
        return None
    with placed(recipe, "model"):
        return open_checkpoint(model, revision=recipe.document.get("revision"))


def _inputs(recipe: Recipe, steps: Sequence[Step], folder: Path, source: Checkpoint | None) -> dict[str, Path]:
    """What stands for `$NAME`."""
    outs = {step.where[1]: folder / step.out for step in steps if step.where[0] in INPUTS}
    return {**outs, **({} if source is None else {MODEL: source.folder})}


def _key(step: Step, keys: Mapping[str, str], source: Checkpoint | None, read: Read) -> str:
    document: dict[str, Any] = {"step": step.name, "part": step.part, "needs": [keys[name] for name in step.needs]}
    if source is not None and not step.name.startswith("demonstrations "):
        # By its content, also where the recipe names it as `$model`.
        document["model"] = read(str(source.folder))
        document["name"] = f"{source.model_id}@{source.revision}"
    return digest(document, read=read)


def _state_file(folder: Path, step: Step) -> Path:
    return folder / STATE / "steps" / f"{step.name.replace(' ', '-')}.json"


def _kept(step: Step, key: str, folder: Path) -> Done | None:
    """The step as it was done, if that was of the same, and its output is as it was left.

    Raises  RecipeError for a plan that somebody edited: that is work, which is not thrown away
    """
    out = folder / step.out
    try:
        state = json.loads(_state_file(folder, step).read_text(encoding="utf-8"))
        same, stamp, seconds = state["key"] == key, state["stamp"], float(state["seconds"])
        touched = stamp != _stamp(out)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if touched and step.out == PLAN:
        raise RecipeError(
            f"{out} was edited since it was made",
            f"to use it, move it out of {folder} and say `slice: {{plan: FILE}}`; to do without, delete it",
        )
    return Done(step.name, out, True, seconds) if same and not touched else None


def _make(recipe: Recipe, step: Step, key: str, place: StepContext, made: Mapping[str, Path]) -> Done:
    out = place.folder / step.out
    out.parent.mkdir(parents=True, exist_ok=True)
    state = _state_file(place.folder, step)
    # From here to the end, what is at `out` is not known to be this step's.
    state.unlink(missing_ok=True)
    place.scratch.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with placed(recipe, *step.where, ""):
        step.make(place, out, resolved(step.part, made))
    seconds = round(time.monotonic() - start, 3)
    partial = state.with_name(f"{state.name}.partial")
    partial.write_text(json.dumps({"key": key, "stamp": _stamp(out), "seconds": seconds}), encoding="utf-8")
    partial.replace(state)
    return Done(step.name, out, False, seconds)


def _stamp(path: Path) -> str:
    """Names, sizes and times of change of an output: whether anybody touched it since."""
    files = (
        sorted(each for each in path.rglob("*") if each.is_file() and not _is_beside(each.name))
        if path.is_dir()
        else [path]
    )
    found = hashlib.sha256()
    for file in files:
        state = file.stat()
        found.update(f"{file.relative_to(path)}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _is_beside(name: str) -> bool:
    return name in _BESIDE or any(name.startswith(f".{each}.partial-") for each in _BESIDE)


def _left(folder: Path, steps: Sequence[Step]) -> tuple[Path, ...]:
    tops = {Path(step.out).parts[0] for step in steps}
    return tuple(sorted(path for path in folder.iterdir() if path.name not in tops and not path.name.startswith(".")))


def _numbered(report: Report, name: str, number: int, count: int) -> Report:
    def told(step: str, done: int, total: int) -> None:
        report(f"[{number + 1}/{count}] {name}: {step}", done, total)

    told("starting", 0, 0)
    return told
