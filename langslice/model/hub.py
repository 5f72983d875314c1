"""Turn a hub id into a local folder, with one weight format only.

All caching, revisions and tokens are huggingface_hub's own. What the folder holds is read by checkpoint.py.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from langslice.errors import CheckpointError

# fnmatch patterns, in which "*" also crosses "/".
SIDE_PATTERNS = [
    "*.json",
    "*.txt",
    "*.md",
    "*.model",
    "*.spm",
    "*.jinja",
    "*.tiktoken",
    "*.bpe",
    "*.py",
    "*LICENSE*",
    "*NOTICE*",
]
SAFETENSORS_PATTERNS = ["*model.safetensors", "*model-?????-of-?????.safetensors"]
# Weights other than the main ones: heads, adapters, tables. What they hold is seen when they are opened.
BESIDE_PATTERNS = ["*.pt", "*adapter_model.safetensors", "*adapter_model.bin", "*.npy"]
PICKLE_PATTERNS = ["*pytorch_model.bin", "*pytorch_model-?????-of-?????.bin"]
IGNORED_PATTERNS = [
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "original/*",
    "*.onnx",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*checkpoint-*",
    "*optimizer*.pt",
    "*scheduler.pt",
    "*scaler.pt",
]


def download(
    model: str, *, revision: str | None = None, token: str | None = None, cache_dir: Path | None = None
) -> tuple[Path, str | None]:
    """Fetch a hub model's side files and weights: safetensors where it has them, else pytorch_model*.bin.

    Returns   the folder in the cache, and its resolved commit
    Raises    CheckpointError when the model does not exist, needs a token, or the hub cannot be reached
    """
    if not _may_be_hub_id(model):
        raise _no_such_folder(model)

    def fetch(weight_patterns: list[str]) -> Path:
        return _snapshot(model, revision, token, cache_dir, SIDE_PATTERNS + BESIDE_PATTERNS + weight_patterns)

    folder = fetch(SAFETENSORS_PATTERNS)
    pickles = _pickles_needed(folder)
    if pickles:
        folder = fetch(SAFETENSORS_PATTERNS + pickles)
    commit = folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None
    return folder, commit


def _may_be_hub_id(model: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_][\w.\-]*(/[A-Za-z0-9_][\w.\-]*)?", model)) and not model.endswith("/")


def _no_such_folder(model: str) -> CheckpointError:
    """Say that a typed path does not exist, and which existing ones are near."""
    near = near_folders(Path(model).expanduser())
    hint = f"did you mean {' or '.join(near)}?" if near else "name a model folder, or a hub id such as org/name"
    return CheckpointError(f"no model folder {model}\n  and it cannot be a hub id, which looks like org/name", hint)


def near_folders(path: Path) -> list[str]:
    """Folders next to `path` with a similar name, at most three."""
    parent = path.parent
    if not parent.is_dir():
        return []
    names = [child.name for child in parent.iterdir() if child.is_dir()]
    return [str(parent / name) for name in difflib.get_close_matches(path.name, names, n=3)]


def _snapshot(model: str, revision: str | None, token: str | None, cache_dir: Path | None, patterns: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    unresolved = getattr(errors, "RevisionResolutionError", OSError)  # since huggingface_hub 2
    try:
        folder = huggingface_hub.snapshot_download(
            model,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            allow_patterns=patterns,
            ignore_patterns=IGNORED_PATTERNS,
        )
    except errors.GatedRepoError as error:
        hint = f"accept its terms at https://huggingface.co/{model}, then pass a token or run `hf auth login`"
        raise _hub_error(model, "it is gated", error, hint) from None
    except errors.RevisionNotFoundError as error:
        raise _hub_error(
            model, f"it has no revision {revision}", error, "see its branches and tags on the hub"
        ) from None
    except errors.RepositoryNotFoundError as error:
        near = near_folders(Path(model))
        hint = "check the spelling; a private model needs a token (`hf auth login`)"
        raise _hub_error(
            model, "no such model", error, f"did you mean the folder {near[0]}? {hint}" if near else hint
        ) from None
    except errors.HFValidationError as error:
        raise _hub_error(model, "this is not a hub id", error, "a hub id looks like org/name") from None
    except (OSError, ValueError, unresolved) as error:
        cached = (
            _cached_folder(model, revision, cache_dir) if isinstance(error, errors.LocalEntryNotFoundError) else None
        )
        if cached is not None:
            return cached
        near = near_folders(Path(model))
        offline = "it is not in the local cache and the hub cannot be reached"
        hint = "go online once, unset HF_HUB_OFFLINE, or name a local folder"
        raise _hub_error(
            model, offline, error, f"did you mean the folder {near[0]}? Else {hint}" if near else hint
        ) from None
    return Path(folder)


def _cached_folder(model: str, revision: str | None, cache_dir: Path | None) -> Path | None:
    """Find the snapshot that other programs left in the cache; offline, the hub calls it missing if a README is."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json", cache_dir=cache_dir, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _hub_error(model: str, what: str, error: Exception, hint: str) -> CheckpointError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"cannot get {model} from the hub: {what}\n  no local folder of this name either\n  {first_line}", hint
    )


def _pickles_needed(folder: Path) -> list[str]:
    """Name the pickle patterns to fetch, for the transformer and other modules that have no safetensors."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        places = [str(module["path"]) for module in modules]
    except FileNotFoundError:
        places = [""]
    except (ValueError, TypeError, KeyError):
        return []  # checkpoint.py reports the broken modules.json
    missing = [place for place in places if not list((folder / place).glob("model*.safetensors*"))]
    if places == [""] or missing == places:
        return PICKLE_PATTERNS if missing else []
    return [f"{place}/{pattern[1:]}" if place else pattern[1:] for place in missing for pattern in PICKLE_PATTERNS]
