"""Log probabilities of many short continuations, at the cost of few: what candidates have in common is read once.

For each question the candidates' token sequences agree up to some token. Questions with the same common part (KorNLI asks
three of each premise) form one family. Families whose common parts are about as long are read in one pass, each cut to the
shortest, so that the cache has no holes and every position is what it would be alone: this holds for rotary, learned and
ALiBi positions and for sliding windows alike. The cache is then repeated, and what follows is read in passes of rows about
as long. The output head sees only the positions that are scored.

Encoder-decoders read each prompt once and score the candidates in the decoder.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langslice.evaluate.loading import Loaded

Tokens = Sequence[int]
# Tokens that a family may read once for each row instead of once, as a share of all that it reads: more while a batch is
# small, because a pass over few tokens costs about as much as one over many.
_SLACK = 0.1
_SLACK_OF_SMALL = 0.5
_SMALL = 512


@dataclass(frozen=True)
class _Family:
    """Candidates with a common beginning.

    shared  tokens in common; at least one token of every row is beyond them
    rows    (place in the caller's list, tokens)
    """

    shared: int
    rows: tuple[tuple[int, Tokens], ...]

    @property
    def positions(self) -> int:
        """Tokens to read when the common ones are read once."""
        return self.shared + sum(len(tokens) - self.shared for _, tokens in self.rows)


def score_sequences(
    loaded: Loaded, groups: Sequence[Sequence[Tokens]], *, share: bool = True
) -> list[list[np.ndarray]]:
    """Log probability of every token after the first, for every candidate of every group, by a causal model.

    groups   groups of token sequences; those of one group are likely to begin alike
    share    read common beginnings once; without it every sequence is read whole
    Returns  for each sequence (its length - 1,) float32
    """
    flat = [tokens for sequences in groups for tokens in sequences]
    scores = [np.zeros(max(len(tokens) - 1, 0), dtype=np.float32) for tokens in flat]
    families = _families(groups) if share else [_Family(0, ((i, tokens),)) for i, tokens in enumerate(flat)]
    for batch in _batches(families, 4 * _rows_of_logits(loaded)):
        _score_batch(loaded, batch, scores)
    found = iter(scores)
    return [[next(found) for _ in sequences] for sequences in groups]


def _families(groups: Sequence[Sequence[Tokens]]) -> list[_Family]:
    """Gather groups that share the same beginning whole; a group whose candidates share none stays by itself."""
    gathered: dict[Any, list[tuple[int, Tokens]]] = {}
    place = 0
    for number, sequences in enumerate(groups):
        shared = _common(sequences)
        rows = gathered.setdefault(tuple(sequences[0][:shared]) if shared else number, [])
        for tokens in sequences:
            rows.append((place, tokens))
            place += 1
    return [_Family(len(key) if isinstance(key, tuple) else 0, tuple(rows)) for key, rows in gathered.items()]


def _common(sequences: Sequence[Tokens]) -> int:
    """Tokens that all sequences begin with, at least one of each left over."""
    ordered = sorted(list(tokens) for tokens in sequences)
    first, last = ordered[0], ordered[-1]
    limit = max(min(len(tokens) for tokens in sequences) - 1, 0)
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def _batches(families: Sequence[_Family], budget: int) -> Iterator[list[_Family]]:
    """Families whose common parts are about as long, of at most `budget` positions in all (or one family)."""
    batch: list[_Family] = []
    positions = 0
    for family in sorted(families, key=lambda family: family.shared):
        slack = (family.shared - batch[0].shared) * len(family.rows) if batch else 0
        allowed = (_SLACK_OF_SMALL if positions < _SMALL else _SLACK) * family.positions
        if batch and (positions + family.positions > budget or slack > allowed):
            yield batch
            batch, positions = [], 0
        batch.append(family)
        positions += family.positions
    if batch:
        yield batch


def _score_batch(loaded: Loaded, batch: Sequence[_Family], scores: list[np.ndarray]) -> None:
    """Read the common parts, then what follows; fill `scores` at the rows' places."""
    import torch

    cut = batch[0].shared  # the shortest: batches ascend
    rows = [(owner, place, tokens) for owner, family in enumerate(batch) for place, tokens in family.rows]
    rows = [row for row in rows if len(row[2]) > 1]
    rows.sort(key=lambda row: len(row[2]))
    with torch.inference_mode():
        cache = common = last = None
        if cut > 0:
            prefixes = [list(family.rows[0][1][:cut]) for family in batch]
            cache, common, last = _read_common(loaded, prefixes)
            if cache is None:
                loaded.note("the model has no cache that can be shared: every candidate was read whole")
                cut = 0
        for part in _parts(rows, cut, _rows_of_logits(loaded)):
            owners = torch.tensor([owner for owner, _, _ in part], device=loaded.model.device)
            own = copy.deepcopy(cache)
            if own is not None:
                own.batch_select_indices(owners)
            rest = [list(tokens[cut:]) for _, _, tokens in part]
            found = _read_rest(loaded, rest, own, cut)
            for number, (owner, place, _) in enumerate(part):
                if last is None or common is None:
                    scores[place] = found[number]
                else:
                    scores[place] = np.concatenate([common[owner], last[owner, rest[number][:1]], found[number]])


def _parts(rows: Sequence[tuple[int, int, Tokens]], cut: int, budget: int) -> Iterator[list[tuple[int, int, Tokens]]]:
    """Rows in passes of at most `budget` positions, padding included (or one row)."""
    part: list[tuple[int, int, Tokens]] = []
    for row in rows:
        if part and (len(part) + 1) * (len(row[2]) - cut) > budget:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _read_common(loaded: Loaded, prefixes: list[list[int]]) -> tuple[Any, Any, Any]:
    """Cache, (families, cut - 1) log probabilities, and (families, vocabulary) ones of what comes next."""
    import torch

    ids = torch.tensor(prefixes, device=loaded.model.device)
    output = loaded.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    cache = getattr(output, "past_key_values", None)
    if isinstance(cache, tuple):
        # transformers before 5: some classes still return plain tuples.
        from transformers import DynamicCache

        cache = DynamicCache.from_legacy_cache(cache)
    if not hasattr(cache, "batch_select_indices"):
        return None, None, None
    logits = output.logits
    common = _picked(logits[:, :-1], ids[:, 1:]).cpu().numpy()
    return cache, common, torch.log_softmax(logits[:, -1].float(), dim=-1).cpu().numpy()


def _read_rest(loaded: Loaded, rest: list[list[int]], cache: Any, cut: int) -> list[np.ndarray]:
    """Log probabilities of the rows' tokens after their first; each array (its length - 1,) float32."""
    import torch

    ids, mask = _padded(rest, loaded.model.device)
    whole = torch.cat([mask.new_ones((len(rest), cut)), mask], dim=1)
    scored = mask[:, 1:].bool()  # a position's logits are for the next token
    logits = _logits_at(
        loaded, scored, input_ids=ids, attention_mask=whole, past_key_values=cache, use_cache=cache is not None
    )
    values = _picked(logits, ids[:, 1:][scored]).cpu().numpy()
    return np.split(values, np.cumsum([len(row) - 1 for row in rest])[:-1])


def _logits_at(loaded: Loaded, where: Any, **inputs: Any) -> Any:
    """Logits of a pass at some positions only: the output head, often half of the work, does not see the others.

    where    (rows, width or less) bool
    Returns  (positions, vocabulary), row by row
    """
    head = loaded.model.get_output_embeddings()
    width = where.shape[1]

    def select(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0][:, :width][where][None], *arguments[1:])

    hook = head.register_forward_pre_hook(select) if head is not None else None
    try:
        logits = loaded.model(**inputs).logits
    finally:
        if hook is not None:
            hook.remove()
    # A class that does not call its head as a module gives the logits of every position.
    return logits[0] if logits.shape[0] == 1 and logits.shape[1] == int(where.sum()) else logits[:, :width][where]


def _picked(logits: Any, targets: Any) -> Any:
    """(..., vocabulary) logits, (...) ids -> (...) log probabilities in float32."""
    from torch.nn.functional import cross_entropy

    # One pass over each row while it is in the cache: half the time of gathering and a logsumexp.
    flat = cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none")
    return -flat.reshape(targets.shape)


def _padded(sequences: Sequence[list[int]], device: Any) -> tuple[Any, Any]:
    """Ids filled up on the right, where a causal model's earlier positions cannot see, and their mask."""
    import torch

    width = max(len(tokens) for tokens in sequences)
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in sequences], device=device)
    lengths = torch.tensor([len(tokens) for tokens in sequences], device=device)
    return ids, (torch.arange(width, device=device)[None] < lengths[:, None]).long()


def _rows_of_logits(loaded: Loaded) -> int:
    return max(1, loaded.logits_limit // max(loaded.vocabulary, 1))


def score_with_encoder(
    loaded: Loaded, prompts: Sequence[Tokens], candidates: Sequence[Sequence[Tokens]]
) -> list[list[np.ndarray]]:
    """Log probability of every candidate token by an encoder-decoder that has read the prompt.

    prompts     (questions) token ids for the encoder
    candidates  for each question its candidates, as the decoder writes them
    Returns     for each candidate (its length,) float32
    """
    found: list[list[np.ndarray]] = [[] for _ in prompts]
    budget = _rows_of_logits(loaded)
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
        logits = _logits_at(
            loaded, target_mask.bool(), encoder_outputs=BaseModelOutput(last_hidden_state=states[owner]),
            attention_mask=mask[owner], decoder_input_ids=inputs, decoder_attention_mask=target_mask, use_cache=False,
        )  # fmt: skip
        values = _picked(logits, targets[target_mask.bool()]).cpu().numpy()
    parts = iter(np.split(values, np.cumsum([len(tokens) for tokens in flat])[:-1]))
    for each in batch:
        found[each].extend(next(parts) for _ in candidates[each])
