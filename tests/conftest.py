"""Fixtures that several tests share: the real assets, and tiny random models of every family."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The first use of a forked worker pool would otherwise warn, and warnings are errors.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# No test can see whether what it wrote has reached the disk, and waiting for that takes a tenth of the time. Processes that tests
# start wait as usual.
os.fsync = lambda descriptor: None
# The cache of this run alone: results of an earlier version must not hide what the code does now. Processes that share the tests
# share it, since they inherit its name.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["LANGSLICE_CACHE"] = mkdtemp(prefix="langslice-tests-")


def pytest_unconfigure() -> None:
    """Remove the cache of this run."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["LANGSLICE_CACHE"], ignore_errors=True)


# By the time that they take. A process of `make test` that has nothing left takes tests over from the end of another's list: what
# is long comes first, so that none is left with it at the end.
SLOWEST_FILES = (
    "cli/test_guides.py",
    "cli/test_every_command.py",
    "project/test_notebook.py",
    "verification/test_corruptions.py",
    "project/test_examples.py",
    "cli/test_help.py",
    "restoration/test_restore.py",
    "tradeoffs/test_tradeoffs.py",
    "healing/test_teacher.py",
    "healing/test_sentence_embeddings.py",
    "sweeps/test_sweeps.py",
    "healing/test_heal.py",
    "recipes/test_recipes.py",
    "counting/test_counting.py",
    "tokenizer/test_real.py",
    "project/test_training.py",
    "reproduction/test_reproduction.py",
    "slicing/test_slice_weights.py",
    "slicing/test_mini.py",
    "evaluation/test_embedding.py",
    "sparsity/test_sparsify.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first; all others keep their order."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(SLOWEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real tokenizers, weights and text; its tests are skipped without, or fail where LANGSLICE_NEED_ASSETS is set."""
    folder = Path(os.environ.get("LANGSLICE_ASSETS", Path(__file__).parents[1] / "../shared/assets")).resolve()
    if not (folder / "tokenizers").is_dir():
        message = f"no assets at {folder}; set LANGSLICE_ASSETS to the folder of real tokenizers, weights and text"
        if os.environ.get("LANGSLICE_NEED_ASSETS"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


def models_folder() -> Path:
    """Where `make models` puts whole trained models."""
    return Path(os.environ.get("LANGSLICE_MODELS", Path(__file__).parents[1] / "../models")).resolve()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose models are absent; where LANGSLICE_NEED_MODELS names one of them, fail it."""
    marks = list(item.iter_markers("models"))
    if not all(mark.args for mark in marks):
        pytest.fail("the mark `models` names the models that a test needs")
    for name in [name for mark in marks for name in mark.args]:
        if not (models_folder() / name / "README.md").is_file():
            message = f"no {name} in {models_folder()}: `make models` fetches it"
            if name in os.environ.get("LANGSLICE_NEED_MODELS", "").split():
                pytest.fail(message)
            pytest.skip(message)


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder of whole trained models; a test names those that it needs: `@pytest.mark.models("whisper-base")`."""
    return models_folder()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Give the folder of a tiny random checkpoint by model type; each is built once a session and never written to."""
    from tests.zoo import add_tokenizer, build

    root = tmp_path_factory.mktemp("zoo")

    def checkpoint(model_type: str) -> Path:
        folder = root / model_type
        return folder if folder.is_dir() else add_tokenizer(build(model_type, folder))

    return checkpoint


@pytest.fixture(scope="session")
def cut_slice(zoo, tmp_path_factory):
    """Give the folder of a slice in which everything was sliced, of a source with a card and a licence; never written to."""
    from tests.report_samples import SOURCE_CARD, make_slice

    root = tmp_path_factory.mktemp("report")
    source = shutil.copytree(zoo("llama"), root / "source")
    (source / "README.md").write_text(SOURCE_CARD)
    (source / "LICENSE").write_text("Do what you like.")
    return make_slice(source, root / "cut")


@pytest.fixture(scope="module")
def one_thread():
    """Let torch use one thread: tiny models on a busy machine are many times quicker so."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
