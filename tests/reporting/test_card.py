"""The model card of a slice: metadata that the hub reads, the source's card kept apart, edits by people respected."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

import langslice
from langslice import invocation as command_line
from langslice.reporting import collect_report, write_report
from langslice.reporting.card import architectures, card_edited, card_text, name_in_card, write_card
from langslice.reporting.card_text import plain
from langslice.reporting.source_card import read_card, set_source_card_aside, source_card
from langslice.verification.record import read_whole_record
from tests.report_samples import SOURCE_CARD, write_results


@pytest.fixture(scope="module")
def sliced(cut_slice):
    return cut_slice


@pytest.fixture
def copied(sliced, tmp_path):
    return shutil.copytree(sliced, tmp_path / "cut")


def test_slice_writes_a_card_and_keeps_the_sources(sliced):
    assert (sliced / "SOURCE_README.md").read_text() == SOURCE_CARD
    assert (sliced / "LICENSE").read_text() == "Do what you like."
    card = ModelCard.load(sliced / "README.md")
    assert card.data.license == "other" and card.data.license_name == "tiny-licence"
    assert card.data.license_link == "LICENSE"
    assert card.data.language == ["ko", "en"]  # not French, which was dropped
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-generation"
    assert card.data.tags == ["langslice", "vocabulary-pruning", "pruning"]
    assert card.data.base_model is None  # a folder, not a model of the hub
    assert "It knows everything" not in card.text
    for said in (
        "# cut",
        "Korean, English",
        "2 of 3 layers",
        "| tensors | equal |",
        "tiny-licence",
        "[SOURCE_README.md]",
    ):
        assert said in card.text, said
    assert not card_edited(sliced / "README.md")


def test_card_says_how_to_load(sliced):
    text = (sliced / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert "AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True)" in code
    scope = {}
    exec(code.replace('name = "cut"', f"name = {str(sliced)!r}"), scope)
    assert sum(p.numel() for p in scope["model"].parameters()) == collect_report(sliced).parameters.after


def test_card_of_a_hub_model_names_its_base(sliced):
    report = collect_report(sliced)
    hub = replace(report, source=replace(report.source, model="org/base", revision="0" * 40, public="org/base"))
    card = ModelCard(card_text(hub, architectures(sliced)))
    assert card.data.base_model == "org/base"
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert "[org/base](https://huggingface.co/org/base)" in card.text


def test_scores_become_model_index(copied, tmp_path):
    results = write_results(copied, tmp_path / "r.json")
    write_report(copied, results=[results])
    card = ModelCard.load(copied / "README.md")
    found = {(r.task_type, r.dataset_config, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert found[("text-generation", "ko", "bits per byte (ko)")] == 3.5
    assert found[("translation", "ko-en", "BLEU (ko-en)")] == 2.5
    assert card.data.model_name == "cut"
    assert "| perplexity | fr | bits per byte | 10 | 2.500 | 250.0 | 0.001 |" in card.text
    index = card.data.to_dict()["model-index"]
    assert {r["dataset"]["name"] for r in index[0]["results"]} == {"langslice held-out sentences"}


def test_an_edited_card_is_left_alone(copied):
    card = copied / "README.md"
    card.write_text(card.read_text().replace("## Limits", "## Limits that I know of"))
    edited = card.read_text()
    assert card_edited(card)
    write_report(copied)
    assert card.read_text() == edited
    report = collect_report(copied)
    assert not write_card(copied, report)
    assert write_card(copied, report, overwrite=True)
    assert card.read_text() != edited and not card_edited(card)


def test_a_card_of_somebody_else_is_left_alone(copied):
    (copied / "README.md").write_text("# mine\n")
    write_report(copied)
    assert (copied / "README.md").read_text() == "# mine\n"


def test_name_in_card(copied):
    card = copied / "README.md"
    name_in_card(card, 'org/name"\\1')
    assert 'name = "org/name\\"\\\\1"  # this folder' in card.read_text()
    assert not card_edited(card)


def test_slices_of_slices_keep_every_card(copied, tmp_path):
    langslice.slice(make_slice_plain(copied.parent / "again", tmp_path), tmp_path / "second", scripts="Latn", carry="x")
    names = sorted(path.name for path in (tmp_path / "second").glob("*README*"))
    assert names == ["README.md", "SOURCE_README-2.md", "SOURCE_README.md"]
    assert source_card(tmp_path / "second").name == "SOURCE_README-2.md"
    assert ModelCard.load(tmp_path / "second/README.md").data.license == "other"
    assert not (tmp_path / "second/report.html").exists()


def make_slice_plain(folder, tmp_path):
    """A slice that can be sliced again: of a source with a card, and with a report next to it."""
    from tests.zoo import add_tokenizer, build

    source = add_tokenizer(build("gpt2", tmp_path / "gpt2"))
    (source / "README.md").write_text(SOURCE_CARD)
    langslice.slice(source, folder, languages="ko,en")
    write_report(folder)
    return folder


def test_source_cards_without_metadata(tmp_path):
    for text in ("no metadata", "---\nlicense: [unclosed\n---\nx", "---\n- a list\n---\nx", ""):
        (tmp_path / "README.md").write_text(text)
        assert read_card(tmp_path / "README.md")[0] == {}
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe")
    assert read_card(tmp_path / "README.md")[0] == {"license": "mit"}
    set_source_card_aside(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["SOURCE_README.md"]


def test_no_folders_of_the_makers_machine(copied):
    report = collect_report(copied)
    command = ("langslice", "slice", "/home/me/secret/model", "--text", "ko=/home/me/private.txt", "-o", "~/out")
    text = card_text(replace(report, origin=replace(report.origin, command=command)), ("XForCausalLM",))
    assert "/home/me" not in text and "langslice slice model --text ko=private.txt -o out" in text
    assert str(copied.parent) not in text


def test_hostile_names_stay_text(copied):
    report = collect_report(copied)
    evil = "<script>|`*x*`\n# h\u202e"
    text = card_text(
        replace(report, name=evil, source=replace(report.source, model=evil, licence={"license": evil})), ()
    )
    body = ModelCard(text).text
    assert "<script>" not in body.partition("```python")[0] and "\u202e" not in body
    assert plain(evil).startswith("&lt;script&gt;\\|\\`\\*x\\*\\` \\# h⟨U+202E⟩")
    assert ModelCard(text).data.license == evil


def test_what_is_no_text_can_be_written(copied, tmp_path):
    report = collect_report(copied)
    origin = replace(report.origin, command=("langslice", "slice", "\udcff", "```\n# not a heading"))
    source = replace(report.source, licence_files=("LICENSE`<b>\udcff",))
    text = card_text(replace(report, name="\udcff", source=source, origin=origin), ())
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert "\n# not a heading" not in text and "<b>" not in text and "⟨U+DCFF⟩" in text


def test_a_command_that_is_no_text_is_recorded(zoo, tmp_path, monkeypatch):
    words = ("langslice", "slice", "m", "--text", "\udcff.txt")
    monkeypatch.setattr(command_line, "_typed", SimpleNamespace(get=lambda: words))
    langslice.slice(zoo("gpt2"), tmp_path / "cut", languages="ko,en", verify=False)
    assert read_whole_record(tmp_path / "cut")[0]["command"] == list(words)
    assert "⟨U+DCFF⟩.txt" in write_report(tmp_path / "cut").read_text()
    assert "⟨U+DCFF⟩.txt" in (tmp_path / "cut/README.md").read_text()


def test_encoder_and_sentence_transformers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForMaskedLM"]}))
    assert architectures(tmp_path) == ("BertForMaskedLM",)
    (tmp_path / "modules.json").write_text("[]")
    assert architectures(tmp_path) == ("SentenceTransformer",)
