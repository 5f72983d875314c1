"""Reading corpora: every format gives the same units, and nothing damaged passes."""

from __future__ import annotations

import gzip
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from langslice.corpus import CorpusFile, HubDataset, find_corpora, read_texts
from langslice.corpus import units as reading
from langslice.corpus.language_id import LanguageFilter, keep_languages
from langslice.errors import CorpusError, LanguageError

UNITS = ["one line", "zwei Zeilen", "세 줄", "أربعة أسطر", " spaces \t", "a\u2028b\x0c\x85c"]


def parquet_bytes(texts: list[str | None], field: str = "text") -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": range(len(texts)), field: texts}), sink, row_group_size=2)
    return sink.getvalue()


def encoded(kind: str) -> bytes:
    if kind == "txt":
        return "\n".join(UNITS).encode()
    if kind == "parquet":
        return parquet_bytes(list(UNITS))
    return "".join(json.dumps({"id": 1, "text": unit}) + "\n" for unit in UNITS).encode()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def write(path: Path, data: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def refused(corpus: str, message: str, **options: object) -> CorpusError:
    with pytest.raises(CorpusError) as caught:
        list(read_texts([corpus], **options))  # type: ignore[arg-type]
    assert message in caught.value.message
    return caught.value


# Every way gives the same units


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "ndjson", "parquet"])
def test_every_format_and_compression(tmp_path: Path, kind: str, pack: str) -> None:
    data = PACK[pack](encoded(kind))
    seen: list[int] = []
    corpus = write(tmp_path / f"c.{kind}{pack}", data)
    assert list(read_texts([corpus], progress=seen.append)) == UNITS
    if kind == "parquet" and not pack:
        assert sum(seen) > 0  # the end is read first, and some of it twice
    else:
        assert sum(seen) == len(data)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_blocks_of_any_size_give_the_same(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", size)
    corpus = write(tmp_path / "c.txt", b"\xef\xbb\xbf" + "\r\n".join(UNITS).encode() + b"\r\n\r\nlast\rline")
    assert list(read_texts([corpus])) == [*UNITS, "last\rline"]


def test_several_frames_and_members(tmp_path: Path) -> None:
    for pack in (".gz", ".zst"):
        corpus = write(tmp_path / f"c.txt{pack}", PACK[pack](b"one\nt") + PACK[pack](b"wo\n"))
        assert list(read_texts([corpus])) == ["one", "two"]


def test_a_record_may_hold_line_ends_and_a_bom_is_removed(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", b'\xef\xbb\xbf{"body": "a\\nb"}\r\n\n{"body": ""}\n{"body": "c"}')
    assert list(read_texts([corpus], text_field="body")) == ["a\nb", "c"]


def test_folders_globs_and_order(tmp_path: Path) -> None:
    write(tmp_path / "d/b.txt", "b")
    write(tmp_path / "d/a/z.jsonl.gz", gzip.compress(b'{"text": "z"}'))
    write(tmp_path / "d/.git/x.txt", "hidden")
    write(tmp_path / "d/README.md", "no text")
    left_out: list[str] = []
    assert list(read_texts([str(tmp_path / "d")], report=left_out.append)) == ["z", "b"]
    assert left_out == [f"left out, of unknown type: {tmp_path / 'd/README.md'}"]
    with pytest.warns(UserWarning, match="left out, of unknown type"):
        assert list(read_texts([str(tmp_path / "d")])) == ["z", "b"]
    assert list(read_texts([str(tmp_path / "d/**/*.txt"), str(tmp_path / "d/a")])) == ["b", "z"]


def test_a_path_that_exists_wins_over_a_glob_and_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "owner/name/c.txt", "local")
    write(tmp_path / "we[i]rd.txt", "weird")
    assert list(read_texts(["owner/name", "we[i]rd.txt"])) == ["local", "weird"]
    assert find_corpora(["owner/name"])[0] == [CorpusFile(Path("owner/name/c.txt"), "txt", "")]


# What is not there or not understood


@pytest.mark.parametrize(
    "corpus", ["none.txt", "./owner/name", "data/none.jsonl", "a/b/c", "word", "../x", "data/x.parquet.gz"]
)
def test_what_looks_like_a_path_is_no_hub_id(tmp_path: Path, corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(corpus, f"{corpus}: no such file or folder")


def test_nothing_of_a_known_type(tmp_path: Path) -> None:
    write(tmp_path / "d/table.csv", "a,b")
    refused(str(tmp_path / "d"), "holds no file of a known type (.txt, .jsonl")
    refused(str(tmp_path / "d/*.txt"), "the pattern holds no file of a known type")
    refused(str(tmp_path / "d/table.csv"), "unknown file type '.csv'; known are .txt")
    with pytest.raises(CorpusError, match="no corpus was given"):
        read_texts([])


def test_nothing_is_read_before_every_corpus_is_found(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        read_texts([write(tmp_path / "c.txt", "a"), "none.txt"])


# Damaged text


def test_invalid_utf8_names_line_and_byte(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.txt", b"one\ntw\xc3\xa9\nbad \xff here\n")
    error = refused(corpus, f"{corpus}:3: not valid UTF-8 at byte 13 (0xff, invalid start byte)")
    assert "iconv" in (error.hint or "")
    refused(write(tmp_path / "c.jsonl", b'{"text": "a"}\n{"text": "\xc3"}'), "c.jsonl:2: not valid UTF-8 at byte 24")


def test_invalid_utf8_in_a_later_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 8)
    corpus = write(tmp_path / "c.txt", b"\xef\xbb\xbf" + b"line\n" * 100 + b"xx\x80")
    refused(corpus, ":101: not valid UTF-8 at byte 505")


@pytest.mark.parametrize("name", ["c.txt", "c.jsonl", "c.txt.gz", "c.parquet"])
def test_zero_bytes(tmp_path: Path, name: str) -> None:
    refused(
        write(tmp_path / name, gzip.compress(b"") if name.endswith("gz") else b""),
        "zero bytes" if "parq" in name else "holds no text",
    )


def test_only_empty_lines(tmp_path: Path) -> None:
    refused(write(tmp_path / "c.txt", "\n\r\n\n"), "c.txt: holds no text")


def test_jsonl_lines_that_are_no_records(tmp_path: Path) -> None:
    good = '{"text": "a", "lang": "en"}\n'
    refused(write(tmp_path / "a.jsonl", good + "{not json}\n"), "a.jsonl:2: not JSON (Expecting property name")
    refused(write(tmp_path / "b.jsonl", good + "[1]\n"), "b.jsonl:2: a JSON list, expected an object")
    refused(write(tmp_path / "c.jsonl", good), "c.jsonl:1: no field 'body'; found: text, lang", text_field="body")
    refused(write(tmp_path / "d.jsonl", '{"text": null}'), "d.jsonl:1: field 'text' is NoneType, expected a string")
    refused(write(tmp_path / "e.jsonl", r'{"text": "x\ud83d"}'), "e.jsonl:1: half of a surrogate pair at character 1")


def test_parquet_columns(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.parquet", parquet_bytes(["a"]))
    refused(corpus, "no column 'body'; found: n, text", text_field="body")
    refused(corpus, "column 'n' is int64, expected strings", text_field="n")
    refused(write(tmp_path / "n.parquet", parquet_bytes(["a", "b", "c", None])), "row 3 of column 'text' is null")


@pytest.mark.parametrize("pack", [".gz", ".zst"])
def test_damaged_compression(tmp_path: Path, pack: str) -> None:
    data = PACK[pack]("".join(f"line {number}\n" for number in range(50_000)).encode())
    refused(write(tmp_path / f"cut.txt{pack}", data[: len(data) // 2]), "cannot be read")
    refused(write(tmp_path / f"cut2.txt{pack}", data[:-1]), "cannot be read")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    refused(write(tmp_path / f"bad.txt{pack}", bytes(flipped)), "")
    refused(write(tmp_path / f"not.txt{pack}", b"plain text"), "cannot be read")


def test_damaged_parquet(tmp_path: Path) -> None:
    data = parquet_bytes(list(UNITS))
    refused(write(tmp_path / "cut.parquet", data[:-20]), "cut.parquet: cannot be read")
    refused(write(tmp_path / "not.parquet", b"plain text, longer than a footer"), "not.parquet: cannot be read")


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 3000)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1000)
    assert len(next(read_texts([write(tmp_path / "ok.txt", "x" * 2500)]))) == 2500
    corpus = write(tmp_path / "c.txt", "short\n" + "x" * 5000)
    refused(corpus, f"{corpus}:2: a line of more than 0 MB")


# Datasets of the hub


def test_forms_of_a_hub_id() -> None:
    assert find_corpora(["o/n", "o/n:en", "o/n@test", "o/n-1.0:20231101.ko@test_2"])[0] == [
        HubDataset("o/n", None, "train"),
        HubDataset("o/n", "en", "train"),
        HubDataset("o/n", None, "test"),
        HubDataset("o/n-1.0", "20231101.ko", "test_2"),
    ]


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load: Callable[..., object]) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_a_dataset_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load(*names: object, **options: object) -> list[dict[str, str]]:
        asked.append((names, options))
        return [{"text": "é"}, {"text": ""}, {"text": "b"}]

    fake_datasets(monkeypatch, load)
    seen: list[int] = []
    assert list(read_texts(["o/n:ko@test"], progress=seen.append)) == ["é", "b"]
    assert asked == [(("o/n", "ko"), {"split": "test", "streaming": True})]
    assert sum(seen) == 3
    refused("o/n", "o/n: record 0 has no text in field 'body'; found: text", text_field="body")


def test_a_dataset_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    fake_datasets(monkeypatch, load)
    error = refused("o/n", "o/n: not a local path, and as a dataset of the hub (split 'train') it cannot be opened")
    assert "ConnectionError: offline" in error.message
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert 'pip install "langslice[datasets]"' in str(refused("o/n", "need the package `datasets`"))


# Language identification


def test_lines_of_wanted_languages() -> None:
    lines = [
        "The children went to the market early in the morning.",
        "아이들은 아침 일찍 시장에 갔습니다.",
        "Les enfants sont allés au marché tôt le matin.",
        "12345",
    ]
    seen, progress = LanguageFilter(), []
    assert list(keep_languages(lines, ["ko", "en-GB"], seen=seen, progress=progress.append)) == lines[:2]
    assert (seen.kept, seen.dropped, progress) == (2, 2, [4])


def test_languages_that_cannot_be_identified(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LanguageError, match=r"language 'bo' is not among those that lingua can identify: af, ar, az"):
        keep_languages([], ["en", "bo"])
    with pytest.raises(LanguageError, match="'not a code' is not a BCP-47 language code"):
        keep_languages([], ["not a code"])
    with pytest.raises(LanguageError, match="no language to keep"):
        keep_languages([], [])
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(LanguageError) as caught:
        keep_languages([], ["en"])
    assert caught.value.hint == 'pip install "langslice[language-id]"'
