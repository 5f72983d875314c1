"""A job opens its source once: what is known of it is handed down, and neither read nor worked out again."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter

import pytest

import langslice
from langslice.model.anatomy import read_anatomy
from langslice.model.axes import describe_tensor, find_vocabulary_size
from langslice.planning.side_files import plan_side_files
from langslice.planning.tensors import tensor_edits
from langslice.tokenizer import open_tokenizer
from langslice.tokenizer.document import parse_document
from langslice.vocabulary.chats import read_templates, rendered_chats

TEMPLATE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
# Function -> which of its arguments says of what it is asked.
COUNTED = {
    read_anatomy: None, find_vocabulary_size: None, plan_side_files: None, describe_tensor: "name", open_tokenizer: "folder",
    parse_document: "where", read_templates: "folder", rendered_chats: "source",
}  # fmt: skip


def calls(job):
    """How often a job calls each of these functions with the same argument, however it came by them."""
    found: Counter[tuple[str, str]] = Counter()
    codes = {function.__code__: (function.__name__, argument) for function, argument in COUNTED.items()}
    codes[tensor_edits.__code__] = ("tensor_edits", None)

    def count(frame, event, _):
        if event == "call" and frame.f_code in codes:
            name, argument = codes[frame.f_code]
            found[name, str(frame.f_locals[argument]) if argument else ""] += 1

    sys.setprofile(count)
    try:
        job()
    finally:
        sys.setprofile(None)
    return found


# Verification of a slice of layers also looks at the tensors of the source as its class loads them.
@pytest.mark.parametrize(("more", "verify"), [({}, False), ({}, True), ({"drop_layers": "1"}, False)])
def test_a_slice_opens_its_source_once(zoo, tmp_path, more, verify):
    source = shutil.copytree(zoo("llama"), tmp_path / "source")
    (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    found = calls(lambda: langslice.slice(source, tmp_path / "out", scripts="Latn", verify=verify, **more))
    edits = found.pop(("tensor_edits", ""))
    assert edits == (2 if verify else 1)  # verification works out for itself what should have become of each tensor
    assert {key: number for key, number in found.items() if number > 1} == {}
    assert {name for name, _ in found} >= {function.__name__ for function in COUNTED} - {"read_anatomy"}
    assert (("read_anatomy", "") in found) is bool(more)
