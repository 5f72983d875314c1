"""Reading checkpoints: layouts that are understood, and every kind of damage that is refused."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from langslice.errors import CheckpointError
from langslice.files.safetensors_header import build_header, read_header, tensor_size_bytes
from langslice.model.checkpoint import Checkpoint, open_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_raw(path: Path, header: object, data: bytes) -> Path:
    """Write a safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "tiny", "vocab_size": 4}')
    return model


def single(folder: Path) -> Path:
    header = {"__metadata__": {"format": "pt"}, "b": entry([2], 4, 6), "a": entry([2, 2], 0, 4)}
    return write_raw(folder / "model.safetensors", header, b"\x01\x02\x03\x04\x05\x06")


def sharded(folder: Path) -> Path:
    write_raw(folder / "model-00001-of-00002.safetensors", {"a": entry([2], 0, 2)}, b"ab")
    write_raw(folder / "model-00002-of-00002.safetensors", {"b": entry([1], 0, 1)}, b"c")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 3, "origin": "here"}, "weight_map": weight_map}))
    return index


def edit_map(index: Path, **changes: str | None) -> None:
    content = json.loads(index.read_text())
    content["weight_map"].update(changes)
    content["weight_map"] = {key: value for key, value in content["weight_map"].items() if value is not None}
    index.write_text(json.dumps(content))


def bytes_of(checkpoint: Checkpoint, name: str) -> bytes:
    tensor = checkpoint.tensors[name]
    with tensor.path.open("rb") as file:
        return os.pread(file.fileno(), tensor.size_bytes, tensor.start)


def refusal(model: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(model)
    assert caught.value.hint, "every refusal says what to try next"
    return caught.value.message


# ---- layouts -------------------------------------------------------------------------------------------------------


def test_single_file(folder: Path) -> None:
    single(folder)
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.tensors) == ["a", "b"]  # file order, not header order
    assert bytes_of(checkpoint, "a") == b"\x01\x02\x03\x04"
    assert bytes_of(checkpoint, "b") == b"\x05\x06"
    assert checkpoint.tensors["a"].shape == (2, 2)
    assert checkpoint.shards[0].metadata == {"format": "pt"}
    assert checkpoint.config == {"model_type": "tiny", "vocab_size": 4}
    assert (checkpoint.folder, checkpoint.model_folder, checkpoint.revision) == (folder, folder, None)


def test_sharded(folder: Path) -> None:
    sharded(folder)
    checkpoint = open_checkpoint(str(folder))
    assert [shard.name[:11] for shard in checkpoint.shards] == ["model-00001", "model-00002"]
    assert bytes_of(checkpoint, "b") == b"c"
    assert checkpoint.index_metadata == {"total_size": 3, "origin": "here"}


def test_safetensors_win_over_pickles_and_a_single_file_over_an_index(folder: Path) -> None:
    sharded(folder)
    single(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    checkpoint = open_checkpoint(folder)
    assert [shard.name for shard in checkpoint.shards] == ["model.safetensors"]
    assert checkpoint.notes == (
        "model.safetensors was read; model.safetensors.index.json next to it was not, as in transformers",
    )


def test_no_torch_for_safetensors(folder: Path) -> None:
    single(folder)
    code = (
        "import sys; from langslice.model.checkpoint import open_checkpoint; import langslice.writing.shards; "
        f"open_checkpoint({str(folder)!r}); "
        "print([name for name in ('torch', 'transformers', 'safetensors', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_sentence_transformers_folder(folder: Path, place: str) -> None:
    modules = [
        {"idx": 0, "name": "0", "path": place, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    if place:
        (folder / place).mkdir()
        (folder / "config.json").rename(folder / place / "config.json")
    single(folder / place)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.folder == folder
    assert checkpoint.model_folder == folder / place


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("[", "modules.json is not valid JSON"),
        ("[]", "expected one, found 0"),
        ('[{"type": "x.Transformer", "path": "../other"}]', "found '../other'"),
        ('[{"type": "x.Transformer", "path": "nowhere"}]', "found 'nowhere'"),
        ('[{"type": "x.Transformer"}]', "does not name one Transformer module"),
    ],
)
def test_broken_modules_file(folder: Path, modules: str, message: str) -> None:
    single(folder)
    (folder.parent / "other").mkdir()
    (folder / "modules.json").write_text(modules)
    assert message in refusal(folder)


@pytest.mark.assets
def test_real_files_agree_with_the_reference_reader(assets: Path) -> None:
    from safetensors import safe_open

    for name in ("all-MiniLM-L6-v2", "misaki-bart-us", "stories260K-llama"):
        checkpoint = open_checkpoint(assets / "weights" / name)
        with safe_open(checkpoint.shards[0].path, "np") as reference:
            assert set(reference.keys()) == set(checkpoint.tensors)
            for key in list(reference.keys())[::7]:
                assert reference.get_tensor(key).tobytes() == bytes_of(checkpoint, key), (name, key)


# ---- headers that lie ----------------------------------------------------------------------------------------------

LIES = {
    "overlap": (
        {"a": entry([4], 0, 4), "b": entry([4], 2, 6)},
        b"x" * 6,
        "begin of b: expected 4, found 2 (overlaps a)",
    ),
    "hole": (
        {"a": entry([2], 0, 2), "b": entry([2], 4, 6)},
        b"x" * 6,
        "begin of b: expected 2, found 4 (leaves a hole after a)",
    ),
    "hole at start": (
        {"a": entry([2], 1, 3)},
        b"xxx",
        "begin of a: expected 0, found 1 (leaves a hole after the header)",
    ),
    "truncated": ({"a": entry([4], 0, 4)}, b"xx", "bytes for a, found"),
    "trailing": ({"a": entry([4], 0, 4)}, b"x" * 9, "beyond what the header describes"),
    "size": ({"a": entry([4], 0, 4, "F32")}, b"xxxx", "data_offsets of a: expected 16 bytes for F32 [4], found 4"),
    "dtype": ({"a": entry([4], 0, 4, "F99")}, b"xxxx", "found F99"),
    "negative shape": ({"a": entry([-4], 0, 4)}, b"xxxx", "shape of a: expected a list of sizes, found [-4]"),
    "float shape": ({"a": entry([4.0], 0, 4)}, b"xxxx", "shape of a: expected a list of sizes, found [4.0]"),
    "true shape": ({"a": entry([True], 0, 1)}, b"x", "shape of a: expected a list of sizes, found [True]"),
    "backwards": ({"a": entry([4], 4, 0)}, b"xxxx", "[begin, end] with begin <= end, found [4, 0]"),
    "three offsets": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]}}, b"x", "found [0, 1, 2]"),
    "missing field": ({"a": {"dtype": "U8", "shape": [1]}}, b"x", "the fields dtype, shape and data_offsets"),
    "no entry": ({"a": 7}, b"", "tensor a: expected the fields dtype, shape and data_offsets, found int"),
    "bits": ({"a": entry([3], 0, 1, "F4")}, b"x", "F4 (3,) takes 12 bits"),
    "metadata": (
        {"__metadata__": {"format": 1}, "a": entry([1], 0, 1)},
        b"x",
        "__metadata__: expected an object of strings",
    ),
    "twice": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":1}', b"x", "found the key 'a' twice"),
    "not json": (b"{nope", b"", "the header: expected JSON with distinct keys"),
    "not utf-8": (b'{"\xff": 1}', b"", "the header: expected JSON with distinct keys"),
    "deep": (b"[" * 200_000, b"", "the header: expected JSON with distinct keys"),
    "a list": (b"[]", b"", "the header: expected a JSON object, found list"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_header(folder: Path, lie: str) -> None:
    header, data, message = LIES[lie]
    path = write_raw(folder / "model.safetensors", header, data)
    found = refusal(folder)
    assert message in found
    assert found.startswith("damaged weight file model.safetensors\n  " + str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least 8 bytes, found a file of 0 bytes"),
        (b"1234", "at least 8 bytes, found a file of 4 bytes"),
        (
            struct.pack("<Q", 1 << 60) + b"{}",
            "the header's length: expected at most 2 bytes, found 1,152,921,504,606,846,976",
        ),
        (struct.pack("<Q", 50) + b"{}", "the header's length: expected at most 2 bytes, found 50"),
        (struct.pack("<Q", 2) + b"{}", "no tensors found"),
    ],
)
def test_lying_length(folder: Path, content: bytes, message: str) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert message in refusal(folder)


def test_truncated_download(folder: Path) -> None:
    path = single(folder)
    path.write_bytes(path.read_bytes()[:-1])
    assert "(truncated?)" in refusal(folder)


def test_a_built_header_is_read_back(tmp_path: Path) -> None:
    tensors = [("b", "F32", (2, 3), 24), ("ключ", "BF16", (0, 4), 0), ("s", "I64", (), 8)]
    header = build_header(tensors, {"format": "pt"}, (4096, 24))
    assert len(header) % 4096 == 24
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + bytes(32))
    entries, metadata = read_header(path)
    assert sorted((t.name, t.dtype, t.shape, t.size_bytes) for t in entries) == sorted(tensors)
    assert metadata == {"format": "pt"}


def test_every_dtype_of_the_reference_writer_is_known(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from langslice.files.pickle_archive import DTYPE_NAMES

    for name, expected in DTYPE_NAMES.items():
        dtype = getattr(torch, name.removeprefix("torch."), None)
        if dtype is None:
            continue  # an older torch
        save_file(
            {"a": torch.zeros(6, dtype=torch.uint8).view(torch.uint8).to(torch.float32).to(dtype)}, tmp_path / "d"
        )
        (found,), _ = read_header(tmp_path / "d")
        assert (found.dtype, found.size_bytes) == (expected, tensor_size_bytes(expected, (6,)))


# ---- folders, indices and links ------------------------------------------------------------------------------------


def test_missing_things(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(b"x")
    message = refusal(folder)
    assert message.startswith("no weights found\n")
    assert "found config.json, weights.pt" in message
    single(folder)
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(folder)
    (folder / "config.json").write_text("{,}")
    assert "config.json is not valid JSON" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "config.json is not a JSON object" in refusal(folder)


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    assert "is a file\n  expected a model folder or a hub id" in refusal(single(folder))


def test_a_mistyped_folder_suggests_the_near_one(folder: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder.parent / "modle")
    assert caught.value.message.startswith(f"no model folder {folder.parent / 'modle'}")
    assert caught.value.hint == f"did you mean {folder}?"


def test_index_and_shards_must_agree(folder: Path) -> None:
    index = sharded(folder)
    text = index.read_text()
    edit_map(index, c="model-00002-of-00002.safetensors")
    assert "tensor c: expected in model-00002-of-00002.safetensors, found in no shard" in refusal(folder)
    index.write_text(text)
    edit_map(index, a="model-00002-of-00002.safetensors")
    assert "tensor a: expected in model-00002-of-00002.safetensors, found in no shard" in refusal(folder)
    index.write_text(text)
    write_raw(folder / "model-00002-of-00002.safetensors", {"b": entry([1], 0, 1), "x": entry([1], 1, 2)}, b"cd")
    assert "tensor x: expected in no shard (not in the index), found in model-00002" in refusal(folder)


def test_a_name_in_two_shards(folder: Path) -> None:
    sharded(folder)
    write_raw(folder / "model-00002-of-00002.safetensors", {"a": entry([1], 0, 1)}, b"c")
    message = "tensor a: expected a name of its own, found the same name in model-00001-of-00002.safetensors"
    assert message in refusal(folder)


def test_a_missing_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    message = refusal(folder)
    assert message.startswith("weight file model-00002-of-00002.safetensors is missing")
    assert "found no such file" in message


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "a\\b"])
def test_an_index_that_points_outside(folder: Path, name: str) -> None:
    edit_map(sharded(folder), b=name)
    assert f"expected a name in the same folder, found {name!r}" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "has no usable weight_map"),
        ('{"weight_map": {"a": 1}}', "has no usable weight_map"),
        ('{"weight_map": {}}', "has an empty weight_map"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' twice"),
        ('{"metadata": 3, "weight_map": {"a": "x"}}', "has metadata that is not an object"),
    ],
)
def test_a_broken_index(folder: Path, text: str, message: str) -> None:
    sharded(folder).write_text(text)
    assert message in refusal(folder)


def test_links_may_not_leave_the_folder(folder: Path) -> None:
    elsewhere = single(folder).rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(elsewhere)
    message = refusal(folder)
    assert "is a link that leaves the model folder" in message
    assert f"points to {elsewhere}" in message
    elsewhere.unlink()
    assert "found a broken symlink" in refusal(folder)


def test_links_inside_the_folder_are_resolved(folder: Path) -> None:
    inside = single(folder).rename(folder / "blob")
    (folder / "model.safetensors").symlink_to("blob")
    assert open_checkpoint(folder).shards[0].path == inside


def test_a_folder_where_a_shard_should_be(folder: Path) -> None:
    (folder / "model.safetensors").mkdir()
    assert "weight file model.safetensors is not a file" in refusal(folder)


# ---- the hub -------------------------------------------------------------------------------------------------------


class Hub:
    """A hub whose cache is laid out as the real one's, with blobs after symlinks; files come one pattern at a time."""

    def __init__(self, cache: Path) -> None:
        self.repo = cache / "models--org--name"
        self.snapshot = self.repo / "snapshots" / COMMIT
        self.files: dict[str, bytes] = {}
        self.calls: list[dict[str, object]] = []

    def download(
        self, repo_id: str, *, allow_patterns: list[str], ignore_patterns: list[str], **options: object
    ) -> str:
        from huggingface_hub.utils import filter_repo_objects

        self.calls.append({"repo_id": repo_id, **options})
        names = filter_repo_objects(self.files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        for name in names:
            path, blob = self.snapshot / name, self.repo / "blobs" / name.replace("/", "_")
            if not path.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                blob.write_bytes(self.files[name])
                path.symlink_to(os.path.relpath(blob, path.parent))
        return str(self.snapshot)

    def fetched(self) -> set[str]:
        return {str(path.relative_to(self.snapshot)) for path in self.snapshot.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.chdir(tmp_path)
    hub = Hub(tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.download)
    hub.files = dict.fromkeys(("README.md", "tokenizer.json", "tf_model.h5", "flax_model.msgpack", "q4.gguf"), b"{}")
    hub.files |= {"config.json": b'{"model_type": "tiny"}', "onnx/model.onnx": b"", "onnx/config.json": b"{}"}
    hub.files["model.fp16.safetensors"] = hub.files["consolidated.safetensors"] = b"not for us"
    return hub


def safetensors_bytes(tmp_path: Path) -> bytes:
    return write_raw(tmp_path / "made", {"a": entry([2], 0, 2)}, b"ab").read_bytes()


def pickle_bytes(tmp_path: Path, **tensors: object) -> bytes:
    import torch

    torch.save(tensors, tmp_path / "made.bin")
    return (tmp_path / "made.bin").read_bytes()


def test_hub_takes_one_weight_format_and_resolves_links(hub: Hub, tmp_path: Path) -> None:
    hub.files |= {"model.safetensors": safetensors_bytes(tmp_path), "pytorch_model.bin": b"unwanted"}
    checkpoint = open_checkpoint("org/name", revision="main", token="secret", cache_dir=tmp_path / "cache")
    assert hub.fetched() == {"README.md", "tokenizer.json", "config.json", "model.safetensors"}
    assert hub.calls == [
        {"repo_id": "org/name", "revision": "main", "token": "secret", "cache_dir": tmp_path / "cache"}
    ]
    assert (checkpoint.revision, checkpoint.model_id, checkpoint.folder) == (COMMIT, "org/name", hub.snapshot)
    assert checkpoint.shards[0].path == hub.repo / "blobs" / "model.safetensors"
    assert bytes_of(checkpoint, "a") == b"ab"
    assert open_checkpoint(hub.snapshot).revision is None  # the same folder, named by its path


def test_hub_falls_back_to_pickles(hub: Hub, tmp_path: Path) -> None:
    import torch

    hub.files["pytorch_model.bin"] = pickle_bytes(tmp_path, a=torch.arange(3))
    checkpoint = open_checkpoint("org/name")
    assert hub.fetched() == {"README.md", "tokenizer.json", "config.json", "pytorch_model.bin"}
    assert bytes_of(checkpoint, "a") == np.arange(3).tobytes()
    assert checkpoint.shards[0].name == "pytorch_model.bin"


def test_hub_fetches_weights_beside_the_weights(hub: Hub, tmp_path: Path) -> None:
    beside = {"sparse_linear.pt", "tuned/adapter_model.safetensors", "tuned/adapter_config.json"}
    hub.files |= dict.fromkeys((*beside, "optimizer.pt", "scheduler.pt"), b"{}")
    hub.files["model.safetensors"] = safetensors_bytes(tmp_path)
    open_checkpoint("org/name")
    assert hub.fetched() == {"README.md", "tokenizer.json", "config.json", "model.safetensors", *beside}


def test_hub_fetches_a_module_that_has_only_a_pickle(hub: Hub, tmp_path: Path) -> None:
    hub.files["modules.json"] = json.dumps(
        [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        ]
    ).encode()
    hub.files |= {"model.safetensors": safetensors_bytes(tmp_path), "pytorch_model.bin": b"unwanted"}
    hub.files["2_Dense/pytorch_model.bin"] = b"wanted"
    open_checkpoint("org/name")
    assert "2_Dense/pytorch_model.bin" in hub.fetched()
    assert "pytorch_model.bin" not in hub.fetched()


def hub_failures() -> dict[str, tuple[Exception, str, str]]:
    from huggingface_hub import errors

    def http(kind: type[Exception], text: str) -> Exception:
        return kind.__new__(kind, text)  # without the response object, whose type changes between versions of the hub

    return {
        "gated": (
            http(errors.GatedRepoError, "403"),
            "it is gated",
            "accept its terms at https://huggingface.co/org/name",
        ),
        "unknown": (http(errors.RepositoryNotFoundError, "404"), "no such model", "check the spelling"),
        "revision": (http(errors.RevisionNotFoundError, "404"), "it has no revision v9", "see its branches"),
        "offline": (errors.LocalEntryNotFoundError("no"), "the hub cannot be reached", "unset HF_HUB_OFFLINE"),
        "refused": (ConnectionError("no route"), "the hub cannot be reached", "name a local folder"),
    }


@pytest.mark.parametrize("kind", ["gated", "unknown", "revision", "offline", "refused"])
def test_hub_failures_are_one_message(hub: Hub, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    error, message, hint = hub_failures()[kind]

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint("org/name", revision="v9")
    assert caught.value.message.startswith("cannot get org/name from the hub: ")
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_offline_uses_what_the_cache_has(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    hub.files["model.safetensors"] = safetensors_bytes(tmp_path)
    open_checkpoint("org/name")
    (hub.repo / "refs").mkdir()
    (hub.repo / "refs" / "main").write_text(COMMIT)

    def offline(*_: object, **__: object) -> str:
        raise errors.LocalEntryNotFoundError("incomplete")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    checkpoint = open_checkpoint("org/name", cache_dir=tmp_path / "cache")
    assert checkpoint.revision == COMMIT
    assert bytes_of(checkpoint, "a") == b"ab"


def test_the_real_hub_client_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model-small").mkdir()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint("org/model-smal", cache_dir=tmp_path / "cache")
    expected = "cannot get org/model-smal from the hub: it is not in the local cache and the hub cannot be reached"
    assert caught.value.message.startswith(expected)
    assert str(caught.value.hint).startswith("did you mean the folder org/model-small? Else go online once")


@pytest.mark.parametrize("name", ["no such model", "a/b/c", "../x", "-x", "org/"])
def test_names_that_cannot_be_hub_ids(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(name)
    assert caught.value.message == f"no model folder {name}\n  and it cannot be a hub id, which looks like org/name"
    assert caught.value.hint == "name a model folder, or a hub id such as org/name"


# ---- pickles -------------------------------------------------------------------------------------------------------


def save(folder: Path, state: object, name: str = "pytorch_model.bin", **options: object) -> Path:
    import torch

    torch.save(state, folder / name, **options)  # type: ignore[arg-type]
    return folder / name


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_byte_ranges(folder: Path, legacy: bool) -> None:
    import torch

    base = torch.randn(6, 4)
    state = {
        "whole": torch.randn(5, 3).bfloat16(),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "tied": base,
        "other_tied": base,
        "view": base[2:4],
        "transposed": torch.randn(3, 5).T,
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    if not legacy:  # such archives are older than the type
        state["eight"] = torch.randn(4).to(torch.float8_e4m3fn)
    save(folder, state, _use_new_zipfile_serialization=not legacy)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.aliases == {"other_tied": "tied"}
    assert set(checkpoint.tensors) == set(state)
    for name, tensor in state.items():
        expected = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        assert bytes_of(checkpoint, name) == expected, name
        assert checkpoint.tensors[name].shape == tuple(tensor.shape)
    in_place = {name for name, tensor in checkpoint.tensors.items() if tensor.path == folder / "pytorch_model.bin"}
    assert in_place == (set() if legacy else set(state) - {"transposed"})
    assert len(checkpoint.notes) == 1
    assert (
        "an archive of torch before 1.6" if legacy else "pytorch_model.bin: 1 tensor not stored as shaped; 60 bytes"
    ) in checkpoint.notes[0]


def test_converted_tensors_vanish_with_the_checkpoint(folder: Path) -> None:
    import torch

    save(folder, {"a": torch.randn(3, 5).T})
    checkpoint = open_checkpoint(folder)
    scratch = checkpoint.tensors["a"].path.parent
    assert scratch.is_dir()
    del checkpoint
    assert not scratch.exists()


def test_sharded_pickles(folder: Path) -> None:
    import torch

    save(folder, {"a": torch.arange(4)}, "pytorch_model-00001-of-00002.bin")
    save(folder, {"b": torch.arange(5)}, "pytorch_model-00002-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(folder)
    assert bytes_of(checkpoint, "b") == np.arange(5).tobytes()
    assert [shard.format for shard in checkpoint.shards] == ["pickle", "pickle"]


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("code-was-run",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code(folder: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool) -> None:
    monkeypatch.chdir(folder)
    save(folder, {"a": Code()}, _use_new_zipfile_serialization=not legacy)
    message = refusal(folder)
    assert message.startswith("pytorch_model.bin holds code, which was not run")
    assert f"found a call of {os.mkdir.__module__}.mkdir" in message
    assert not Path("code-was-run").exists()


def test_pickles_of_other_things(folder: Path) -> None:
    import torch

    save(folder, {"epoch": 3, "a": torch.ones(1), "inner": {"b": torch.ones(1)}})
    message = refusal(folder)
    assert message.startswith("pytorch_model.bin holds something other than plain tensors")
    assert message.endswith("epoch: int\n  inner: dict")
    save(folder, [torch.ones(1)])
    assert "expected a dict of tensors, found list" in refusal(folder)
    save(folder, {"s": torch.eye(3).to_sparse()})
    assert "s: Tensor" in refusal(folder)


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -200])
def test_damaged_pickles(folder: Path, cut: int) -> None:
    import torch

    path = save(folder, {"a": torch.arange(1000)})
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    assert refusal(folder).startswith("damaged weight file pytorch_model.bin")


def test_a_pickle_whose_bytes_were_moved_is_converted_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    save(folder, {"a": torch.arange(1000)})
    monkeypatch.setattr("langslice.files.pickle_archive._same_bytes", lambda file, start, tensor: False)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tensors["a"].path != folder / "pytorch_model.bin"
    assert bytes_of(checkpoint, "a") == np.arange(1000).tobytes()


def test_no_room_to_convert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    import torch

    save(folder, {"a": torch.randn(30, 5).T})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 900, 100))
    message = refusal(folder)
    assert message.startswith("no room to convert tensors")
    assert message.endswith("expected 600 bytes, found 100 bytes free")


def test_mapping_base_by_hand() -> None:
    from langslice.files.pickle_archive import _mapping_base

    records = {64: 10, 128: 20, 4224: 10}
    assert _mapping_base({8192 + 64: 10, 8192 + 128: 20}, records) == 8192
    assert _mapping_base({8192 + 128: 20}, records) == 8192
    assert _mapping_base({8192 + 64: 11}, records) is None  # no record of that size
    assert _mapping_base({8192 + 65: 10}, records) is None  # not at a page
    assert _mapping_base({8192 + 64: 10}, {64: 10, 4160: 10}) is None  # two places fit
