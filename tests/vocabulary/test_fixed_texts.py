"""What a model is always called with stays whole: prompts, chats, and texts that the user names."""

import json

import pytest

from langslice.errors import PlanError, TokenizerError
from langslice.model.checkpoint import Checkpoint
from langslice.planning.source import Source
from langslice.tokenizer import open_tokenizer
from langslice.verification.sample_texts import always_read
from langslice.vocabulary.chats import read_templates, rendered_chats
from langslice.vocabulary.fixed_texts import CHAT, KEPT_TEXT, PROMPT, prompts, with_template_pieces
from langslice.vocabulary.prompt_catalogue import known_prefixes
from langslice.vocabulary.vocabulary import VocabularyRequest, choose_vocabulary

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def folder_with(tmp_path, name="model", **files):
    """A checkpoint of these files, without weights; content that is no text is written as JSON."""
    for file, content in files.items():
        path = tmp_path / file.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    config = files.get("config__json", {})
    return Checkpoint(tmp_path, tmp_path, name, None, dict(config), ())


def test_prompts_of_every_file_and_none_of_what_only_sounds_so(tmp_path):
    checkpoint = folder_with(
        tmp_path,
        config__json={
            "task_specific_params": {"summarization": {"prefix": "summarize: ", "max_length": 9}},
            "task_instructions": {"retrieval.query": "Represent the query: "},
            "prompt_lookup_num_tokens": 3,
        },
        config_sentence_transformers__json={
            "prompts": {"query": "질문: ", "document": ""}, "default_prompt_name": "query", "query_prefix": "[Q] ",
        },
        tokenizer_config__json={"add_prefix_space": True},
    )  # fmt: skip
    assert set(prompts(checkpoint)) == {"summarize: ", "Represent the query: ", "질문: ", "[Q] "}


@pytest.mark.parametrize(
    ("name", "card", "expected"),
    [
        ("intfloat/multilingual-e5-small", "", ("query: ", "passage: ")),
        ("/models/e5-base-v2", "", ("query: ", "passage: ")),
        ("google-t5/t5-small", "", ("translate English to German: ", "summarize: ")),
        ("google/mt5-small", "", ()),
        ("mine", "---\nbase_model: intfloat/multilingual-e5-base\n---\n", ("query: ", "passage: ")),
        ("mine", "Encode `search_query: how?` against the rest.", ("search_query: ",)),
        ("bert-base", "A query: what is it?", ()),
    ],
)
def test_prefixes_of_known_models_by_name_and_by_card(tmp_path, name, card, expected):
    found = prompts(folder_with(tmp_path, name, README__md=card))
    assert set(expected) <= set(found)
    assert bool(found) is bool(expected)


def test_instruct_models_have_other_prefixes():
    assert known_prefixes(("intfloat/multilingual-e5-large-instruct",), "") == ("Instruct: ", "\nQuery: ")


def test_kept_texts_are_recorded_and_proven(tmp_path):
    checkpoint = folder_with(tmp_path)
    assert Source(checkpoint).fixed_texts(["query: ", "query: "]) == {KEPT_TEXT: ("query: ",)}
    assert [list(read()) for read in always_read(Source(checkpoint), {"keep_text": ["query: "]}).values()] == [
        ["query: "]
    ]
    with pytest.raises(PlanError, match="`keep_text` is empty"):
        Source(checkpoint).fixed_texts(["  "])


def test_every_role_flag_and_tool_is_rendered():
    chats = rendered_chats(CHATML, {})
    for role in ("system", "user", "assistant", "tool", "developer"):
        assert any(f"<|im_start|>{role}\n0<|im_end|>" in chat for chat in chats)
    assert any(chat.endswith("<|im_start|>assistant\n") for chat in chats)
    assert any("You are a helpful assistant." in chat for chat in chats)


def test_flags_values_and_dates_that_a_template_compares():
    template = (
        "{%- if tools %}# Tools\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif -%}"
        "{%- if enable_thinking is defined and enable_thinking is false %}<no thinking>{% endif -%}"
        "{%- if effort == 'high' %}Reason hard.{% endif -%}{{ strftime_now('%B') }}"
        "{%- for m in messages %}{% if m.role == 'critic' %}Critic{% elif m.role == 'assistant' and m.tool_calls %}"
        "{% for c in m.tool_calls %}call {{ c.function.arguments | tojson }}{% endfor %}"
        "{% elif m.role not in ['user', 'assistant'] %}{{ raise_exception('no such role') }}{% else %}"
        "{% generation %}{{ m.content if m.content is string else m.content | map(attribute='type') | join }}"
        "{% endgeneration %}{% endif %}{% endfor -%}{{ eos_token }}"
    )
    text = "".join(rendered_chats(template, {"eos_token": "</s>"}))
    for part in (
        '"parameters"',
        "<no thinking>",
        "Reason hard.",
        "January",
        "December",
        "Critic",
        'call {"0": "0"}',
        "image",
        "</s>",
    ):
        assert part in text, part


def test_pictures_where_nothing_else_is_taken():
    template = (
        "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part.type == 'image' %}<picture>"
        "{% elif part.type == 'text' %}{{ part.text }}{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}{% endfor %}"
    )
    assert any("user:<picture>0" in chat for chat in rendered_chats(template, {}))


def test_a_template_that_cannot_be_read_is_named():
    with pytest.raises(TokenizerError, match="the chat template cannot be read"):
        rendered_chats("{% for %}", {})


def test_templates_of_all_places(tmp_path):
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("a")
    (tmp_path / "chat_template.jinja").write_text("b")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "tool_use", "template": "c"}]})
    )
    assert set(read_templates(tmp_path).values()) == {"a", "b", "c"}


@pytest.mark.assets
def test_the_prompt_of_e5_stays_without_english(assets):
    tokenizer = open_tokenizer(assets / "tokenizers" / "xlm-roberta")
    request = VocabularyRequest(scripts=("Hang",))
    texts = {PROMPT: ("query: ", "passage: ")}
    (ids, passage) = tokenizer.encode(["query: 질문", "passage: 문서"])
    assert not set(ids) <= set(choose_vocabulary(tokenizer, request).reasons)
    assert {*ids, *passage} <= set(choose_vocabulary(tokenizer, request, texts=texts).reasons)


@pytest.mark.assets
@pytest.mark.parametrize("script", ["Hang", "Cyrl"])
def test_the_roles_of_a_chat_stay_without_english(assets, tmp_path, script):
    tokenizer = open_tokenizer(assets / "tokenizers" / "qwen2")
    checkpoint = folder_with(tmp_path, tokenizer_config__json={"chat_template": CHATML})
    source = Source(checkpoint)
    texts = source.fixed_texts()
    choice = choose_vocabulary(
        tokenizer, VocabularyRequest(scripts=(script,)), texts=with_template_pieces(texts, source.templates)
    )
    assert len(texts[CHAT]) > 20
    for ids in tokenizer.encode([*texts[CHAT], "<|im_start|>user\n", "<|im_start|>assistant\n"]):
        assert set(ids) <= set(choice.reasons)
