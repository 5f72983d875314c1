"""Translation, greedy: by demonstrations, by instruction, or by the language tokens of an encoder-decoder; sacreBLEU scores it.

A causal model is shown pairs, one per line, each with its language's English name, and stops at the end of the line; without
demonstrations it is asked, through its chat template where it has one. NLLB, M2M-100 and mBART get their language tokens,
Marian its text alone (with `>>code<<` where its vocabulary has it), other encoder-decoders an instruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from langslice.errors import TaskError
from langslice.evaluation.codes import one_language, spellings
from langslice.evaluation.generation import decode, generate, line_break_ids
from langslice.evaluation.loaded_model import Loaded, encode_texts
from langslice.evaluation.measurement import Measurement
from langslice.evaluation.parallel import ParallelText
from langslice.model.families import reading_of

# The longest source line of a demonstration, in characters (Kim et al. 2024).
SHOT_CHARACTERS: Final = 100
# sacreBLEU's tokenisation where it is not 13a; its own for Japanese and Korean need further packages.
TOKENISATION: Final = {"zh": "zh", "ja": "char", "ko": "char", "th": "char", "lo": "char", "km": "char", "my": "char"}


@dataclass(frozen=True)
class Pair:
    """What is translated from which language into which.

    sources, references  (n) lines
    shots                demonstrations: (source, translation)
    """

    source: str
    target: str
    sources: tuple[str, ...]
    references: tuple[str, ...]
    shots: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Such as `ko-en`."""
        return f"{self.source}-{self.target}"


def make_pair(text: ParallelText, source: str, target: str, *, shots: int, limit: int | None) -> Pair:
    """Lines of a pair, and the first so many short ones as demonstrations, from lines apart where the set has them.

    Raises  TaskError when there are too few short lines, or nothing is left to translate
    """
    apart = bool(text.shots)
    lines = text.shots if apart else text.lines
    short = [number for number, line in enumerate(lines[source]) if 0 < len(line) < SHOT_CHARACTERS][:shots]
    if len(short) < shots:
        raise TaskError(
            f"{text.name} has {len(short)} lines under {SHOT_CHARACTERS} characters in {source}, expected {shots}",
            "ask for fewer with --shots",
        )
    taken = set() if apart else set(short)
    rest = [number for number in range(len(text.lines[source])) if number not in taken][:limit]
    if not rest:
        raise TaskError(f"{text.name} has no line left to translate from {source}", "use a larger data set")
    return Pair(
        source, target, tuple(text.lines[source][number] for number in rest),
        tuple(text.lines[target][number] for number in rest),
        tuple((lines[source][number], lines[target][number]) for number in short),
    )  # fmt: skip


def translate(loaded: Loaded, pair: Pair, *, new_tokens: int = 64, separator: str = "\n") -> list[str]:
    """Translations of a pair's sources, in their order.

    separator  what ends a line of a few-shot prompt; the end-of-text token's own string is one too
    """
    if loaded.kind == "encoder":
        raise TaskError("translation needs a model that writes, and this is an encoder", "use sts or bitext")
    if loaded.kind == "seq2seq":
        return _translate_seq2seq(loaded, pair, new_tokens)
    if pair.shots:
        prompts = _few_shot(loaded, pair, new_tokens, separator)
        stop = line_break_ids(loaded) if "\n" in separator else ()
        return decode(loaded, generate(loaded, prompts, new_tokens=new_tokens, stop=stop))
    prompts = [chat_prompt(loaded, instruction(pair, line)) for line in pair.sources]
    return decode(loaded, generate(loaded, prompts, new_tokens=new_tokens))


def instruction(pair: Pair, line: str) -> str:
    """The request for one line."""
    names = one_language(pair.source).name, one_language(pair.target).name
    return f"Translate this {names[0]} text to {names[1]}. Answer with the translation only.\n{line}"


def chat_prompt(loaded: Loaded, request: str) -> list[int]:
    """Token ids of a request: in the model's chat template where it has one, else as plain text to go on from."""
    tokenizer = loaded.tokenizer
    if getattr(tokenizer, "chat_template", None):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
        )
        return list(tokenizer(text, add_special_tokens=False).input_ids)
    return encode_texts(loaded, [request + "\n"])[0]


def _few_shot(loaded: Loaded, pair: Pair, new_tokens: int, separator: str) -> list[list[int]]:
    shown, queries = _shown(pair, separator)
    prompts = []
    shortened = 0
    for query in queries:
        for first in range(len(shown) + 1):
            ids = encode_texts(loaded, ["".join(shown[first:]) + query])[0]
            if loaded.max_length is None or len(ids) + new_tokens <= loaded.max_length:
                break
        else:
            # A single line beyond the model's positions: its end is what matters for what comes next.
            ids = ids[-(int(loaded.max_length or 0) - new_tokens) :]
        shortened += first > 0
        prompts.append(ids)
    loaded.memo["translation", pair.name, "shortened"] = shortened
    return prompts


def few_shot_texts(pair: Pair, separator: str) -> list[str]:
    """The whole prompt of each line: every demonstration, then its source and the name of the target language."""
    shown, queries = _shown(pair, separator)
    return ["".join(shown) + query for query in queries]


def _shown(pair: Pair, separator: str) -> tuple[list[str], list[str]]:
    """Demonstrations as they are shown, and for each line what asks for its translation."""
    source, target = one_language(pair.source).name, one_language(pair.target).name
    shown = [f"{source}: {line}{separator}{target}: {answer}{separator}" for line, answer in pair.shots]
    return shown, [f"{source}: {line}{separator}{target}:" for line in pair.sources]


def _translate_seq2seq(loaded: Loaded, pair: Pair, new_tokens: int) -> list[str]:
    tokenizer = loaded.tokenizer
    forced = None
    lines: Sequence[str] = pair.sources
    if hasattr(tokenizer, "src_lang"):
        tokenizer.src_lang = _language_token(loaded, pair.source)[0]
        forced = _language_token(loaded, pair.target)[1]
    elif reading_of({"model_type": loaded.model.config.model_type}).language == "mark":
        marks = [f">>{spelled}<<" for spelled in spellings(pair.target)]
        mark = next((mark for mark in marks if mark in tokenizer.get_vocab()), None)
        lines = [f"{mark} {line}" for line in lines] if mark else lines
    else:
        lines = [instruction(pair, line) for line in lines]
    prompts = [list(ids) for ids in tokenizer(list(lines)).input_ids]
    if loaded.max_length is not None and any(len(ids) > loaded.max_length for ids in prompts):
        loaded.note(f"translation {pair.name}: lines beyond {loaded.max_length} tokens were truncated")
        prompts = [ids[: loaded.max_length] for ids in prompts]
    return decode(loaded, generate(loaded, prompts, new_tokens=new_tokens, forced_first=forced))


def _language_token(loaded: Loaded, language: str) -> tuple[str, int]:
    """Code and id by which an encoder-decoder names a language: kor_Hang, ko_KR, __ko__."""
    vocabulary = loaded.tokenizer.get_vocab()
    for spelled in spellings(language):
        for token, code in ((spelled, spelled), (f"__{spelled}__", spelled)):
            if token in vocabulary and token in _special_tokens(loaded.tokenizer):
                return code, int(vocabulary[token])
    raise TaskError(
        f"{loaded.folder}: its tokenizer has no token for the language {language}",
        "the model does not know it, or the slice dropped it; leave the pair out",
    )


def _special_tokens(tokenizer: Any) -> set[str]:
    return {str(token) for token in [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]}


def sacrebleu_metrics(target: str) -> tuple[Any, Any]:
    """BLEU and chrF++ of sacreBLEU for a target language.

    Raises  TaskError without the package
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise TaskError("translation needs the package `sacrebleu`", 'pip install "langslice[evaluate]"') from error
    return BLEU(tokenize=TOKENISATION.get(target.split("-")[0], "13a")), CHRF(word_order=2)


def score_translations(
    pair_name: str, target: str, hypotheses: Sequence[str], references: Sequence[str], details: Mapping[str, Any]
) -> list[Measurement]:
    """BLEU and chrF++ with sacreBLEU's signatures.

    hypotheses, references  (n) lines
    """
    found = []
    for metric, statistic in zip(sacrebleu_metrics(target), ("bleu", "chrf"), strict=True):
        score = metric.corpus_score(list(hypotheses), [list(references)])
        # The statistics of each sentence that sacreBLEU's own bootstrap resamples.
        items = np.asarray(metric._extract_corpus_statistics(list(hypotheses), [list(references)]), dtype=np.float64)
        found.append(
            Measurement(
                "translation", pair_name, str(score.name), statistic, items,
                details={"signature": str(metric.get_signature()), **details},
            )
        )  # fmt: skip
    return found


def measure_translation(
    loaded: Loaded, pair: Pair, *, new_tokens: int = 64, separator: str = "\n"
) -> list[Measurement]:
    """Translate and score one pair; the first three translations are in the details."""
    hypotheses = translate(loaded, pair, new_tokens=new_tokens, separator=separator)
    details = {
        "shots": len(pair.shots),
        "prompts_with_fewer_shots": loaded.memo.get(("translation", pair.name, "shortened"), 0),
        "empty": sum(not text for text in hypotheses),
        "examples": hypotheses[:3],
    }
    return score_translations(pair.name, pair.target, hypotheses, pair.references, details)
