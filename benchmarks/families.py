"""Random checkpoints of the true shapes of well-known models, sliced to Korean and English and verified.

    python benchmarks/families.py [NAME ...] [--work FOLDER]

Every model has the published configuration's sizes and random weights, stored as its published checkpoint is, with a
real tokenizer of its kind (of the assets; where the model's own is not among them, one of the same kind and nearly the
same size, the rest being rows without a token). The slice is verified by langslice itself and then by unmodified transformers:
no missing or unexpected key, hidden states equal, logits of kept tokens equal. Results: benchmarks/results/families.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

# name -> (model type, auto class, tokenizer of the assets, stored type, configuration)
MODELS = {
    "xlm-roberta-base": ("xlm-roberta", "AutoModelForMaskedLM", "xlm-roberta", "float32", {
        "vocab_size": 250002, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 2}),
    "mt5-small": ("mt5", "AutoModelForSeq2SeqLM", "xlm-roberta", "float32", {
        "vocab_size": 250112, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 0}),
    "bert-base-multilingual-cased": ("bert", "AutoModelForMaskedLM", "mbert-cased", "float32", {
        "vocab_size": 119547, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "pad_token_id": 0}),
    "qwen2-0.5b": ("qwen2", "AutoModelForCausalLM", "qwen2", "bfloat16", {
        "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True, "bos_token_id": 151643,
        "eos_token_id": 151643}),
    "tinyllama-1.1b": ("llama", "AutoModelForCausalLM", "mistral-v1-spm", "bfloat16", {
        "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "intermediate_size": 5632, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2}),
    "gemma-3-270m": ("gemma3_text", "AutoModelForCausalLM", "gemma-4", "bfloat16", {
        "vocab_size": 262144, "hidden_size": 640, "num_hidden_layers": 18, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 2048, "bos_token_id": 2, "eos_token_id": 1,
        "pad_token_id": 0}),
    "bloom-560m": ("bloom", "AutoModelForCausalLM", "o200k-base", "float16", {
        "vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 3}),
    "nllb-200-distilled-600m": ("m2m_100", "AutoModelForSeq2SeqLM", "xlm-roberta", "float16", {
        "vocab_size": 256206, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16,
        "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "scale_embedding": True,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}),
    "opus-mt-en-mg": ("marian", "AutoModelForSeq2SeqLM", "opus-mt-en-mg", "float32", None),
    "xglm-564m": ("xglm", "AutoModelForCausalLM", "xlm-roberta", "float16", {
        "vocab_size": 256008, "d_model": 1024, "ffn_dim": 4096, "num_layers": 24, "attention_heads": 16,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}),
    "whisper-small": ("whisper", "AutoModelForSpeechSeq2Seq", "gpt2", "float32", {
        "vocab_size": 51865, "d_model": 768, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 12,
        "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "bos_token_id": 50257,
        "eos_token_id": 50257, "pad_token_id": 50257, "decoder_start_token_id": 50258,
        "suppress_tokens": [1, 2, 7, 8, 9, 10, 14, 25, 50359], "begin_suppress_tokens": [220, 50257]}),
    "gpt2": ("gpt2", "AutoModelForCausalLM", "gpt2", "float32", {"bos_token_id": 50256, "eos_token_id": 50256}),
}  # fmt: skip


def build(name: str, folder: Path, assets: Path) -> None:
    """Write a random checkpoint of a model's true shapes, with its tokenizer files."""
    import torch
    import transformers

    model_type, auto_class, tokenizer, dtype, settings = MODELS[name]
    if settings is None:
        settings = json.loads((assets / "tokenizers" / tokenizer / "config.json").read_text())
        settings.pop("model_type")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(model_type, **settings)
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, dtype))
        model = getattr(transformers, auto_class).from_config(config)
        torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder, max_shard_size="900MB")
    for file in (assets / "tokenizers" / tokenizer).iterdir():
        if not file.name.startswith(("reference", "config.json")):
            shutil.copy(file, folder)


def measure(name: str, work: Path, assets: Path) -> dict[str, object]:
    """Build, plan, rewrite, verify; each in a process of its own, with its wall time and peak memory."""
    source, out, plan = work / name, work / f"{name}-ko-en", work / f"{name}.json"
    shutil.rmtree(out, ignore_errors=True)
    plan.unlink(missing_ok=True)
    if not source.is_dir():
        subprocess.run([sys.executable, __file__, "--build", name, "--work", str(work)], check=True)
    row: dict[str, object] = {"name": name}
    steps = {
        "plan": ["plan", str(source), "-l", "ko,en", "-o", str(plan)],
        "rewrite": ["slice", str(source), "--plan", str(plan), "--no-verify", "-o", str(out)],
        "verify": ["verify", str(source), str(out), "--json"],
    }
    for step, arguments in steps.items():
        command = ["/usr/bin/time", "-f", "%e %M", sys.executable, "-m", "langslice", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {step} failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        seconds, kilobytes = done.stderr.strip().splitlines()[-1].split()
        row[f"{step}_s"], row[f"{step}_mb"] = float(seconds), int(kilobytes) / 1000
        if step == "verify":
            row["proof"] = json.loads(done.stdout)
    made = json.loads(plan.read_text())
    row["rows"], row["kept"] = made["vocabulary"]["rows"], made["vocabulary"]["kept_rows"]
    row["before_mb"], row["after_mb"] = (
        sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6 for folder in (source, out)
    )
    for path in (source, out):
        shutil.rmtree(path)
    return row


def table(rows: list[dict[str, object]]) -> str:
    """The results as markdown."""
    lines = [
        "| model | rows | kept (ko+en) | weights, MB | plan, s | rewrite, s | rewrite peak, MB | verify, s | checks "
        "| hidden states, logits |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        checks = row["proof"]["checks"]
        passed = f"{sum(check['passed'] is True for check in checks)} of {len(checks)} equal"
        outputs = next(check["detail"] for check in checks if check["name"] == "outputs")
        lines.append(
            f"| {row['name']} | {row['rows']:,} | {row['kept']:,} | {row['before_mb']:,.0f} → {row['after_mb']:,.0f} "
            f"| {row['plan_s']:.1f} | {row['rewrite_s']:.1f} | {row['rewrite_mb']:.0f} | {row['verify_s']:.1f} "
            f"| {passed} | {outputs.split(': ', 1)[-1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the named models, or all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "langslice-families")
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("LANGSLICE_ASSETS", "../shared/assets")))
    parser.add_argument("--build", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.build:
        build(arguments.build, arguments.work / arguments.build, arguments.assets)
        return
    results = Path(__file__).parent / "results"
    stored = results / "families.json"
    rows = {row["name"]: row for row in json.loads(stored.read_text())} if stored.is_file() else {}
    for name in arguments.names:
        rows[name] = measure(name, arguments.work, arguments.assets.resolve())
        print(table([rows[name]]).splitlines()[-1], flush=True)
        ordered = [rows[known] for known in MODELS if known in rows]
        stored.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
        head = f"{__doc__.strip().splitlines()[0]} {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}."
        (results / "families.md").write_text(f"# Families\n\n{head}\n\n{table(ordered)}\n")


if __name__ == "__main__":
    main()
