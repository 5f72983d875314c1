"""From a choice to a plan: evidence, closure, protected ids, tensors, padding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.errors import PlanError, TokenizerError
from langslice.model.checkpoint import Checkpoint
from langslice.model.folder_kinds import LAYERLESS
from langslice.model.quantisation import quantisation
from langslice.model.token_id_fields import IdField
from langslice.options import Choice, asks, codes, listed, request_json
from langslice.planning.derived_files import Cut, check_derived
from langslice.planning.plan import SlicePlan, digest_rows
from langslice.planning.side_files import SideFile, as_it_is, id_fields, plan_side_files, renumbered
from langslice.planning.tensors import plan_tensors, with_structure
from langslice.tokenizer import SourceTokenizer

if TYPE_CHECKING:
    from langslice.counting import TokenCounts
    from langslice.model.anatomy import Anatomy
    from langslice.structure.kept import Kept
    from langslice.vocabulary.vocabulary import VocabularyChoice, VocabularyRequest

# Entries of a choice that say which tokens stay; without any of them a structural slice keeps all.
_VOCABULARY_ENTRIES = (
    "languages", "corpus", "counts", "lexicon", "scripts", "drop_scripts", "coverage", "min_count", "max_vocab", "top_k",
    "keep_tokens", "keep_code", "language_id",
)  # fmt: skip
# Bytes that no UTF-8 text holds: their tokens are trained as little as padding rows are.
_IMPOSSIBLE_BYTES = (0xC0, 0xC1, *range(0xF5, 0x100))


def make_plan(
    checkpoint: Checkpoint,
    tokenizer: SourceTokenizer,
    choice: Choice,
    source_fingerprint: str,
    report: Callable[[str, int, int], None],
) -> SlicePlan:
    """Choose the vocabulary and say for every tensor of the checkpoint what becomes of it.

    Raises  TokenizerError for a tokenizer with more ids than the model has rows, and what the rooms that choose raise
    """
    from langslice.model.transformers_classes import implied_fields
    from langslice.planning.layers import CUTS, language_control, removal_offer
    from langslice.planning.weights import refuse_unprunable, weights_request
    from langslice.structure.clients import client_note, depth_note, place_note
    from langslice.vocabulary.vocabulary import choose_vocabulary

    ignore = frozenset(codes(choice.get("ignore_field")))
    whole = asks(choice, (*CUTS, "sparsity", "pattern")) and not asks(choice, _VOCABULARY_ENTRIES)
    cut = not whole or bool(choice.get("pad_to_multiple_of"))
    rows, per_layer_rows, _ = plan_tensors(checkpoint, drop={}, cut=cut)
    check_sizes(tokenizer, rows)
    files = plan_side_files(
        checkpoint, tokenizer.files, carry=listed(choice.get("carry")), leave_out=listed(choice.get("leave_out")),
        tokens=tokenizer.tokens,
    )  # fmt: skip
    named = id_fields(checkpoint, files, rows=rows, ignore=ignore)
    anatomy, structure = choose_layers(checkpoint, choice, report)
    weights = weights_request(choice)
    if weights is not None:
        refuse_unprunable(checkpoint)
    implied: Mapping[str, int | Sequence[int]] = {}
    sizes: Mapping[str, int] = {}
    if cut:
        implied, sizes = implied_fields(checkpoint.config, rows=rows, per_layer_rows=per_layer_rows, ignore=ignore)
    protected = protected_rows(named, implied)
    remarks: tuple[str, ...] = ()
    if anatomy is not None and structure is not None:
        remarks = (
            client_note(anatomy, structure, quantisation(checkpoint.config)),
            place_note(anatomy, structure),
            depth_note(anatomy, structure),
            *removal_offer(anatomy, choice),
            *language_control(checkpoint, anatomy, structure, choice, report),
        )
    chosen = None
    if whole:
        reasons = dict.fromkeys(range(rows), "whole vocabulary")
    else:
        counts = read_evidence(tokenizer, choice, report)
        report("choosing tokens", 0, 0)
        chosen = choose_vocabulary(
            tokenizer,
            vocabulary_request(choice),
            counts=counts,
            protected=[row for row in protected if row < len(tokenizer.tokens)],
            chat_template=read_chat_template(checkpoint.model_folder),
        )
        reasons = {row: f"named by {why}" for row, why in protected.items()}
        reasons.update({row: ", ".join(why) for row, why in chosen.reasons.items()})
    kept = np.array(sorted(reasons), dtype=np.int64)
    written_out = {
        ".".join((*checkpoint.config_section, path)): value
        for path, value in {**_moved(implied, kept), **sizes}.items()
    }
    _, _, tensors = plan_tensors(checkpoint, drop=tied_copies(checkpoint), cut=cut)
    size = len(tokenizer.tokens)
    plan = SlicePlan(
        model=checkpoint.model_id,
        revision=checkpoint.revision,
        model_type=str(checkpoint.config["model_type"]),
        fingerprint=source_fingerprint,
        rows=rows,
        per_layer_rows=per_layer_rows,
        kept=kept,
        tokens=tuple(tokenizer.tokens[row] if row < size else None for row in kept.tolist()),
        reasons=tuple(reasons[row] for row in kept.tolist()),
        tensors=tensors,
        padding=padding_rows(tokenizer, kept, rows, choice.get("pad_to_multiple_of")),
        checked=digest_rows(kept),
        implied_ids={_config_name(checkpoint): written_out} if written_out else {},
        ignore_fields=tuple(sorted(ignore)),
        request=request_json(choice),
        coverage={} if chosen is None or chosen.corpus_coverage is None else {"corpus": chosen.corpus_coverage},
        notes=(*tokenizer.notes, *(chosen.notes if chosen else ()), *filter(None, remarks)),
        structure=structure,
        weights=weights,
        facts=_facts(tokenizer, chosen, kept, anatomy),
    )
    plan = with_structure(plan, checkpoint, anatomy)
    _check_renumbering(checkpoint, files, plan)
    check_derived(Cut(checkpoint, tokenizer, plan), files)
    return plan


def _facts(
    tokenizer: SourceTokenizer, chosen: VocabularyChoice | None, kept: np.ndarray, anatomy: Anatomy | None
) -> dict[str, Any]:
    """What the choice rests on, as far as a report can use it and it was looked at anyway."""
    from langslice.vocabulary.facts import evidence_facts, script_facts

    facts: dict[str, Any] = {}
    if chosen is not None:
        facts["scripts"] = script_facts(tokenizer, kept)
        facts["evidence"] = evidence_facts(chosen.pieces, kept)
    if anatomy is not None:
        facts["sizes"] = anatomy.sizes()
    return facts


def choose_layers(
    checkpoint: Checkpoint, choice: Choice, report: Callable[[str, int, int], None]
) -> tuple[Anatomy | None, Kept | None]:
    """The model's layers and what is kept of them; None twice where the choice does not touch them.

    Raises   PlanError for what does not exist or cannot be expressed, or an entry that would have no effect
    """
    from langslice.planning.layers import CUTS, MANNERS, choose_structure

    if not asks(choice, CUTS):
        given = [name for name in MANNERS if choice.get(name)]
        if given:
            raise PlanError(
                f"--{given[0].replace('_', '-')} has no effect: no layer, head or neuron is cut",
                hint="add --heads-sparsity, --drop-heads, --drop-neurons or --drop-layers",
            )
        return None, None
    if checkpoint.config["model_type"] in LAYERLESS:
        raise PlanError(
            f"{LAYERLESS[checkpoint.config['model_type']]} has no layers to cut",
            hint="choose tokens alone, such as -l ko,en",
        )
    method = quantisation(checkpoint.config)
    inside = [name for name in CUTS if "layer" not in name and asks(choice, (name,))]
    if method and inside:
        raise PlanError(
            f"--{inside[0].replace('_', '-')}: the weights are quantised ({method}), and what is inside a layer cannot be cut",
            hint="cut the model that was quantised and quantise the slice; whole layers (--drop-layers) can go",
        )
    if checkpoint.config_section:
        raise PlanError(
            f"only the vocabulary of a model inside a wrapper ({checkpoint.config_file}) can be cut, not its layers",
            hint="cut the layers of the encoder itself",
        )
    from langslice.model.anatomy import read_anatomy

    anatomy = read_anatomy(checkpoint)
    return anatomy, choose_structure(checkpoint, anatomy, choice, report)


def _check_renumbering(checkpoint: Checkpoint, files: Sequence[SideFile], plan: SlicePlan) -> None:
    """Stop the plan, not the slice that is made from it, where a file cannot be renumbered."""
    for file in files:
        if file.action == "renumber":
            ignore = frozenset(plan.ignore_fields)
            renumbered(checkpoint, file, plan.id_map(), implied=plan.implied_ids, ignore=ignore, restructure=as_it_is)


def _moved(implied: Mapping[str, int | Sequence[int]], kept: np.ndarray) -> dict[str, Any]:
    """The implied fields of which an id changes."""
    new_of = {int(old): new for new, old in enumerate(kept)}
    return {
        path: value
        for path, value in implied.items()
        if any(new_of[old] != old for old in ([value] if isinstance(value, int) else value) if old >= 0)
    }


def check_sizes(tokenizer: SourceTokenizer, rows: int) -> None:
    """Refuse a tokenizer that disagrees with the model."""
    if len(tokenizer.tokens) > rows:
        first = tokenizer.tokens[rows]
        raise TokenizerError(
            f"the tokenizer has {len(tokenizer.tokens)} ids, the model {rows} rows of vocabulary\n"
            f"  the first token without a row is {rows} {first!r}",
            hint="are the tokenizer files those of this model? if tokens were added, resize the model's embeddings first",
        )
    if len(tokenizer.tokens) < rows / 2:
        raise TokenizerError(
            f"the tokenizer has {len(tokenizer.tokens)} ids, the model {rows} rows of vocabulary: less than half",
            hint="are the tokenizer files those of this model?",
        )


def vocabulary_request(choice: Choice) -> VocabularyRequest:
    """The part of a choice that the vocabulary's own room answers."""
    from langslice.vocabulary.vocabulary import VocabularyRequest

    fields: dict[str, Any] = {
        "languages": codes(choice.get("languages")),
        "lexicons": tuple(Path(path) for path in listed(choice.get("lexicon"))),
        "scripts": codes(choice.get("scripts")),
        "drop_scripts": codes(choice.get("drop_scripts")),
        "keep_tokens": tuple(Path(path) for path in listed(choice.get("keep_tokens"))),
        "keep_code": bool(choice.get("keep_code")),
    }
    for name in ("coverage", "min_count", "max_vocab", "top_k"):
        fields[name] = choice.get(name)
    return VocabularyRequest(**fields)


def read_evidence(
    tokenizer: SourceTokenizer, choice: Choice, report: Callable[[str, int, int], None]
) -> TokenCounts | None:
    """Counts of the corpus and of every counts file, added up with their weights; None where neither was given."""
    from langslice.corpus import corpus_units
    from langslice.counting import load_counts, merge_counts

    parts: list[TokenCounts] = []
    weights: list[float] = []
    corpus = listed(choice.get("corpus"))
    if choice.get("language_id") and not (corpus and codes(choice.get("languages"))):
        raise PlanError(
            "--language-id keeps the corpus lines that are in the wanted languages, but "
            + ("--languages names none" if corpus else "there is no --corpus"),
            hint="add --languages ko,en and --corpus PATH, or leave --language-id away",
        )
    if corpus:
        languages = codes(choice.get("languages")) if choice.get("language_id") else ()
        parts += count_sides(
            tokenizer,
            partial(
                corpus_units, corpus, text_field=choice.get("text_field", "text"), languages=languages, report=report
            ),
            processes=choice.get("processes"),
        )
        weights += [1.0] * len(parts)
    for item in listed(choice.get("counts")):
        path, _, weight = item.partition("=")
        try:
            weights.append(float(weight) if weight else 1.0)
        except ValueError as error:
            raise PlanError(f"--counts {item}: {weight!r} is not a weight", hint="write FILE or FILE=0.5") from error
        parts.append(load_counts(Path(path), tokenizer))
    return merge_counts(parts, weights) if parts else None


def count_sides(
    tokenizer: SourceTokenizer, read: Callable[[], Iterable[str]], *, processes: int | None
) -> list[TokenCounts]:
    """Count text as the tokenizer encodes it; for Marian, which does not say what language a text is in, also as target."""
    from langslice.counting import count_tokens

    return [count_tokens(side, read(), processes=processes) for side in tokenizer.sides]


def protected_rows(named: Sequence[IdField], implied: Mapping[str, int | Sequence[int]]) -> dict[int, str]:
    """Rows that the configuration names, in its files or by its class's defaults, and who names them."""
    protected: dict[int, str] = {}
    for field in named:
        for row in field.ids:
            protected.setdefault(row, str(field))
    for path, value in implied.items():
        for row in [value] if isinstance(value, int) else value:
            if row >= 0:
                protected.setdefault(row, f"the class default of {path}")
    return protected


def padding_rows(tokenizer: SourceTokenizer, kept: np.ndarray, rows: int, multiple: int | None) -> tuple[int, ...]:
    """Old rows to repeat behind the kept ones until their number is a multiple.

    The source's own padding rows come first: they are trained to be improbable. Then one row is repeated that no text
    can ask for: an impossible byte, the unknown token, or the last kept row.
    """
    if multiple is None:
        return ()
    if multiple < 1:
        raise PlanError(f"--pad-to-multiple-of {multiple}: expected a positive number", hint="64 suits most hardware")
    missing = -len(kept) % multiple
    size = len(tokenizer.tokens)
    named = set(kept[kept >= size].tolist())
    own = [row for row in range(size, rows) if row not in named][:missing]
    impossible = [row for row in sorted(tokenizer.byte_ids) if tokenizer.surface(row)[:1] in _IMPOSSIBLE_SURFACES]
    filler = next(iter(impossible), tokenizer.unknown_id if tokenizer.unknown_id is not None else int(kept[-1]))
    return (*own, *[filler] * (missing - len(own)))


_IMPOSSIBLE_SURFACES = frozenset(bytes([value]) for value in _IMPOSSIBLE_BYTES)


def read_chat_template(folder: Path) -> str | None:
    """The chat template beside a model: chat_template.jinja, chat_template.json, or in tokenizer_config.json."""
    import json

    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        template = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
        if isinstance(template, list):
            return "\n".join(str(entry.get("template", "")) for entry in template)
        if isinstance(template, str) and template:
            return template
    return None


def tied_copies(checkpoint: Checkpoint) -> dict[str, str]:
    """Names in a pickle that share their storage with another table and that the stock class ties anyway.

    Biases stay under every name: RoBERTa's head in transformers 4 reads `lm_head.decoder.bias` only, and starts from
    zeros where it is not stored.
    """
    from langslice.model.transformers_classes import ties_embeddings

    if not checkpoint.aliases or not ties_embeddings(checkpoint.config):
        return {}
    _, _, tensors = plan_tensors(checkpoint, drop={}, cut=False)
    return {
        name: f"the same storage as {other}, to which the model ties it"
        for name, other in checkpoint.aliases.items()
        if tensors[name].action == "slice" and len(tensors[name].shape) > 1
    }


def _config_name(checkpoint: Checkpoint) -> str:
    return (checkpoint.model_folder.relative_to(checkpoint.folder) / checkpoint.config_file).as_posix()
