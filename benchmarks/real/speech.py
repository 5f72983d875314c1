"""Speech in three languages: whisper-base and its slice.

    python benchmarks/real/speech.py

espeak-ng reads sentences of the Universal Declaration of Human Rights; both models write down what they hear, with time stamps, in
turns. Three things are compared: the slice, the original, and the original when it may not write the tokens that were dropped.
The tokenizer that the models are fetched with lacks whisper's first merge (Ġ t), so that no text is encoded with " the" or " to",
word lists do not ask for them, and a slice of it cannot write them: both models are run with the merge put back. Writes
results/real/speech.md.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
from common import WORK, machine, models, sliced, step, table, udhr, write_page

PAGE, MODEL = "speech", "whisper-base"
LANGUAGES = ("ko", "en", "fr")
CLIPS, TOKENS, RATE = 5, 64, 16_000


def repaired() -> Path:
    """A copy of the model with its first merge put back."""
    folder, source = WORK / PAGE / MODEL, models() / MODEL
    if (folder / "tokenizer.json").is_file():
        return folder
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tokenizer.json"))
    document = json.loads((source / "tokenizer.json").read_text())
    merges = document["model"]["merges"]
    if merges[0] not in (["Ġ", "t"], "Ġ t"):
        merges.insert(0, ["Ġ", "t"] if isinstance(merges[0], list) else "Ġ t")
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    return folder


def spoken(language: str, number: int, text: str) -> np.ndarray:
    """Samples at 16 kHz, float32."""
    path = WORK / PAGE / "clips" / f"{language}-{number}.wav"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["espeak-ng", "-v", language, "-s", "140", "-w", str(path), text], check=True)
    with wave.open(str(path)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
    at = np.arange(0, len(samples) * RATE // rate) * rate / RATE
    return (np.interp(at, np.arange(len(samples)), samples) / 32768).astype(np.float32)


def clips() -> dict[str, list[str]]:
    """Sentences of ten to twenty words or so, which take less than half a minute to say."""
    return {
        language: [text for text in udhr(language) if 40 < len(text.encode()) < 160][:CLIPS] for language in LANGUAGES
    }


def character_errors(heard: str, said: str) -> float:
    """Edits that turn one text into the other, as a share of the characters said; case, space and punctuation aside."""
    heard, said = (re.sub(r"\W", "", text.lower()) for text in (heard, said))
    row = list(range(len(said) + 1))
    for place, one in enumerate(heard, start=1):
        before, row[0] = row[0], place
        for at, other in enumerate(said, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (one != other))
    return row[-1] / max(len(said), 1)


def transcribed(folder: Path) -> dict[str, Any]:
    """Text, time stamps and CPU seconds of every clip, by model; the models take turns."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast

    source = repaired()
    reader = WhisperFeatureExtractor.from_pretrained(source)
    places = {"original": source, "forbidden": source, "slice": folder}
    loaded = {role: WhisperForConditionalGeneration.from_pretrained(place).eval() for role, place in places.items()}
    tokenizers = {role: WhisperTokenizerFast.from_pretrained(place) for role, place in places.items()}
    kept = np.array(json.loads((folder / "slice.json").read_text())["new_to_old"])
    gone = np.setdiff1d(np.arange(loaded["original"].config.vocab_size), kept).tolist()
    config = loaded["forbidden"].generation_config
    config.suppress_tokens = sorted({*config.suppress_tokens, *gone})
    begin = {role: model.generation_config.no_timestamps_token_id + 1 for role, model in loaded.items()}
    found: dict[str, Any] = {role: [] for role in places}
    number = 0
    for language, texts in clips().items():
        for at, text in enumerate(texts):
            sound = spoken(language, at, text)
            features = reader(sound, sampling_rate=RATE, return_tensors="pt").input_features
            roles = list(places)[number % 3 :] + list(places)[: number % 3]
            number += 1
            for role in roles:
                started = time.process_time()
                with torch.inference_mode():
                    ids = (
                        loaded[role]
                        .generate(
                            features,
                            language=language,
                            task="transcribe",
                            return_timestamps=True,
                            max_new_tokens=TOKENS,
                        )[0]
                        .tolist()
                    )
                seconds = time.process_time() - started
                found[role].append({
                    "language": language, "said": text, "sound_seconds": len(sound) / RATE, "seconds": seconds,
                    "stamps": [one - begin[role] for one in ids if one >= begin[role]],
                    "heard": tokenizers[role].decode([one for one in ids if one < begin[role]], skip_special_tokens=True).strip(),
                })  # fmt: skip
    return found


def main() -> None:
    """Measure, and write the page."""
    out, made = sliced(PAGE, "ko-en-fr", str(repaired()), "-l", ",".join(LANGUAGES))
    document = {"slice": made, "transcribed": step(PAGE, "transcribed", lambda: transcribed(out))}
    document["machine"] = machine()
    write_page(PAGE, document, page(document))


def page(document: dict[str, Any]) -> str:
    """The page, from what was measured."""
    before, after, found = document["slice"]["before"], document["slice"]["after"], document["transcribed"]
    rows, examples = [], []
    for language in LANGUAGES:
        sides = {role: [one for one in found[role] if one["language"] == language] for role in found}
        count = len(sides["slice"])

        def same(what: str, of: str, sides: dict[str, Any] = sides) -> int:
            return sum(a[what] == b[what] for a, b in zip(sides[of], sides["slice"], strict=True))

        errors = [
            float(np.mean([character_errors(one["heard"], one["said"]) for one in sides[role]]))
            for role in ("original", "slice")
        ]
        times = [a["seconds"] / b["seconds"] for a, b in zip(sides["slice"], sides["original"], strict=True)]
        rows.append([
            language, str(count), f"{errors[0]:.3f}", f"{errors[1]:.3f}", f"{same('heard', 'original')}/{count}",
            f"{same('heard', 'forbidden')}/{count}", f"{same('stamps', 'original')}/{count}",
            f"{same('stamps', 'forbidden')}/{count}", f"{float(np.median(times)):.2f}",
        ])  # fmt: skip
        examples.append(f"- {language}: {sides['slice'][0]['said']}\n  - original: {sides['original'][0]['heard']}\n"
                        f"  - slice: {sides['slice'][0]['heard']}")  # fmt: skip
    head = [
        "language", "clips", "character errors, original", "slice", "same text", "same, dropped tokens forbidden",
        "same time stamps", "same, dropped tokens forbidden", "CPU time, slice / original",
    ]  # fmt: skip
    return f"""# Speech in three languages: whisper-base

`benchmarks/real/speech.py`: {CLIPS} sentences of the Universal Declaration of Human Rights in each language, read by espeak-ng.
Its voice is synthetic, and the error rates speak of that as well. At most {TOKENS} tokens for each, greedy, with time stamps.
The tokenizer that the models are fetched with lacks whisper's first merge (`Ġ t`): no text is encoded with " the" or " to", and a
slice drops them (run so, no English clip gave the same text). Both models are run with the merge put back.
{document["machine"]}

{before["rows"]:,} → {after["rows"]:,} rows, {before["mb"]:.1f} → {after["mb"]:.1f} MB; slicing and verifying took
{document["slice"]["cpu_seconds"]:.0f} CPU s and {document["slice"]["peak_mb"]:,.0f} MB.

{table(head, rows)}
"Forbidden": next to the original as it is, the original that may not write the tokens which the slice does not have.

{chr(10).join(examples)}
"""


if __name__ == "__main__":
    main()
