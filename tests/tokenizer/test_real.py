"""The real tokenizers on real text: kept text keeps its tokens, and unmodified classes agree. Full sweep: benchmarks/."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from langslice.tokenizer import SourceTokenizer, close, open_tokenizer, write_tokenizer

pytestmark = pytest.mark.assets

TOKENIZERS = ("qwen2", "gemma-4", "xlm-roberta", "mbert-cased", "o200k-base", "mistral-v1-spm", "opus-mt-en-mg", "gpt2")
BYTES = {"qwen2", "gemma-4", "o200k-base", "mistral-v1-spm", "gpt2"}
LANGUAGES = ("src.eng", "ref.kor", "ref.arb", "ref.fra", "ref.hin", "ref.swa", "ref.zho-CN", "ref.jpn", "ref.tha")


@cache
def lines(assets: Path, count: int = 60) -> tuple[str, ...]:
    found: list[str] = []
    for code in LANGUAGES:
        text = (assets / "data/ntrex128" / f"newstest2019-{code}.txt").read_text(encoding="utf-8")
        found += text.split("\n")[:count]
    return tuple(found)


def choose(source: SourceTokenizer, assets: Path) -> set[int]:
    """What half of the English and Korean lines use, with ASCII."""
    texts = [*lines(assets)[:120:2], *map(chr, range(32, 127))]
    return {old for ids in source.encode(texts) for old in ids}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_kept_text_keeps_its_tokens(assets: Path, tmp_path: Path, name: str) -> None:
    source = open_tokenizer(assets / "tokenizers" / name)
    kept = close(source, choose(source, assets)).kept
    rewrite = write_tokenizer(source, kept, tmp_path)
    assert rewrite.left_out == {}
    result = open_tokenizer(tmp_path)
    assert result.tokens == tuple(source.tokens[old] for old in kept) and result.kind == source.kind
    covered = 0
    for line, old, new in zip(lines(assets), source.encode(lines(assets)), result.encode(lines(assets)), strict=True):
        if set(kept).issuperset(old):
            covered += 1
            assert [kept[token] for token in new] == old
        if name in BYTES:
            assert result.unknown_id is None
            assert result.decode(new) == source.decode(old), line
    assert covered >= 60


def test_reading_and_closing_are_lean(assets: Path) -> None:
    program = (
        "import re, sys; from pathlib import Path; from langslice.tokenizer import open_tokenizer, close\n"
        "source = open_tokenizer(Path(sys.argv[1])); close(source, range(0, 60000))\n"
        # not ru_maxrss: a new process inherits that from the one that started it
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text()).group(1)\n"
        "print(int(peak) // 1024, 'torch' in sys.modules, 'tokenizers' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(assets / "tokenizers/qwen2")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) < 110 and output[1:] == ["False", "False"]


@pytest.mark.parametrize(
    ("name", "class_name", "files"),
    [
        ("xlm-roberta", "XLMRobertaTokenizer", ["sentencepiece.bpe.model"]),
        ("mbert-cased", "BertTokenizer", ["vocab.txt"]),
        ("qwen2", "Qwen2Tokenizer", ["vocab.json", "merges.txt"]),
        ("mistral-v1-spm", "LlamaTokenizer", ["tokenizer.model"]),
    ],
)
def test_stock_classes_agree_on_the_slow_files(
    assets: Path, tmp_path: Path, name: str, class_name: str, files: list[str]
) -> None:
    """An unmodified class opens the rewritten slow files alone, and splits kept text as it does with the source's."""
    import transformers

    source = open_tokenizer(assets / "tokenizers" / name)
    kept = close(source, choose(source, assets)).kept
    (tmp_path / "all").mkdir()
    written = write_tokenizer(source, kept, tmp_path / "all").written
    opened = []
    for place, folder in enumerate((assets / "tokenizers" / name, tmp_path / "all")):
        alone = tmp_path / str(place)
        alone.mkdir()
        for file in files:
            assert file in written
            shutil.copyfile(folder / file, alone / file)
        config = {"do_lower_case": False} if "bert-" in name else {}
        (alone / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": class_name, **config}))
        opened.append(getattr(transformers, class_name).from_pretrained(str(alone)))
    before, after = (stock(list(lines(assets)), add_special_tokens=False)["input_ids"] for stock in opened)
    covered = [(old, new) for old, new in zip(before, after, strict=True) if set(kept).issuperset(old)]
    assert len(covered) >= 60
    for old, new in covered:
        assert [kept[token] for token in new] == old


def test_marian_opens_in_its_stock_class(assets: Path, tmp_path: Path) -> None:
    from transformers import MarianTokenizer

    folder = assets / "tokenizers/opus-mt-en-mg"
    source = open_tokenizer(folder)
    kept = close(source, choose(source, assets)).kept
    write_tokenizer(source, kept, tmp_path)
    with pytest.warns(UserWarning, match="sacremoses"):
        before, after = MarianTokenizer.from_pretrained(str(folder)), MarianTokenizer.from_pretrained(str(tmp_path))
    english = list(lines(assets)[:60])
    for old, new, ours in zip(
        before(english)["input_ids"], after(english)["input_ids"], source.encode(english), strict=True
    ):
        assert old == [*ours, 0]
        if set(kept).issuperset(old):
            assert [kept[token] for token in new] == old


def test_characters_of_a_real_model(assets: Path) -> None:
    source = open_tokenizer(assets / "weights/misaki-bart-us")
    assert source.kind == "characters" and source.special_ids == {0, 1, 2, 3}
    assert source.decode(source.encode(["Seoul"])[0]) == "Seoul"
