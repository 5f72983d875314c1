"""`--drop-reserved`: what an id field, a processor, a template or a file of code refers to stays."""

import json
import shutil

import langslice
from langslice.tokenizer import open_tokenizer


def test_only_what_nothing_refers_to_goes(zoo, tmp_path):
    source = shutil.copytree(zoo("llama"), tmp_path / "source")
    tokenizer = open_tokenizer(source)
    ids = {name: tokenizer.tokens.index(name) for name in (f"<extra_{number}>" for number in range(6))}
    change(source / "config.json", image_token_id=ids["<extra_0>"])
    change(
        source / "tokenizer_config.json", chat_template="<extra_1>{{ messages[0].content }}", sound_token="<extra_2>"
    )
    (source / "processor_config.json").write_text(json.dumps({"video_token": "<extra_3>"}))
    (source / "processing_mine.py").write_text('PLACE = "<extra_4>"\n')
    kept = langslice.plan(source, scripts="Latn")
    assert set(ids) <= set(kept.tokens)
    assert any("--drop-reserved drops the 1 that nothing refers to" in note for note in kept.notes)
    result = langslice.slice(source, tmp_path / "out", scripts="Latn", drop_reserved=True)
    assert result.verification.passed
    assert set(kept.tokens) - set(result.plan.tokens) == {"<extra_5>"}
    contents = [
        entry["content"] for entry in json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"]
    ]
    assert "<extra_4>" in contents
    assert "<extra_5>" not in contents
    assert langslice.verify(source, tmp_path / "out").passed


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
