"""Writing shards: slices on disk equal slices in memory, every way of the bytes, and every way to fail cleanly."""

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from langslice.errors import CheckpointError, OutputError, PlanError
from langslice.files import atomic_output as staging
from langslice.files import copy_ranges as copying
from langslice.files import gather_rows as gathering
from langslice.files.gather_rows import Windows, gather, split_gather
from langslice.files.safetensors_header import build_header, read_header
from langslice.model.checkpoint import Checkpoint, open_checkpoint
from langslice.writing.shards import TensorEdit, WriteReport, output_size, staging_folder, write_shards

KEEP = TensorEdit("keep")
DTYPES = ("F32", "F16", "BF16", "I8", "F8_E4M3", "BOOL", "I64", "U16", "F64", "C64")


def cut(**dims: list[int]) -> TensorEdit:
    """`cut(d0=[2, 0])` takes rows 2 and 0."""
    return TensorEdit("slice", {int(key[1:]): np.array(values, np.int64) for key, values in dims.items()})


def torch_tensors(seed: int = 0) -> dict:
    """Tensors of every dtype, with distinct axis sizes, a scalar, an empty one, and one with four dimensions."""
    import torch

    torch.manual_seed(seed)
    return {
        "f32": torch.randn(11, 7),
        "f16": torch.randn(11, 5).half(),
        "bf16": torch.randn(13, 6).bfloat16(),
        "i8": torch.randint(-128, 127, (9, 3), dtype=torch.int8),
        "f8": torch.randn(8, 4).to(torch.float8_e4m3fn),
        "bool": torch.rand(10) > 0.5,
        "i64": torch.randint(0, 1 << 60, (6,)),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "c64": torch.randn(5, 2, dtype=torch.complex64),
        "four": torch.randn(3, 4, 5, 6),
    }


EDITS = {
    "f32": cut(d0=[0, 1, 2, 8, 10], d1=[6, 0, 0]),
    "f16": cut(d1=[4, 1]),
    "bf16": cut(d0=[12, 3, 3, 0]),
    "i8": cut(d0=[0, 8], d1=[2]),
    "f8": cut(d0=[7, 1, 2]),
    "bool": cut(d0=[9, 0, 4]),
    "i64": cut(d0=[1, 2, 5]),
    "scalar": KEEP,
    "empty": cut(d1=[3, 0]),
    "c64": cut(d1=[1]),
    "four": cut(d0=[2, 0], d2=[4, 1, 1], d3=[0, 5]),
}


def sliced(tensor, edit: TensorEdit):
    """The same slice in memory."""
    import torch

    for dim, values in edit.indices.items():
        view = tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor
        tensor = view.index_select(dim, torch.from_numpy(values)).view(tensor.dtype)
    return tensor


def equal(one, other) -> bool:
    import torch

    def raw(tensor):
        return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor.shape

    same = raw(one) == raw(other)
    return (
        one.dtype == other.dtype and one.shape == other.shape and (same if isinstance(same, bool) else bool(same.all()))
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def save_single(folder: Path, tensors: dict) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "origin": "here"})


def save_sharded(folder: Path, *shards: dict, metadata: dict | None = None) -> None:
    """Write shards as save_pretrained does, with an index."""
    from safetensors.torch import save_file

    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"} if metadata is None else metadata or None)
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": 0, "total_parameters": 0, "origin": "here"}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def load(folder: Path) -> dict:
    from safetensors.torch import load_file

    tensors: dict = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def write(source: Path, out: Path, edits: dict[str, TensorEdit], **options) -> tuple[Checkpoint, WriteReport]:
    """Write, and check what holds of every output: the report, the progress and the alignment."""
    checkpoint = open_checkpoint(source)
    steps: list[int] = []
    report = write_shards(checkpoint, edits, out, progress=steps.append, **options)
    assert sum(steps) == output_size(checkpoint, edits) == sum(report.bytes_by_method.values())
    assert sorted(report.files) == sorted(path.name for path in out.iterdir())
    assert report.size_bytes == sum((out / name).stat().st_size for name in report.files)
    shutil.copy(source / "config.json", out / "config.json")
    written = open_checkpoint(out)
    assert all(tensor.start % 8 == 0 for tensor in written.tensors.values() if tensor.dtype in ("I64", "F64", "C64"))
    return written, report


# ---- two ways that must agree -------------------------------------------------------------------------------------


def test_slices_by_hand(source: Path, out: Path) -> None:
    data = bytes(range(12))
    header = build_header([("a", "U8", (4, 3), 12)], {}, (8, 0))
    (source / "model.safetensors").write_bytes(header + data)
    written, report = write(source, out, {"a": cut(d0=[3, 0], d1=[2, 2, 0])})
    tensor = written.tensors["a"]
    assert tensor.shape == (2, 3)
    assert tensor.path.read_bytes()[tensor.start :] == bytes([11, 11, 9, 2, 2, 0])
    assert report.bytes_by_method == {"gather": 6}
    assert written.shards[0].metadata == {"format": "pt"}


@pytest.mark.parametrize("window_bytes", [256, 16 << 20])
@pytest.mark.parametrize("layout", ["single", "sharded", "pickle", "legacy pickle", "sharded pickle"])
def test_slices_on_disk_equal_slices_in_memory(
    source: Path, out: Path, layout: str, window_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(split_gather, "__defaults__", (window_bytes,))
    monkeypatch.setattr(Windows.__init__, "__defaults__", (window_bytes,))
    monkeypatch.setattr("langslice.writing.shard_steps.STEP_BYTES", window_bytes)
    tensors = torch_tensors()
    edits = dict(EDITS)
    if layout == "legacy pickle":
        del tensors["f8"], edits["f8"]
    names = list(tensors)
    first = {name: tensors[name] for name in names[:4]}
    second = {name: tensors[name] for name in names[4:]}
    if layout == "single":
        save_single(source, tensors)
    elif layout == "sharded":
        save_sharded(source, first, second)
    elif layout == "sharded pickle":
        for number, part in enumerate((first, second), 1):
            torch.save(part, source / f"pytorch_model-{number:05d}-of-00002.bin")
        weight_map = {name: f"pytorch_model-{1 + (name in second):05d}-of-00002.bin" for name in names}
        (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    else:
        save_options = {"_use_new_zipfile_serialization": layout == "pickle"}
        torch.save(tensors, source / "pytorch_model.bin", **save_options)
    written, report = write(source, out, edits)
    found = load(out)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert equal(found[name], sliced(tensor, edits[name])), name
    expected = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    assert set(report.files) == (expected if "sharded" in layout else {"model.safetensors"})
    if layout == "single":
        assert written.shards[0].metadata == {"format": "pt", "origin": "here"}


def test_random_gathers_equal_numpy(tmp_path: Path) -> None:
    random_state = np.random.default_rng(7)
    for case in range(60):
        shape = tuple(int(n) for n in random_state.integers(1, 9, size=random_state.integers(1, 4)))
        itemsize = int(random_state.choice([1, 2, 4, 8]))
        tensor = random_state.integers(0, 255, size=(*shape, itemsize), dtype=np.uint8)
        dims = [dim for dim in range(len(shape)) if random_state.random() < 0.6] or [0]
        indices = {dim: random_state.integers(0, shape[dim], size=random_state.integers(1, 12)) for dim in dims}
        if case % 3 == 0:
            indices = {dim: np.sort(values) for dim, values in indices.items()}
        expected = tensor
        for dim, values in indices.items():
            expected = np.take(expected, values, axis=dim)
        (tmp_path / "in").write_bytes(b"pad" + tensor.tobytes())
        window_bytes = int(random_state.choice([8, 40, 1000]))
        with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("w+b") as target:
            for piece in split_gather(3, shape, indices, itemsize, 5, window_bytes):
                gather(source.fileno(), target.fileno(), piece, Windows(window_bytes), lambda size: None)
        assert (tmp_path / "out").read_bytes()[5:] == expected.tobytes(), (case, shape, indices)


def test_rows_far_apart_are_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, width = 3000, 1024
    table = np.random.default_rng(0).integers(0, 255, size=(rows, width), dtype=np.uint8)
    (tmp_path / "in").write_bytes(table.tobytes())
    reads: list[tuple[int, int]] = []
    read_into = gathering.read_into

    def recorded(source: int, buffer: memoryview, start: int) -> None:
        reads.append((start // width, len(buffer) // width))
        read_into(source, buffer, start)

    monkeypatch.setattr(gathering, "read_into", recorded)
    kept = np.array([0, 1, 2, 100, 900, 2999, 901])
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("w+b") as target:
        for piece in split_gather(0, (rows, width), {0: kept}, 1, 0):
            gather(source.fileno(), target.fileno(), piece, Windows(), lambda size: None)
    assert reads == [(0, 101), (900, 2), (2999, 1)]
    assert (tmp_path / "out").read_bytes() == table[kept].tobytes()


def test_alignment_is_repaired(source: Path, out: Path) -> None:
    """Three bytes before an F32 would leave it where torch cannot view it."""
    import torch

    tensors = {"a": torch.arange(4, dtype=torch.uint8), "b": torch.randn(3)}
    data = tensors["a"].numpy().tobytes() + tensors["b"].numpy().tobytes()
    (source / "model.safetensors").write_bytes(
        build_header([("a", "U8", (4,), 4), ("b", "F32", (3,), 12)], {}, (8, 0)) + data
    )
    written, _ = write(source, out, {"a": cut(d0=[1, 2, 3]), "b": KEEP})
    assert list(written.tensors) == ["b", "a"]
    assert equal(load(out)["b"], tensors["b"])
    assert load(out)["a"].tolist() == [1, 2, 3]


def test_packed_types_pass_through_and_are_not_sliced(source: Path, out: Path) -> None:
    header = build_header([("q", "F4", (4, 2), 4), ("w", "U8", (4,), 4)], {"format": "pt"}, (8, 0))
    (source / "model.safetensors").write_bytes(header + b"abcdefgh")
    with pytest.raises(PlanError, match="F4 packs several elements into a byte"):
        write_shards(open_checkpoint(source), {"q": cut(d0=[1]), "w": KEEP}, out)
    written, _ = write(source, out, {"q": KEEP, "w": cut(d0=[3])})
    assert written.tensors["q"].path.read_bytes()[-5:] in (b"abcdh", b"habcd")
    assert (written.tensors["q"].dtype, written.tensors["q"].shape) == ("F4", (4, 2))


def test_dropped_tensors_and_shards_leave_the_index(source: Path, out: Path) -> None:
    import torch

    tensors = torch_tensors()
    save_sharded(source, {"a": tensors["f32"], "b": tensors["f16"]}, {"c": tensors["bf16"]})
    drop = TensorEdit("drop", reason="tied to a")
    written, report = write(source, out, {"a": KEEP, "b": drop, "c": drop})
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"a": "model-00001-of-00002.safetensors"}
    assert index["metadata"] == {"total_size": 11 * 7 * 4, "total_parameters": 77, "origin": "here"}
    assert report.notes == ("model-00002-of-00002.safetensors is not in the output: every tensor of it is dropped",)
    assert list(written.tensors) == ["a"]
    assert torch.equal(load(out)["a"], tensors["f32"])


def test_neighbours_of_a_dropped_tensor_are_not_joined(source: Path, out: Path) -> None:
    header = build_header([(name, "U8", (2,), 2) for name in "abcd"], {"format": "pt"}, (8, 0))
    (source / "model.safetensors").write_bytes(header + b"aabbccdd")
    write(source, out, {"a": KEEP, "b": TensorEdit("drop"), "c": KEEP, "d": KEEP})
    assert (out / "model.safetensors").read_bytes().endswith(b"aaccdd")


def test_aliases_may_be_dropped(source: Path, out: Path) -> None:
    import torch

    table = torch.randn(6, 4)
    torch.save({"embed": table, "head": table}, source / "pytorch_model.bin")
    checkpoint = open_checkpoint(source)
    edits = {
        name: TensorEdit("drop", reason="tied") if name in checkpoint.aliases else cut(d0=[5, 1])
        for name in checkpoint.tensors
    }
    written, _ = write(source, out, edits)
    assert list(written.tensors) == ["embed"]
    assert torch.equal(load(out)["embed"], table[[5, 1]])


@pytest.mark.assets
def test_keeping_everything_keeps_every_byte(assets: Path, tmp_path: Path) -> None:
    source = assets / "weights" / "all-MiniLM-L6-v2"
    checkpoint = open_checkpoint(source)
    with staging_folder(tmp_path / "out", source=source) as folder:
        write_shards(checkpoint, dict.fromkeys(checkpoint.tensors, KEEP), folder)
    before, after = load(source), load(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(equal(before[name], after[name]) for name in before)


# ---- edits that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({}, "2 tensors without an edit\n  a\n  b"),
        ({"a": KEEP, "b": KEEP, "c": KEEP}, "1 tensors not in the source\n  c"),
        ({"a": cut(d0=[4]), "b": KEEP}, "indices of dimension 0: expected 0 to 3, found 4 to 4"),
        ({"a": cut(d0=[-1]), "b": KEEP}, "indices of dimension 0: expected 0 to 3, found -1 to -1"),
        ({"a": cut(d2=[0]), "b": KEEP}, "dimension: expected below 2, found 2"),
        ({"a": cut(), "b": KEEP}, "expected at least one dimension, found none"),
        ({"a": KEEP, "b": cut(d0=[0])}, "dimension: expected below 0, found 0"),
        ({"a": TensorEdit("slice", {0: np.array([0.0])}), "b": KEEP}, "expected a one-dimensional int64 array"),
        ({"a": TensorEdit("slice", {0: np.array([[0]])}), "b": KEEP}, "expected a one-dimensional int64 array"),
        ({"a": TensorEdit("keep", {0: np.array([0])}), "b": KEEP}, "expected none for 'keep', found dimensions [0]"),
        ({"a": TensorEdit("copy"), "b": KEEP}, "expected one of keep, slice, drop, found 'copy'"),
        ({"a": TensorEdit("drop"), "b": TensorEdit("drop")}, "the plan drops every tensor"),
    ],
)
def test_impossible_edits_write_nothing(source: Path, out: Path, edits: dict, message: str) -> None:
    import torch

    save_single(source, {"a": torch.zeros(4, 2), "b": torch.tensor(1)})
    with pytest.raises(PlanError) as caught:
        write_shards(open_checkpoint(source), edits, out)
    assert message in caught.value.message
    assert list(out.iterdir()) == []


def test_output_size_by_hand(source: Path) -> None:
    import torch

    save_single(source, {"a": torch.zeros(4, 2), "b": torch.zeros(3).half(), "c": torch.zeros(9)})
    edits = {"a": cut(d0=[0, 0, 1], d1=[1]), "b": KEEP, "c": TensorEdit("drop")}
    assert output_size(open_checkpoint(source), edits) == 3 * 1 * 4 + 3 * 2


def test_a_source_that_shrinks_meanwhile(source: Path, out: Path) -> None:
    import torch

    save_single(source, {"a": torch.zeros(400, 2), "b": torch.zeros(300)})
    checkpoint = open_checkpoint(source)
    os.truncate(checkpoint.shards[0].path, 500)
    for edits in ({"a": cut(d0=[399]), "b": KEEP}, {"a": TensorEdit("drop"), "b": KEEP}):
        with pytest.raises(CheckpointError, match="a weight file ended early"):
            write_shards(checkpoint, edits, out)
        shutil.rmtree(out)
        out.mkdir()


# ---- ways of whole files: links and reflinks ----------------------------------------------------------------------


def two_shards(source: Path, metadata: dict | None = None) -> dict[str, TensorEdit]:
    tensors = torch_tensors()
    save_sharded(source, {"a": tensors["f32"]}, {"b": tensors["four"], "c": tensors["i64"]}, metadata=metadata)
    return {"a": cut(d0=[1, 2]), "b": KEEP, "c": KEEP}


def test_links_share_only_untouched_shards(source: Path, out: Path) -> None:
    edits = two_shards(source)
    _, report = write(source, out, edits, link=True)
    first, second = (f"model-{number:05d}-of-00002.safetensors" for number in (1, 2))
    assert (out / second).samefile(source / second)
    assert not (out / first).samefile(source / first)
    assert not (out / "model.safetensors.index.json").samefile(source / "model.safetensors.index.json")
    assert report.bytes_by_method == {"gather": 2 * 7 * 4, "link": 3 * 4 * 5 * 6 * 4 + 48}
    assert report.notes == ()


def test_links_reach_through_symlinks(source: Path, out: Path) -> None:
    edits = two_shards(source)
    name = "model-00002-of-00002.safetensors"
    (source / name).rename(source / "blob")
    (source / name).symlink_to("blob")
    write(source, out, edits, link=True)
    assert not (out / name).is_symlink()
    assert (out / name).samefile(source / "blob")


def test_without_link_nothing_is_shared(source: Path, out: Path) -> None:
    edits = two_shards(source)
    _, report = write(source, out, edits)
    assert all(path.stat().st_nlink == 1 for path in out.iterdir())
    name = "model-00002-of-00002.safetensors"
    assert (out / name).read_bytes() == (source / name).read_bytes()  # an untouched shard keeps its hash
    assert report.bytes_by_method.keys() <= {"gather", "copy", "reflink"}


def test_an_impossible_link_becomes_a_copy_and_says_so(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = two_shards(source)

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(copying, "clone_file", lambda source, target: False)
    _, report = write(source, out, edits, link=True)
    assert report.bytes_by_method.keys() == {"gather", "copy"}
    assert len(report.notes) == 1
    assert "model-00002-of-00002.safetensors was copied: a hard link from" in report.notes[0]


def test_a_header_without_format_is_rewritten_not_linked(source: Path, out: Path) -> None:
    edits = two_shards(source, metadata={})
    written, report = write(source, out, edits, link=True)
    assert "link" not in report.bytes_by_method
    assert all(shard.metadata == {"format": "pt"} for shard in written.shards)


class FakeReflinks:
    """A file system that can share blocks, as the kernel's rules have it: FICLONE, and FICLONERANGE on whole blocks."""

    def __init__(self, refuse_ranges: bool = False) -> None:
        self.ranges: list[tuple[int, int, int]] = []
        self.files = 0
        self.refuse_ranges = refuse_ranges

    def ioctl(self, target: int, request: int, argument: object) -> int:
        if request == copying.FICLONE:
            assert isinstance(argument, int)
            self.files += 1
            os.pwrite(target, os.pread(argument, os.fstat(argument).st_size, 0), 0)
            return 0
        assert request == copying.FICLONERANGE
        assert isinstance(argument, bytes)
        source, start, size_bytes, target_start = struct.unpack("qQQQ", argument)
        if self.refuse_ranges or start % 4096 or target_start % 4096 or size_bytes % 4096 or size_bytes == 0:
            raise OSError(errno.EINVAL, "not whole blocks")
        self.ranges.append((start, size_bytes, target_start))
        os.pwrite(target, os.pread(source, size_bytes, start), target_start)
        return 0


def large_tensors() -> dict:
    import torch

    torch.manual_seed(1)
    return {
        "embed": torch.randn(100, 33),
        "w1": torch.randn(300, 33).half(),
        "w2": torch.randn(100, 100),
        "norm": torch.randn(33),
    }


@pytest.mark.parametrize("refuse_ranges", [False, True])
def test_reflinks(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, refuse_ranges: bool) -> None:
    tensors = large_tensors()
    save_sharded(
        source, {"embed": tensors["embed"], "w1": tensors["w1"], "w2": tensors["w2"]}, {"norm": tensors["norm"]}
    )
    fake = FakeReflinks(refuse_ranges)
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    edits = {"embed": cut(d0=list(range(0, 92, 2))), "w1": KEEP, "w2": KEEP, "norm": KEEP}
    _, report = write(source, out, edits, link=True)
    for name, tensor in load(out).items():
        assert equal(tensor, sliced(tensors[name], edits[name])), name
    assert "link" not in report.bytes_by_method  # a reflink is as quick, and safe to write to
    assert fake.files >= 2  # the trial, and the untouched shard
    name = "model-00002-of-00002.safetensors"
    assert not (out / name).samefile(source / name)
    assert (out / name).read_bytes() == (source / name).read_bytes()
    whole = 33 * 4
    kept = 300 * 33 * 2 + 100 * 100 * 4
    if refuse_ranges:
        assert report.bytes_by_method == {"gather": 46 * 33 * 4, "copy": kept, "reflink": whole}
    else:
        shared = report.bytes_by_method["reflink"] - whole
        assert shared % 4096 == 0
        assert kept - 2 * 4096 < shared <= kept
        assert report.bytes_by_method["copy"] == kept - shared
        assert sum(size for _, size, _ in fake.ranges) == shared


def test_clone_part_by_hand() -> None:
    assert copying.clone_part(100, 10_000, 4196) == (3996, 4096)
    assert copying.clone_part(0, 8192, 4096) == (0, 8192)
    assert copying.clone_part(0, 8191, 4096) == (0, 4096)
    assert copying.clone_part(100, 10_000, 4197) == (0, 0)
    assert copying.clone_part(100, 4000, 100) == (0, 0)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_copy_file_range(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    tensors = torch_tensors()
    save_single(source, tensors)

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(copying, "FALLBACK_STEP_BYTES", 100)
    write(source, out, {**dict.fromkeys(tensors, KEEP), "f16": cut(d0=[1])})
    assert all(equal(tensor, load(out)[name]) for name, tensor in tensors.items() if name != "f16")


def test_copy_file_range_that_copies_nothing(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = torch_tensors()
    save_single(source, tensors)
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    write(source, out, {**dict.fromkeys(tensors, KEEP), "f16": cut(d0=[1])})
    assert equal(load(out)["four"], tensors["four"])


# ---- the disk ------------------------------------------------------------------------------------------------------


def test_space_is_checked_first(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = two_shards(source)
    real = os.statvfs(out)
    small = os.statvfs_result([*real[:4], 1000 // real.f_frsize, *real[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    with pytest.raises(OutputError) as caught:
        write_shards(open_checkpoint(source), edits, out, reserve_bytes=5_000_000)
    assert caught.value.message.startswith(f"the disk is too small for the output\n  {out.parent}\n  expected 5,00")
    assert "found 0 bytes free" in caught.value.message
    assert list(out.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where the tests may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", place], capture_output=True, check=False)
    yield place
    if mounted.returncode == 0:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("kept", ["copied", "gathered"])
def test_a_disk_that_fills_up(source: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    """On a real small disk as root; elsewhere writes are made to fail as they would there."""
    import torch

    save_single(source, {"a": torch.zeros(300, 1000), "b": torch.zeros(1)})
    edit = KEEP if kept == "copied" else cut(d0=list(range(299)))
    if not small_disk.is_mount():

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "copy_file_range", full)
        monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(
        "langslice.writing.shards.check_space", lambda folder, needed_bytes: None
    )  # somebody else fills it
    before = (source / "model.safetensors").read_bytes()
    with (
        pytest.raises(OutputError, match="it became full while writing"),
        staging_folder(small_disk / "out", source=source) as folder,
    ):
        write_shards(open_checkpoint(source), {"a": edit, "b": cut(d0=[0])}, folder)
    assert list(small_disk.iterdir()) == []
    assert (source / "model.safetensors").read_bytes() == before


def test_other_write_errors_are_told_too(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = two_shards(source)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OutputError, match="writing the weights failed"):
        write_shards(open_checkpoint(source), edits, out)


def test_every_file_and_folder_is_synced(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = two_shards(source)
    (tmp_path / "bare").mkdir()
    synced: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with staging_folder(tmp_path / "o", source=source) as folder:
        report = write_shards(open_checkpoint(source), edits, folder)
        (folder / "sub").mkdir()
        (folder / "sub" / "README.md").write_text("of somebody else")
    assert set(synced) == {*report.files, folder.name, tmp_path.name, "sub", "README.md"}
    synced.clear()
    write_shards(open_checkpoint(source), edits, tmp_path / "bare")
    assert set(synced) == {*report.files, "bare"}


# ---- staging -------------------------------------------------------------------------------------------------------


def unfinished(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".")]


def test_the_output_appears_at_the_end(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    with staging_folder(target, source=source) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(f".new.partial-{os.getpid()}-")
        assert not target.exists()
        (folder / "x").write_text("1")
    assert (target / "x").read_text() == "1"
    assert unfinished(tmp_path) == []
    assert target.stat().st_mode & 0o777 == (tmp_path / "source").stat().st_mode & 0o777  # the user's umask, not 0700


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(source: Path, tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staging_folder(tmp_path / "new", source=source) as folder:
        (folder / "x").write_text("1")
        raise error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_places_that_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("there")
    cases = {
        source: "the output lies inside the source",
        source / "out": "the output lies inside the source",
        tmp_path: "the source lies inside the output",
        tmp_path / "there" / ".." / "source" / "x": "the output lies inside the source",
        tmp_path / "there": "the output exists\n",
        tmp_path / "file": "the output exists and is not a folder",
        tmp_path / "link": "the output exists and is not a folder",
        tmp_path / "no" / "where": "the folder for the output does not exist",
    }
    for target, message in cases.items():
        with pytest.raises(OutputError) as caught, staging_folder(target, source=source):
            pytest.fail("entered")
        assert caught.value.message.startswith(message), target
        assert caught.value.hint
    assert unfinished(tmp_path) == []


def test_an_unwritable_parent(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(OutputError, match="cannot write next to the output"),
        staging_folder(tmp_path / "o", source=source),
    ):
        pytest.fail("entered")


@pytest.mark.parametrize("exchange", [True, False])
def test_overwrite_swaps_at_the_end(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    target = tmp_path / "o"
    target.mkdir()
    (target / "config.json").write_text("old")
    with pytest.raises(ValueError, match="midway"), staging_folder(target, source=source, overwrite=True) as folder:
        raise ValueError("midway")
    assert (target / "config.json").read_text() == "old"
    with staging_folder(target, source=source, overwrite=True) as folder:
        (folder / "config.json").write_text("new")
        assert (target / "config.json").read_text() == "old"
    assert (target / "config.json").read_text() == "new"
    assert unfinished(tmp_path) == []


def test_overwrite_spares_what_is_not_a_model(source: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with (
        pytest.raises(OutputError, match="is not a model folder"),
        staging_folder(tmp_path / "photos", source=source, overwrite=True),
    ):
        pytest.fail("entered")
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_an_output_that_appears_meanwhile_is_kept(source: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="appeared while it was being written"),
        staging_folder(tmp_path / "o", source=source),
    ):
        (tmp_path / "o").mkdir()
        (tmp_path / "o" / "x").write_text("theirs")
    assert (tmp_path / "o" / "x").read_text() == "theirs"
    assert unfinished(tmp_path) == []


def test_only_unfinished_folders_of_the_dead_are_removed(source: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    stale = tmp_path / f".o.partial-{dead.pid}-0123abcd"
    alive = tmp_path / f".o.partial-{os.getppid()}-0123abcd"
    locked = tmp_path / f".o.partial-{dead.pid}-locked00"
    others = tmp_path / f".other.partial-{dead.pid}-0123abcd"
    similar = tmp_path / ".o.partial-mine"
    for folder in (stale, alive, locked, others, similar):
        folder.mkdir()
    notices: list[str] = []
    descriptor = os.open(locked, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with staging_folder(tmp_path / "o", source=source, notice=notices.append):
        pass
    os.close(descriptor)
    assert [folder.exists() for folder in (stale, alive, locked, others, similar)] == [False, True, True, True, True]
    assert notices == [f"removed {stale}, left unfinished by a run that was killed"]


# ---- signals -------------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from langslice.files import copy_ranges as copying
from langslice.model.checkpoint import open_checkpoint
from langslice.writing.shards import TensorEdit, staging_folder, write_shards
import numpy as np
copying.COPY_STEP_BYTES = 1 << 16
source, out = Path(sys.argv[1]), Path(sys.argv[2])
checkpoint = open_checkpoint(source)
def slowly(size_bytes):
    print(size_bytes, flush=True)
    time.sleep(0.005)
edits = {"a": TensorEdit("keep"), "b": TensorEdit("slice", {0: np.arange(1, 1000)})}
with staging_folder(out, source=source, notice=lambda text: print(text, file=sys.stderr)) as folder:
    write_shards(checkpoint, edits, folder, progress=slowly)
"""


def start_child(source: Path, out: Path) -> subprocess.Popen:
    import torch

    if not (source / "model.safetensors").exists():
        save_single(source, {"a": torch.zeros(5000, 1000), "b": torch.zeros(1000, 100)})
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(source), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """Undo what nohup and a shell's `&` do: a process that they start ignores these signals, and so do its children."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def interrupt(child: subprocess.Popen, number: int, after_steps: int) -> None:
    assert child.stdout is not None
    for _ in range(after_steps):
        child.stdout.readline()
    time.sleep(random.random() * 0.02)
    child.send_signal(number)
    child.communicate(timeout=60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)])
def test_signals_leave_nothing(source: Path, tmp_path: Path, number: int, code: int | None) -> None:
    child = start_child(source, tmp_path / "o")
    interrupt(child, number, 3)
    assert child.returncode != 0
    assert code is None or child.returncode == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.robustness
def test_kill_leaves_only_what_its_name_calls_unfinished(source: Path, tmp_path: Path) -> None:
    """Killed at several random moments; the next run cleans up, says so, and succeeds."""
    target = tmp_path / "o"
    for round_number in range(2):
        child = start_child(source, target)
        interrupt(child, signal.SIGKILL, random.randint(1, 60))
        assert not target.exists()
        left = unfinished(tmp_path)
        assert [name.startswith(f".o.partial-{child.pid}-") for name in left] == [True], (round_number, left)
    child = start_child(source, target)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert "left unfinished by a run that was killed" in errors
    assert unfinished(tmp_path) == []
    entries, _ = read_header(target / "model.safetensors")
    assert {entry.name: entry.shape for entry in entries} == {"a": (5000, 1000), "b": (999, 100)}


def test_peak_memory_does_not_follow_the_model(source: Path, tmp_path: Path) -> None:
    """A 300 MB table and 100 MB of copied bytes, sliced in a process of its own, within 150 MB."""
    rows, width = 75_000, 1000
    tensors = [("table", "F32", (rows, width), rows * width * 4), ("other", "F32", (25_000, 1000), 100_000_000)]
    with (source / "model.safetensors").open("wb") as file:
        file.write(build_header(tensors, {"format": "pt"}, (8, 0)))
        file.truncate(file.tell() + 400_000_000)  # zeros that take no room
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from langslice.model.checkpoint import open_checkpoint\nfrom langslice.writing.shards import TensorEdit, write_shards\n"
        "edits = {'table': TensorEdit('slice', {0: np.arange(0, 75_000, 2)}), 'other': TensorEdit('keep')}\n"
        "write_shards(open_checkpoint(sys.argv[1]), edits, Path(sys.argv[2]))\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0], 'torch' in sys.modules)\n"
    )
    folder = tmp_path / "o"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", code, source, folder], capture_output=True, text=True, check=True)
    kilobytes, torch_loaded = done.stdout.split()
    assert torch_loaded == "False"
    assert int(kilobytes) < 150_000
    assert (folder / "model.safetensors").stat().st_size > 250_000_000
