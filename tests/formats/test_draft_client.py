"""A slice of a draft next to the slice of its target, in a client that decodes with it: llama.cpp."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest

import langslice
from langslice.mini import mini_model_path
from tests.slicing.test_drafts import config_of, load, save

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed"),
]
HIDDEN, WIDTH, HEADS, SIZE, WRITTEN = 64, 96, 4, 16, 24
NAMES = {
    "fc": "fc", "norm": "output_norm", "lm_head": "output", "embed_tokens": "token_embd", "q_proj": "blk.0.attn_q",
    "k_proj": "blk.0.attn_k", "v_proj": "blk.0.attn_v", "o_proj": "blk.0.attn_output", "gate_proj": "blk.0.ffn_gate",
    "up_proj": "blk.0.ffn_up", "down_proj": "blk.0.ffn_down", "hidden_norm": "blk.0.attn_norm_2",
    "input_layernorm": "blk.0.attn_norm", "post_attention_layernorm": "blk.0.ffn_norm",
}  # fmt: skip


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Give the slice of a small random Llama, which repeats the last token that it reads, and that slice as GGUF."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("target")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=json.loads((mini_model_path() / "config.json").read_text())["vocab_size"], hidden_size=HIDDEN,
        intermediate_size=WIDTH, num_hidden_layers=6, num_attention_heads=HEADS, num_key_value_heads=2, head_dim=SIZE,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(root / "whole")
    for path in mini_model_path().glob("tokenizer*.json"):
        shutil.copy(path, root / "whole")
    done = langslice.slice(root / "whole", root / "slice", languages="ko", verify=False)
    langslice.export(root / "slice", root / "gguf", precision="f32", pre="qwen35", verify=False)
    return root / "slice", next((root / "gguf").glob("*.gguf")), done.plan


def draft_of(folder, plan, old):
    """A draft of the whole target, random, whose head knows one token that stays and five that go."""
    import torch

    gone = np.setdiff1d(np.arange(plan.rows), plan.kept)[:5].tolist()
    targets = torch.tensor([gone[0], old, *gone[1:]])
    linear = {"fc": (HIDDEN, 3 * HIDDEN), "lm_head": (len(targets), HIDDEN), "embed_tokens": (plan.rows, HIDDEN)}
    attention = {"q_proj": HEADS * SIZE, "k_proj": 2 * SIZE, "v_proj": 2 * SIZE}
    linear |= {f"midlayer.self_attn.{name}": (rows, 2 * HIDDEN) for name, rows in attention.items()}
    linear |= {"midlayer.self_attn.o_proj": (HIDDEN, HEADS * SIZE), "midlayer.mlp.down_proj": (HIDDEN, WIDTH)}
    linear |= {f"midlayer.mlp.{name}_proj": (WIDTH, HIDDEN) for name in ("gate", "up")}
    norms = ["norm", *(f"midlayer.{name}" for name in NAMES if name.endswith("norm") and name != "norm")]
    tensors = {f"{name}.weight": torch.randn(shape) for name, shape in linear.items()}
    tensors |= {f"{name}.weight": torch.ones(HIDDEN) for name in norms}
    flags = torch.zeros(plan.rows, dtype=torch.bool)
    flags[targets] = True
    config = {**config_of(plan.rows), "draft_vocab_size": len(targets), "eos_token_id": None}
    return save(folder, {**tensors, "d2t": targets - torch.arange(len(targets)), "t2d": flags}, config)


def as_gguf(path, tensors, tokenizer_of, targets):
    """A draft as llama.cpp's converter lays it out: tensors renamed, d2t with the draft id added, the target's tokenizer."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, "eagle3")
    for name, field in GGUFReader(tokenizer_of).fields.items():
        if name.startswith("tokenizer.") and field.types[0] == GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        elif name.startswith("tokenizer."):
            writer.add_key_value(name, field.contents(), field.types[0])
    sizes = {
        "block_count": 1, "context_length": 512, "embedding_length": HIDDEN, "feed_forward_length": WIDTH,
        "attention.head_count": HEADS, "attention.head_count_kv": 2, "attention.key_length": SIZE,
        "attention.value_length": SIZE, "rope.dimension_count": SIZE, "target_hidden_size": HIDDEN,
    }  # fmt: skip
    for name, size in sizes.items():
        writer.add_uint32(f"eagle3.{name}", size)
    writer.add_layer_norm_rms_eps(1e-5)
    # Its name until the middle of 2026, and its name since.
    for name in ("extract_layers", "target_layers"):
        writer.add_array(f"eagle3.{name}", [2, 3, 3])
    for name, tensor in tensors.items():
        if name not in ("d2t", "t2d"):
            writer.add_tensor(f"{NAMES[name.split('.')[-2]]}.weight", tensor.numpy())
    writer.add_tensor("d2t", np.asarray(targets, dtype=np.int64), raw_dtype=GGMLQuantizationType.I64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def written(target, draft, ids):
    """What llama.cpp writes with a draft, and how many of its proposals hold, of how many."""
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path = str(target)
    asked.n_ctx = asked.n_batch = asked.n_ubatch = 512
    asked.n_parallel, asked.n_gpu_layers, asked.port, asked.hostnames = 1, 0, 0, ["127.0.0.1"]
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
    asked.warmup, asked.ui, asked.verbosity = False, False, -1
    if draft is not None:
        asked.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_EAGLE3]
        asked.speculative.draft.mparams.path = str(draft)
        asked.speculative.draft.n_max, asked.speculative.draft.p_min = 3, 0.0
    server = xllamacpp.Server(asked)
    body = {
        "prompt": ids, "n_predict": WRITTEN, "temperature": 0.0, "cache_prompt": False, "return_tokens": True,
        "samplers": ["temperature"], "ignore_eos": True,
    }  # fmt: skip
    request = Request(
        f"{server.listening_address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with build_opener(ProxyHandler({})).open(request) as answer:
        found = json.load(answer)
    timings = found["timings"]
    return found["tokens"], timings.get("draft_n_accepted", 0), timings.get("draft_n", 0)


def test_llama_cpp_takes_the_proposals_of_a_draft_s_slice(target, tmp_path):
    folder, whole, plan = target
    for last in range(300, 3000, 100):
        ids = [5, 9, last]
        alone = written(whole, None, ids)[0]
        new, old = alone[-1], int(plan.kept[alone[-1]])
        if new != old < len(plan.kept):
            break
    source = draft_of(tmp_path / "draft", plan, old)
    langslice.slice(source, tmp_path / "out", like=folder)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "next to the slice of its target" in card and "AutoModel" not in card
    assert langslice.report(tmp_path / "out").is_file()
    tensors = load(tmp_path / "out")
    assert tensors["d2t"].tolist() == [new]
    ours = as_gguf(tmp_path / "ours.gguf", tensors, whole, [new])
    tokens, held, proposed = written(whole, ours, ids)
    assert tokens == alone and alone.count(new) > WRITTEN / 2 and held > proposed / 2 > 0
    # The same draft with its source's numbering: what is written stays right, and nothing that it proposes holds.
    tokens, held, proposed = written(whole, as_gguf(tmp_path / "old.gguf", tensors, whole, [old]), ids)
    assert tokens == alone and held == 0 < proposed
