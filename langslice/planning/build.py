"""From options to a plan: criteria, closure, protected ids, tensors, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from langslice.errors import PlanError, TokenizerError
from langslice.formatting import bytes_text
from langslice.model.axes import refuse_packed
from langslice.model.checkpoint import Checkpoint
from langslice.model.folder_kinds import LAYERLESS
from langslice.model.quantisation import quantisation
from langslice.model.row_text import derived_text
from langslice.model.token_id_fields import IdField, check_ignored
from langslice.options import Choice, asks, codes, flag_of, listed, request_json
from langslice.planning.criteria import read_criteria, vocabulary_request
from langslice.planning.derived_files import DerivedFileInputs, check_derived
from langslice.planning.drafts import refuse_drafts
from langslice.planning.extension import check_fits, choose_extension, extends
from langslice.planning.plan import SlicePlan, digest_rows
from langslice.planning.reserved_tokens import reserved_note, unused_reserved
from langslice.planning.side_files import as_it_is, id_fields, renumbered
from langslice.planning.size_limit import WeightSizes, weight_sizes
from langslice.planning.source import Source
from langslice.planning.tensors import along_vocabulary, plan_tensors, with_structure
from langslice.planning.token_free_rows import live_rows, padding_rows, protected_rows, rows_note
from langslice.planning.weights import refuse_unprunable, weights_request
from langslice.progress import Report
from langslice.structure.clients import client_note, depth_note, place_note, size_note
from langslice.tokenizer import SourceTokenizer, check_renumbering
from langslice.tokenizer.absent import ABSENT
from langslice.tokenizer.extension import NewToken

if TYPE_CHECKING:
    from langslice.structure.kept import Kept
    from langslice.vocabulary.vocabulary import VocabularyChoice

# Entries of a choice that say which tokens stay; without any of them a structural slice keeps all.
_VOCABULARY_ENTRIES = (
    "languages", "corpus", "counts", "lexicon", "scripts", "drop_scripts", "coverage", "min_count", "max_vocab", "top_k",
    "keep_tokens", "keep_code", "language_id", "only_tokens", "keep_text", "keep_all_language_codes", "drop_reserved",
    "max_size", "max_loss",
)  # fmt: skip


@dataclass(frozen=True)
class _Rows:
    """What is known of the vocabulary before tokens are chosen.

    cut        whether any of its rows goes or comes
    protected  row -> why it stays whatever is chosen
    implied    path -> id or ids that config.json leaves to its class
    sizes      path -> size of the vocabulary that it leaves to its class
    """

    cut: bool
    protected: Mapping[int, str]
    implied: Mapping[str, int | Sequence[int]]
    sizes: Mapping[str, int]


def make_plan(source: Source, choice: Choice, report: Report, *, costs: np.ndarray | None = None) -> SlicePlan:
    """Choose what is kept of the vocabulary, and say for every tensor of the checkpoint what happens to it.

    costs   (tokens,) what it costs to lose an occurrence of each token, for which rows go first under a limit
    Raises  TokenizerError for a tokenizer with more ids than the model has rows, and what the rooms that choose raise
    """
    refuse_drafts(source.checkpoint, choice)
    checkpoint, tokenizer = source.checkpoint, source.tokenizer
    ignore = frozenset(codes(choice.get("ignore_field")))
    check_ignored(ignore)
    whole = not chooses_tokens(choice)
    cut = not whole or extends(choice) or bool(choice.get("pad_to_multiple_of"))
    if cut:
        refuse_packed(source.axes, checkpoint.shapes)
    named = id_fields(checkpoint, source.files, rows=source.rows, ignore=ignore)
    structure = choose_layers(source, choice, report)
    weights = weights_request(choice)
    if weights is not None:
        refuse_unprunable(checkpoint)
    rows = _rows(source, named, ignore, cut=cut)
    remarks = _structure_remarks(source, structure, choice, report)
    tensors, chosen = plan_tensors(source, drop=tied_copies(source)), None
    reasons = _all_rows(source, rows, choice)
    if not whole:
        sizes = weight_sizes(checkpoint, tensors, source.anatomy if structure else None, structure)
        chosen, said = _choose_tokens(source, choice, rows.protected, sizes, report, costs)
        reasons = {**rows.protected, **{row: ", ".join(why) for row, why in chosen.reasons.items()}}
        remarks += (*said, rows_note(tokenizer, source.rows, reasons))
    kept = np.array(sorted(reasons), dtype=np.int64)
    size = len(tokenizer.tokens)
    extension, padding, said = _rows_behind(source, choice, kept, report, None if whole else sizes)
    remarks += said
    plan = SlicePlan(
        model=checkpoint.model_id,
        revision=checkpoint.revision,
        model_type=str(checkpoint.config["model_type"]),
        fingerprint=source.fingerprint,
        rows=source.rows,
        per_layer_rows=source.per_layer_rows,
        kept=kept,
        tokens=tuple(tokenizer.tokens[row] if row < size else None for row in kept.tolist()),
        reasons=tuple(reasons[row] for row in kept.tolist()),
        tensors=tensors,
        padding=padding,
        extension=extension,
        checked=digest_rows(kept),
        implied_ids=_written_out(checkpoint, rows, kept),
        ignore_fields=tuple(sorted(ignore)),
        request=request_json(choice),
        coverage={} if chosen is None or chosen.corpus_coverage is None else {"corpus": chosen.corpus_coverage},
        notes=_notes(tokenizer, chosen, remarks, cut=cut),
        structure=structure,
        weights=weights,
        facts=_facts(source, chosen, kept, structure),
        row=derived_text(source.checkpoint.config, structure=structure is not None),
    )
    return _checked(with_structure(plan, source), source, cut=cut)


def _rows_behind(
    source: Source, choice: Choice, kept: np.ndarray, report: Report, sizes: WeightSizes | None
) -> tuple[tuple[NewToken, ...], tuple[int, ...], tuple[str, ...]]:
    """New tokens, rows of padding behind them, and what is said of both.

    kept   (rows,) that stay
    sizes  of the weights, where they are limited
    """
    extension, remarks = choose_extension(source, choice, kept, report)
    new, multiple = len(extension), choice.get("pad_to_multiple_of")
    padding = padding_rows(source.tokenizer, kept, source.rows, multiple, source.family.live_rows, new=new)
    rows = len(kept) + new + len(padding)
    if sizes is not None:
        check_fits(choice, sizes, rows, new)
    return extension, padding, (*remarks, size_note(source.checkpoint.config, source.rows, rows))


def _all_rows(source: Source, rows: _Rows, choice: Choice) -> dict[int, str]:
    """Every row, for a choice that drops no token; those of padding go where new tokens follow the last one."""
    stays = len(source.tokenizer.tokens) if extends(choice) else source.rows
    return {**rows.protected, **dict.fromkeys(range(stays), "whole vocabulary")}


def _rows(source: Source, named: Sequence[IdField], ignore: frozenset[str], *, cut: bool) -> _Rows:
    """What configuration, its class and the family's code say of rows.

    named  fields of configuration files that hold ids
    """
    from langslice.model.transformers_classes import implied_fields

    implied: Mapping[str, int | Sequence[int]] = {}
    sizes: Mapping[str, int] = {}
    if cut:
        check_sizes(source.tokenizer, source.rows)
        implied, sizes = implied_fields(
            source.checkpoint.config, rows=source.rows, per_layer_rows=source.per_layer_rows, ignore=ignore
        )
    live = live_rows(source.family.live_rows, source.tokenizer, source.rows)
    return _Rows(cut, {**live, **protected_rows(named, implied)}, implied, sizes)


def _written_out(checkpoint: Checkpoint, rows: _Rows, kept: np.ndarray) -> dict[str, dict[str, Any]]:
    """File -> field -> value of ids and sizes that the source leaves to its class, and that are other ones now."""
    fields = {**_moved(rows.implied, kept), **rows.sizes}
    written = {".".join((*checkpoint.config_section, path)): value for path, value in fields.items()}
    return {checkpoint.config_name: written} if written else {}


def _notes(
    tokenizer: SourceTokenizer, chosen: VocabularyChoice | None, remarks: Sequence[str], *, cut: bool
) -> tuple[str, ...]:
    """All that a user should know of a plan."""
    of_tokenizer = tokenizer.notes if cut or tokenizer.kind == ABSENT else ()
    return (*of_tokenizer, *(chosen.notes if chosen else ()), *filter(None, remarks))


def _checked(plan: SlicePlan, source: Source, *, cut: bool) -> SlicePlan:
    """The plan, when every file can follow it: what could not stops the plan, not the slice that is made from it."""
    _check_renumbering(source, plan)
    if cut:
        size = len(source.tokenizer.tokens)
        check_renumbering(source.tokenizer, [old for old in plan.kept.tolist() if old < size])
    check_derived(DerivedFileInputs(source, plan))
    return plan


def _structure_remarks(source: Source, structure: Kept | None, choice: Choice, report: Report) -> tuple[str, ...]:
    """What a user should know of layers, heads and neurons that go; "" among them where there is nothing to say."""
    from langslice.planning.layers import language_control, removal_offer

    if structure is None:
        return ()
    checkpoint, anatomy = source.checkpoint, source.anatomy
    return (
        client_note(anatomy, structure, quantisation(checkpoint.config)),
        place_note(anatomy, structure),
        depth_note(anatomy, structure),
        *removal_offer(anatomy, choice),
        *language_control(checkpoint, anatomy, structure, choice, report),
    )


def _choose_tokens(
    source: Source, choice: Choice, protected: Mapping[int, str], sizes: WeightSizes, report: Report,
    costs: np.ndarray | None,
) -> tuple[VocabularyChoice, tuple[str, ...]]:  # fmt: skip
    """The vocabulary that a choice asks for, and what is to be said of reserved tokens and of its size."""
    from langslice.vocabulary.fixed_texts import fixed_note, with_template_pieces
    from langslice.vocabulary.vocabulary import choose_vocabulary, refuse_beside_only_tokens

    tokenizer = source.tokenizer
    size = len(tokenizer.tokens)
    if choice.get("only_tokens"):
        refuse_beside_only_tokens([name for name in ("keep_text", "drop_reserved") if choice.get(name)])
    counts = read_criteria(tokenizer, choice, report)
    report("choosing tokens", 0, 0)
    unused = unused_reserved(source, protected)
    beyond = sum(row >= size for row in protected)
    texts = {} if choice.get("only_tokens") else source.fixed_texts(listed(choice.get("keep_text")))
    chosen = choose_vocabulary(
        tokenizer,
        vocabulary_request(choice, sizes, beyond),
        counts=counts,
        protected=[row for row in protected if row < size],
        texts=with_template_pieces(texts, source.templates),
        released=unused if choice.get("drop_reserved") else (),
        costs=costs,
    )
    notes = [fixed_note(texts), reserved_note(tokenizer, unused, chosen.reasons, sizes.per_row)]
    if choice.get("max_size") is not None:
        written = sizes.fixed + (len(chosen.reasons) + beyond) * sizes.per_row
        notes.append(
            f"--max-size {choice['max_size']}: the weights take at most {bytes_text(written)}, other files aside"
        )
    return chosen, tuple(notes)


def _facts(source: Source, chosen: VocabularyChoice | None, kept: np.ndarray, structure: Kept | None) -> dict[str, Any]:
    """What the choice rests on, as far as a report can use it and it was looked at anyway."""
    from langslice.vocabulary.facts import criteria_facts, script_facts

    facts: dict[str, Any] = {}
    if chosen is not None:
        facts["scripts"] = script_facts(source.tokenizer, kept)
        facts["evidence"] = criteria_facts(chosen.pieces, kept)
    if structure is not None:
        facts["sizes"] = source.anatomy.sizes()
    return facts


def choose_layers(source: Source, choice: Choice, report: Report) -> Kept | None:
    """What is kept of the model's layers; None where the choice does not touch them.

    Raises   PlanError for what does not exist or cannot be expressed, or an entry that would have no effect
    """
    from langslice.planning.layers import CUTS, MANNERS, choose_structure
    from langslice.structure.options import StructureOptions

    config = source.checkpoint.config
    if not asks(choice, CUTS):
        given = [name for name in MANNERS if choice.get(name)]
        if given:
            raise PlanError(
                f"{flag_of(StructureOptions, given[0])} has no effect: no layer, head, neuron, expert or dimension is pruned",
                hint="add --heads-sparsity, --drop-heads, --drop-neurons, --drop-experts, --hidden-size or --drop-layers",
            )
        return None
    if config["model_type"] in LAYERLESS:
        raise PlanError(
            f"{LAYERLESS[config['model_type']]} has no layers to remove", hint="choose tokens alone, such as -l ko,en"
        )
    method = quantisation(config)
    inside = [name for name in CUTS if "layer" not in name and asks(choice, (name,))]
    if method and inside:
        raise PlanError(
            f"{flag_of(StructureOptions, inside[0])}: the weights are quantised ({method}), "
            "and what is inside a layer cannot be sliced",
            hint="slice the model that was quantised and quantise the slice; whole layers (--drop-layers) can go",
        )
    if source.checkpoint.config_section:
        raise PlanError(
            f"only the vocabulary of a model inside a wrapper ({source.checkpoint.config_file}) can be sliced, not its layers",
            hint="prune the layers of the encoder itself",
        )
    return choose_structure(source.checkpoint, source.anatomy, choice, report)


def _check_renumbering(source: Source, plan: SlicePlan) -> None:
    for file in source.files:
        if file.action == "renumber":
            ignore = frozenset(plan.ignore_fields)
            renumbered(
                source.checkpoint, file, plan.id_map(), implied=plan.implied_ids, ignore=ignore, restructure=as_it_is
            )


def _moved(implied: Mapping[str, int | Sequence[int]], kept: np.ndarray) -> dict[str, Any]:
    """The implied fields of which an id changes."""
    found: dict[str, Any] = {}
    for path, value in implied.items():
        old = np.array([one for one in ([value] if isinstance(value, int) else value) if one >= 0], dtype=np.int64)
        if (np.searchsorted(kept, old) != old).any():
            found[path] = value
    return found


def needs_tokenizer(choice: Choice) -> bool:
    """Whether a choice is about tokens: one of layers, heads, neurons or weights alone leaves them as they are."""
    return chooses_tokens(choice) or extends(choice)


def chooses_tokens(choice: Choice) -> bool:
    """Whether a choice says, or has to say, which tokens stay; else all do."""
    from langslice.planning.layers import CUTS

    return asks(choice, _VOCABULARY_ENTRIES) or not (asks(choice, CUTS) or weights_request(choice) or extends(choice))


def check_sizes(tokenizer: SourceTokenizer, rows: int) -> None:
    """Refuse a tokenizer that disagrees with the model."""
    if tokenizer.kind == ABSENT:
        return
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


def tied_copies(source: Source) -> dict[str, str]:
    """Names in a pickle that share their storage with another table and that the unmodified class ties anyway.

    Biases stay under every name: RoBERTa's head in transformers 4 reads `lm_head.decoder.bias` only, and starts from
    zeros where it is not stored.
    """
    from langslice.model.transformers_classes import ties_embeddings

    checkpoint = source.checkpoint
    if not checkpoint.aliases or not ties_embeddings(checkpoint.config):
        return {}
    return {
        name: f"the same storage as {other}, to which the model ties it"
        for name, other in checkpoint.aliases.items()
        if along_vocabulary(source.axes[name]) and len(checkpoint.shapes[name]) > 1
    }
