"""Which families' code computes with token ids or with the size of the vocabulary: those must say what their last rows mean."""

import ast
import re
from pathlib import Path

import pytest
import transformers

from langslice.model.families import FAMILIES, family_of

_IDS = re.compile(r"\w*_token_id|vocab_size|vocab_offset|timestamp_begin")
_FILES = re.compile(r"(?:modeling|generation|processing)_\w+\.py")
# Folders of transformers that serve types of another name.
_FOLDERS = {
    "gemma3_text": "gemma3", "gemma3n_text": "gemma3n", "gemma4_text": "gemma4", "data2vec-text": "data2vec",
}  # fmt: skip
# The text model alone has no towers; its code computes in the class around it.
_WITHOUT_TOWERS = {"gemma3n_text"}


def computes_with_ids(source):
    """Lines where an id or the vocabulary's size is added to or taken from something, or where tokens are added."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            sides = [getattr(side, "attr", getattr(side, "id", "")) for side in (node.left, node.right)]
            if any(_IDS.fullmatch(side) for side in sides):
                yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_tokens":
            yield f"{node.lineno}: {ast.unparse(node)}"


def model_types():
    return sorted(model_type for family in FAMILIES for model_type in family.model_types)


@pytest.mark.parametrize("model_type", model_types())
def test_whose_code_computes_with_ids_is_in_the_table(model_type):
    folder = Path(transformers.__file__).parent / "models" / _FOLDERS.get(model_type, model_type.replace("-", "_"))
    found = [
        f"{path.name}:{line}"
        for path in sorted(folder.glob("*.py"))
        if _FILES.fullmatch(path.name)
        for line in computes_with_ids(path.read_text(encoding="utf-8"))
    ]
    if model_type not in _WITHOUT_TOWERS:
        assert bool(found) <= (family_of({"model_type": model_type}).live_rows is not None), found


def test_what_computes_is_found():
    assert list(computes_with_ids("a = config.no_timestamps_token_id + 1\nb = self.vocab_size - 1\nc = n + 1\n")) == [
        "1: config.no_timestamps_token_id + 1", "2: self.vocab_size - 1",
    ]  # fmt: skip
    assert list(computes_with_ids("tokenizer.add_tokens(EXTRA)")) == ["1: tokenizer.add_tokens(EXTRA)"]
