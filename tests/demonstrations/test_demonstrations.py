"""Demonstrations: where they come from, how they are laid out, what tokens they become."""

from __future__ import annotations

import gzip
import json

import pytest

from langslice.demonstrations import (
    KIM2024,
    Demonstration,
    Layout,
    code_demonstrations,
    parallel_demonstrations,
    read_code,
    read_demonstrations,
    read_pairs,
    read_sentences,
    text_demonstrations,
    write_demonstrations,
)
from langslice.demonstrations.tokens import load_prompts
from langslice.errors import CorpusError, TokenizerError

PAIRS = [(f"fr {number}", f"en {number}") for number in range(20)]


def small(**entries) -> Layout:
    return Layout(**{"shots": 2, "count": 3, **entries})


def test_the_layout_of_the_paper():
    made = parallel_demonstrations([(f"s{n}", f"t{n}") for n in range(499)], ("fr", "en"), KIM2024)
    assert len(made) == 100
    assert (
        made[0].parts == tuple(part for n in range(4) for part in (f"French: s{n}", f"English: t{n}"))
        and made[0].separator == "{eos}"
    )
    assert made[1].parts[0] == "French: s5", "one pair is skipped after each prompt"
    with pytest.raises(CorpusError, match="too few fr-en pairs: expected 499, found 498"):
        parallel_demonstrations([("s", "t")] * 498, ("fr", "en"), KIM2024)


def test_text_in_one_language_is_shuffled_by_seed():
    sentences = [str(n) for n in range(6)]
    first = text_demonstrations(sentences, "sw", small())
    assert sorted(part for one in first for part in one.parts) == [f"Swahili: {n}" for n in range(6)]
    assert first == text_demonstrations(sentences, "sw", small())
    assert first != text_demonstrations(sentences, "sw", small(seed=1))
    assert text_demonstrations(sentences, "sw", small(order="file"))[0].parts == ("Swahili: 0", "Swahili: 1")


def test_names_templates_and_braces():
    made = parallel_demonstrations(
        [("{x}", "b")], ("a", "b"), small(shots=1, count=1, template="[{language}] {text}"), names=("A", "B")
    )
    assert made[0].parts == ("[A] {x}", "[B] b")
    with pytest.raises(CorpusError, match=r"has no place for \{text\}"):
        text_demonstrations(["a"] * 6, "fr", small(template="{language}"))
    with pytest.raises(CorpusError, match="unknown language code 'quux'"):
        text_demonstrations(["a"] * 6, "quux", small())
    with pytest.raises(CorpusError, match="unknown order 'random'"):
        text_demonstrations(["a"] * 6, "fr", small(order="random"))


def test_conversations():
    made = parallel_demonstrations(PAIRS, ("fr", "en"), small(chat=True))
    assert made[0].messages[:2] == (("user", "Translate from French to English:\nfr 0"), ("assistant", "en 0"))
    assert len(made[0].messages) == 4 and made[0].answer


def test_code_is_raw():
    assert code_demonstrations(["a", "b", "c"], small(count=2)) == [
        Demonstration("code", ("a",)),
        Demonstration("code", ("b",)),
    ]
    with pytest.raises(CorpusError, match="too few source files: expected 3, found 1"):
        code_demonstrations(["a"], small())


def test_files_of_demonstrations_come_back_as_they_were(tmp_path):
    made = [
        *parallel_demonstrations(PAIRS, ("fr", "en"), small()),
        *parallel_demonstrations(PAIRS, ("fr", "en"), small(chat=True)),
        *code_demonstrations(["x = {}\n\n"], small(count=1)),
    ]
    assert write_demonstrations(made, tmp_path / "d.jsonl") == 7
    assert read_demonstrations(tmp_path / "d.jsonl") == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "d.jsonl: holds no demonstrations"),
        ("\n \n", "d.jsonl: holds no demonstrations"),
        ("{", "d.jsonl:1: not JSON"),
        ("[]", "d.jsonl:1: a JSON list, expected an object"),
        ('{"text": "a", "txt": "b"}', "d.jsonl:1: unknown field 'txt'"),
        ('{"text": "a"}\n{"text": " "}', "d.jsonl:2: an empty demonstration"),
        ('{"condition": "mt"}', "d.jsonl:1: expected one of parts, text and messages"),
        ('{"parts": "abc"}', "d.jsonl:1: parts must be a list of strings"),
        ('{"messages": [{"role": "user"}]}', "d.jsonl:1: a message needs a role and a content"),
    ],
)
def test_files_that_hold_no_demonstrations(tmp_path, text, message):
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_demonstrations(tmp_path / "d.jsonl")


def test_parallel_text_in_every_form(tmp_path):
    expected = [("un", "one"), ("deux", "two")]
    (tmp_path / "fr-en.tsv").write_text("un\tone\ndeux\ttwo\n")
    (tmp_path / "a.txt").write_text("un\r\ndeux\r\n")
    (tmp_path / "b.txt").write_text("one\ntwo")
    (tmp_path / "p.jsonl").write_text('{"fr": "un", "en": "one"}\n{"translation": {"fr": "deux", "en": "two"}}\n')
    (tmp_path / "p.tsv.gz").write_bytes(gzip.compress(b"un\tone\ndeux\ttwo\n"))
    for paths in (["fr-en.tsv"], ["a.txt", "b.txt"], ["p.jsonl"], ["p.tsv.gz"]):
        assert read_pairs([str(tmp_path / path) for path in paths], ("fr", "en")) == expected, paths
    assert read_pairs([str(tmp_path / "fr-en.tsv")], ("fr", "en"), limit=1) == expected[:1]


def test_parallel_text_that_does_not_fit(tmp_path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    one, other = write("a.txt", "un\ndeux\n"), write("b.txt", "one\n")
    with pytest.raises(CorpusError, match=r"aligned files differ in length\n.*a.txt: 2 lines\n.*b.txt: 1 lines"):
        read_pairs([one, other], ("fr", "en"))
    for text, message in (
        ("un\tone\ndeux\n", r"x.tsv:2: expected source, tab, target, found 1 columns"),
        ("un\tone\n\ttwo\n", r"x.tsv:2: the source is blank"),
        ("un\t \n", r"x.tsv:1: the target is blank"),
        ("", "holds no pairs"),
    ):
        with pytest.raises(CorpusError, match=message):
            read_pairs([write("x.tsv", text)], ("fr", "en"))
    with pytest.raises(CorpusError, match=r"x.jsonl:1: no text in field 'en'; found: fr, eng"):
        read_pairs([write("x.jsonl", '{"fr": "un", "eng": "one"}')], ("fr", "en"))
    with pytest.raises(CorpusError, match=r"missing\.tsv: no such file"):
        read_pairs([str(tmp_path / "missing.tsv")], ("fr", "en"))
    with pytest.raises(CorpusError, match="parallel text is one file or two aligned ones, found 3"):
        read_pairs([one, one, one], ("fr", "en"))
    with pytest.raises(CorpusError, match=r"a\.txt: not a file of pairs"):
        read_pairs([one], ("fr", "en"))


def test_pairs_of_a_hub_dataset_are_streamed(monkeypatch):
    import sys
    from types import ModuleType

    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        if arguments[0] == "owner/gone":
            raise ConnectionError("no network")
        return [
            {"sentence_fra_Latn": "un", "sentence_eng_Latn": "one"},
            {"sentence_fra_Latn": "deux", "sentence_eng_Latn": "two"},
        ]

    fake = ModuleType("datasets")
    fake.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    fields = ("sentence_fra_Latn", "sentence_eng_Latn")
    assert read_pairs(["owner/flores:all@dev"], fields) == [("un", "one"), ("deux", "two")]
    assert asked == [(("owner/flores", "all"), {"split": "dev", "streaming": True})]
    with pytest.raises(CorpusError, match=r"owner/flores: record 0: no text in field 'fr'; found: sentence_fra_Latn"):
        read_pairs(["owner/flores"], ("fr", "en"))
    with pytest.raises(CorpusError, match="owner/gone: cannot be opened: ConnectionError: no network"):
        read_pairs(["owner/gone"], fields)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="datasets of the hub need the package `datasets`"):
        read_pairs(["owner/flores"], fields)


def test_code_is_found_by_suffix(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/b.py").write_text("b = 1\n")
    (tmp_path / "src/a.rs").write_text("fn a() {}\n")
    (tmp_path / "src/README.md").write_text("# no\n")
    assert read_code([str(tmp_path / "src")]) == ["fn a() {}\n", "b = 1\n"]
    assert read_code([str(tmp_path / "src/b.py")]) == ["b = 1\n"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="empty: holds no source file"):
        read_code([str(tmp_path / "empty")])
    (tmp_path / "t.txt").write_text("a\n\nb\n")
    assert read_sentences([str(tmp_path / "t.txt")]) == ["a", "b"]


def test_a_decoder_reads_the_whole_with_its_own_end_token(zoo):
    from transformers import AutoTokenizer

    folder = zoo("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    demonstration = Demonstration("mt", ("the", "lamb {eos}"), "{eos}", ("fr", "en"), answer=True)
    prompt = load_prompts(folder, {"keep": [demonstration]}, max_tokens=64)[0]
    assert prompt.ids == tuple(tokenizer("the</s>lamb {eos}</s>")["input_ids"])
    assert prompt.ids.count(2) == 3, "two separators, and the end that this tokenizer adds; {eos} in a text is text"
    assert prompt.decoder_ids is None and prompt.padding == 0
    assert len(load_prompts(folder, {"keep": [demonstration]}, max_tokens=5)[0].ids) == 5


def test_an_encoder_decoder_writes_the_answer(zoo):
    from transformers import AutoTokenizer

    folder = zoo("m2m_100")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    demonstration = Demonstration("mt", ("the", "lamb", "mend", "net"), "\n", ("fr", "en"), answer=True)
    text = Demonstration("code", ("lemon",))
    answered, plain = load_prompts(folder, {"keep": [demonstration, text]}, max_tokens=64)
    assert answered.ids == tuple(tokenizer("the\nlamb\nmend\n")["input_ids"])
    assert answered.decoder_ids == (2, *tokenizer("net", add_special_tokens=False)["input_ids"])
    assert plain.decoder_ids == (2, *tokenizer("lemon", add_special_tokens=False)["input_ids"])


def test_tokens_that_name_languages_come_first(zoo, tmp_path):
    import shutil

    from tokenizers import Tokenizer

    folder = shutil.copytree(zoo("m2m_100"), tmp_path / "m2m_100")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["fra_Latn", "__en__"])
    tokenizer.save(str(folder / "tokenizer.json"))
    demonstration = Demonstration("mt", ("the", "lamb"), "\n", ("fr", "en"), answer=True)
    prompt = load_prompts(folder, {"keep": [demonstration]}, max_tokens=64)[0]
    assert prompt.ids[0] == tokenizer.token_to_id("fra_Latn") and prompt.ids[-1] == 2
    assert prompt.decoder_ids[:2] == (2, tokenizer.token_to_id("__en__"))


@pytest.mark.parametrize(("model_type", "longest"), [("llama", 96), ("xlm-roberta", 94), ("t5", 200)])
def test_no_demonstration_is_longer_than_the_model_can_read(zoo, model_type, longest):
    from langslice.features import measure_magnitudes

    text = Demonstration("mono", ("the lamb and " * 200,))
    assert len(load_prompts(zoo(model_type), {"keep": [text]}, max_tokens=200)[0].ids) == longest
    measure_magnitudes(zoo(model_type), {"keep": [text]}, max_tokens=200)


def test_a_chat_template_is_used(zoo, tmp_path):
    import shutil

    folder = shutil.copytree(zoo("llama"), tmp_path / "llama")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = "{% for message in messages %}{{ message.content }}</s>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    demonstration = Demonstration("mt", messages=(("user", "the"), ("assistant", "lamb")))
    prompt = load_prompts(folder, {"keep": [demonstration]}, max_tokens=64)[0]
    assert prompt.ids.count(2) == 2
    with pytest.raises(TokenizerError, match="this tokenizer has no chat template"):
        load_prompts(zoo("llama"), {"keep": [demonstration]}, max_tokens=64)


def test_a_tokenizer_without_an_end_or_without_files(zoo, tmp_path):
    import shutil

    folder = shutil.copytree(zoo("llama"), tmp_path / "llama")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    demonstration = Demonstration("mt", ("the", "lamb"), "{eos}")
    with pytest.raises(TokenizerError, match="this tokenizer has no end-of-sequence token"):
        load_prompts(folder, {"keep": [demonstration]}, max_tokens=64)
    assert load_prompts(folder, {"keep": [Demonstration("mt", ("the",))]}, max_tokens=64)[0].padding == 0
    with pytest.raises(TokenizerError, match="this tokenizer has no padding token to count"):
        load_prompts(folder, {"keep": [Demonstration("mt", ("the",))]}, max_tokens=64, count_padding=True)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="transformers cannot load the tokenizer"):
        load_prompts(folder, {"keep": [demonstration]}, max_tokens=64)
