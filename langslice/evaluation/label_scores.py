"""Log probabilities of many short continuations, at the cost of few: what candidates have in common is read once.

For each question the candidates' token sequences agree up to some token. Questions with the same common part (KorNLI asks
three of each premise) form one family. Where the model can read a tree of sequences, families are read so (`prefix_tree.py`).
Elsewhere, those whose common parts are about as long are read in one pass, each truncated to the shortest, so that the cache has
no holes and every position is what it would be alone: this holds for rotary, learned and ALiBi positions and for sliding
windows alike. The cache is then repeated, and what follows is read in passes of rows about as long (`pass_order.py`). The
output head sees only the positions that are scored (`output_head.py`).

Encoder-decoders read each prompt once and score the candidates in the decoder.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from langslice.evaluation.loaded_model import Loaded
from langslice.evaluation.output_head import device_kind, log_probabilities, pass_positions, try_head
from langslice.evaluation.pass_order import (
    CandidateGroup,
    Tokens,
    batch_families,
    batch_rows,
    common_beginning,
    gather_families,
)
from langslice.evaluation.prefix_tree import MOST_NODES, can_pack, score_trees
from langslice.model.transformers_classes import cache_of, cache_option

# Positions of a batch over those of a pass: its common parts are read in one pass, its rows in several.
_PASSES = 4


def score_sequences(
    loaded: Loaded, groups: Sequence[Sequence[Tokens]], *, share: bool = True
) -> list[list[np.ndarray]]:
    """Log probability of every token after the first, for every candidate of every group, by a causal model.

    groups   groups of token sequences; those of one group are likely to begin alike
    share    read common beginnings once; without it every sequence is read whole
    Returns  for each sequence (its length - 1,) float32
    """
    import torch

    flat = [tokens for sequences in groups for tokens in sequences]
    scores = [np.zeros(max(len(tokens) - 1, 0), dtype=np.float32) for tokens in flat]
    families = (
        gather_families(groups) if share else [CandidateGroup(0, ((i, tokens),)) for i, tokens in enumerate(flat)]
    )
    families = [each for each in families if any(len(tokens) > 1 for _, tokens in each.rows)]
    if families:
        try_head(loaded, input_ids=_ids(loaded, [families[0].rows[0][1][:8]]), use_cache=False)
    with torch.inference_mode():
        if share and can_pack(loaded, max(map(len, flat), default=0)):
            score_trees(loaded, [each for each in families if each.positions <= MOST_NODES], scores)
            families = [each for each in families if each.positions > MOST_NODES]
        for batch in batch_families(families, device_kind(loaded), _PASSES * pass_positions(loaded)):
            _score_batch(loaded, batch, scores)
    found = iter(scores)
    return [[next(found) for _ in sequences] for sequences in groups]


def score_ends(loaded: Loaded, sequences: Sequence[Tokens], starts: Sequence[int]) -> list[np.ndarray]:
    """Log probability of the end of every sequence; what all begin with is read once, and the head sees the ends alone.

    sequences  of tokens
    starts     index, at least 1, of the first token of each end
    Returns    for each sequence (its length - start,) float32
    """
    import torch

    try_head(loaded, input_ids=_ids(loaded, [sequences[0][:8]]), use_cache=False)
    # Every end is read after at least one token of its own, so that no position of the common part is scored.
    cut = min(common_beginning(sequences), *[start - 1 for start in starts])
    found = [np.zeros(0, dtype=np.float32) for _ in sequences]
    with torch.inference_mode():
        cache = None
        if cut > 0:
            cache = cache_of(
                loaded.model(input_ids=_ids(loaded, [sequences[0][:cut]]), use_cache=True, **_one_logit(loaded))
            )
            if not hasattr(cache, "batch_select_indices"):
                loaded.note("the model has no cache that can be shared: every candidate was read whole")
                cache, cut = None, 0
        parts = batch_rows([len(tokens) - cut - 1 for tokens in sequences], device_kind(loaded), pass_positions(loaded))
        for part in parts:
            own = copy.deepcopy(cache)
            if own is not None:
                own.batch_select_indices(torch.zeros(len(part), dtype=torch.long, device=loaded.model.device))
            rest = [sequences[row][cut:] for row in part]
            values = _read_rest(loaded, rest, own, [starts[row] - cut for row in part])
            for row, each in zip(part, values, strict=True):
                found[row] = each
    return found


def _score_batch(loaded: Loaded, batch: Sequence[CandidateGroup], scores: list[np.ndarray]) -> None:
    """Read the common parts, then what follows; fill `scores` at the rows' places."""
    import torch

    cut = batch[0].shared  # the shortest: batches ascend
    cache = _read_common(loaded, batch, cut, scores) if cut > 0 else None
    if cut > 0 and cache is None:
        loaded.note("the model has no cache that can be shared: every candidate was read whole")
        cut = 0
    rows = [(owner, place, tokens) for owner, family in enumerate(batch) for place, tokens in family.rows]
    # The last token is not read, because nothing comes after it.
    rows = [row for row in rows if len(row[2]) - cut > 1]
    parts = list(
        batch_rows([len(tokens) - cut - 1 for _, _, tokens in rows], device_kind(loaded), pass_positions(loaded))
    )
    for number, part in enumerate(parts):
        own = cache if number + 1 == len(parts) else copy.deepcopy(cache)
        if own is not None:
            own.batch_select_indices(torch.tensor([rows[row][0] for row in part], device=loaded.model.device))
        found = _read_rest(loaded, [rows[row][2][cut:] for row in part], own)
        for row, values in zip(part, found, strict=True):
            _, place, _ = rows[row]
            scores[place][cut:] = values


def _read_common(loaded: Loaded, batch: Sequence[CandidateGroup], cut: int, scores: list[np.ndarray]) -> Any:
    """Read the first `cut` tokens of every family, and score them and the ones that come next.

    Returns  the cache, or None, with nothing scored, where the model has none that can be shared
    """
    import torch

    # A family's last common position is asked for every token that comes next.
    following = [sorted({tokens[cut] for _, tokens in family.rows}) for family in batch]
    of = [
        number * cut + at
        for number, tokens in enumerate(following)
        for at in (*range(cut - 1), *[cut - 1] * len(tokens))
    ]
    targets = [
        token for family, after in zip(batch, following, strict=True) for token in (*family.rows[0][1][1:cut], *after)
    ]
    ids = _ids(loaded, [family.rows[0][1][:cut] for family in batch])
    output, found = log_probabilities(
        loaded, torch.ones_like(ids, dtype=torch.bool), torch.tensor(of, device=ids.device),
        torch.tensor(targets, device=ids.device), input_ids=ids, use_cache=True,
    )  # fmt: skip
    cache = cache_of(output)
    if not hasattr(cache, "batch_select_indices"):
        return None
    values = found.cpu().numpy()
    first = 0
    for family, after in zip(batch, following, strict=True):
        last = first + cut - 1
        for place, tokens in family.rows:
            scores[place][: cut - 1] = values[first:last]
            scores[place][cut - 1] = values[last + after.index(tokens[cut])]
        first = last + len(after)
    return cache


def _read_rest(
    loaded: Loaded, rest: Sequence[Tokens], cache: Any, starts: Sequence[int] | None = None
) -> list[np.ndarray]:
    """Log probabilities of the rows' tokens from `starts` on, or after their first; each array (its length - start,) float32."""
    import torch

    starts = starts or [1] * len(rest)

    # Filled up on the right, where a causal model's earlier positions cannot see: without a mask, attention is faster.
    ids, mask = _padded([tokens[:-1] for tokens in rest], loaded.model.device)
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    asked = mask.bool() & (places >= torch.tensor(starts, device=ids.device)[:, None] - 1)
    pairs = list(zip(rest, starts, strict=True))
    targets = torch.tensor([token for tokens, start in pairs for token in tokens[start:]], device=ids.device)
    _, found = log_probabilities(
        loaded, asked, torch.arange(len(targets), device=ids.device), targets,
        input_ids=ids, use_cache=cache is not None, **cache_option(loaded.model, cache),
    )  # fmt: skip
    return np.split(found.cpu().numpy(), np.cumsum([len(tokens) - start for tokens, start in pairs])[:-1])


def _one_logit(loaded: Loaded) -> dict[str, int]:
    """Ask the model for the logits of the last position alone, where its class can."""
    known = "logits_to_keep" in inspect.signature(loaded.model.forward).parameters
    return {"logits_to_keep": 1} if known else {}


def _ids(loaded: Loaded, sequences: Sequence[Tokens]) -> Any:
    """Token ids of sequences that are equally long."""
    import torch

    return torch.tensor([list(tokens) for tokens in sequences], device=loaded.model.device)


def _padded(sequences: Sequence[Tokens], device: Any) -> tuple[Any, Any]:
    """Ids filled up on the right, where a causal model's earlier positions cannot see, and their mask."""
    import torch

    width = max(len(tokens) for tokens in sequences)
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in sequences], device=device)
    lengths = torch.tensor([len(tokens) for tokens in sequences], device=device)
    return ids, (torch.arange(width, device=device)[None] < lengths[:, None]).long()


def score_with_encoder(
    loaded: Loaded, prompts: Sequence[Tokens], candidates: Sequence[Sequence[Tokens]]
) -> list[list[np.ndarray]]:
    """Log probability of every candidate token by an encoder-decoder that has read the prompt.

    prompts     (questions) token ids for the encoder
    candidates  for each question its candidates, as the decoder writes them
    Returns     for each candidate (its length,) float32
    """
    found: list[list[np.ndarray]] = [[] for _ in prompts]
    if not prompts:
        return found
    start = loaded.model.config.decoder_start_token_id
    try_head(loaded, input_ids=_ids(loaded, [prompts[0][:8]]), decoder_input_ids=_ids(loaded, [[start]]))
    budget = pass_positions(loaded)
    batch: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        grown = [*batch, number]
        width = max(len(tokens) for each in grown for tokens in candidates[each])
        rows = sum(len(candidates[each]) for each in grown)
        if batch and max(rows * width, len(grown) * len(prompts[number])) > budget:
            _score_decoder(loaded, batch, prompts, candidates, found)
            grown = [number]
        batch = grown
    if batch:
        _score_decoder(loaded, batch, prompts, candidates, found)
    return found


def _score_decoder(
    loaded: Loaded,
    batch: Sequence[int],
    prompts: Sequence[Tokens],
    candidates: Sequence[Sequence[Tokens]],
    found: list[list[np.ndarray]],
) -> None:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    model, device = loaded.model, loaded.model.device
    start = model.config.decoder_start_token_id
    with torch.inference_mode():
        ids, mask = _padded([list(prompts[number]) for number in batch], device)
        states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        owner = torch.tensor([n for n, each in enumerate(batch) for _ in candidates[each]], device=device)
        flat = [list(tokens) for each in batch for tokens in candidates[each]]
        targets, target_mask = _padded(flat, device)
        inputs = torch.cat([torch.full_like(targets[:, :1], start), targets[:, :-1]], dim=1)
        wanted = targets[target_mask.bool()]
        _, values = log_probabilities(
            loaded, target_mask.bool(), torch.arange(len(wanted), device=device), wanted,
            encoder_outputs=BaseModelOutput(last_hidden_state=states[owner]),
            attention_mask=mask[owner], decoder_input_ids=inputs, decoder_attention_mask=target_mask, use_cache=False,
        )  # fmt: skip
    parts = iter(np.split(values.cpu().numpy(), np.cumsum([len(tokens) for tokens in flat])[:-1]))
    for each in batch:
        found[each].extend(next(parts) for _ in candidates[each])
