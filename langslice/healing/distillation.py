"""Losses towards a teacher: its distribution over kept tokens, and its hidden states.

Distribution: KL(teacher || slice) at a temperature T, times T squared (Hinton et al. 2015, arXiv 1503.02531, section 2), in nats a
token, at the positions that have a label. From a cache, the tokens that are not kept there count as one further token:
a lower bound of the whole divergence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langslice.errors import HealError


def labelled(logits: Any, labels: Any, *, shifted: bool) -> Any:
    """(positions, rows) logits where there is a label, in the order of rows and tokens.

    shifted  the logits of a token predict the next one
    """
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    return logits[labels >= 0]


def divergence(student: Any, teacher: Any, temperature: float) -> Any:
    """KL(teacher || student) a position, times the temperature squared.

    student, teacher  (positions, rows) logits
    Example           divergence of [[0, log 3]] from itself is 0; teacher [[0, 0]] gives .5 log(.5/.25) + .5 log(.5/.75)
    """
    import torch

    found = torch.nn.functional.kl_div(
        torch.log_softmax(student.float() / temperature, -1),
        torch.log_softmax(teacher.float() / temperature, -1),
        log_target=True,
        reduction="batchmean",
    )
    return found * temperature**2


def top_divergence(student: Any, ids: Any, log_shares: Any, temperature: float) -> Any:
    """The same from the teacher's best tokens, all others taken together.

    student     (positions, rows) logits
    ids         (positions, k) int64 rows
    log_shares  (positions, k) log probabilities of the teacher at this temperature
    """
    import torch

    own = torch.log_softmax(student.float() / temperature, -1)
    best = own.gather(-1, ids)
    shares = log_shares.float().exp()
    rest = (1 - shares.sum(-1)).clamp(min=0)
    own_rest = (1 - best.exp().sum(-1)).clamp(min=1e-12)
    # A share of 0 adds nothing, whatever its logarithm.
    rest_term = torch.where(rest > 1e-6, rest * (rest.clamp(min=1e-12).log() - own_rest.log()), torch.zeros_like(rest))
    return ((shares * (log_shares.float() - best)).sum(-1) + rest_term).mean() * temperature**2


def hidden_distance(student: Any, teacher: Any, batch: Mapping[str, Any], layers: Mapping[str, tuple[int, ...]]) -> Any:
    """Squared distance of hidden states over the teacher's squared length, mean over real tokens and kept layers.

    student, teacher  outputs of both models with their hidden states
    layers            see langslice.healing.teacher.Mapped
    Raises            HealError where the states do not belong together
    """
    terms = []
    masks = {"layers": batch["attention_mask"], "encoder": batch["attention_mask"], "decoder": batch["labels"] >= 0}
    for stack, name in _states(student):
        own, other = student[name], teacher[name]
        for at, theirs in pairs_of(stack, len(own) - 1, len(other) - 1, layers):
            one = own[at].float()
            two = other[theirs].float().to(one.device)
            if one.shape != two.shape or one.dim() != 3:
                raise HealError(
                    f"--hidden: states of shape {tuple(one.shape)} cannot be compared with the teacher's {tuple(two.shape)}",
                    "leave --hidden out",
                )
            relative = (one - two).square().sum(-1) / two.square().sum(-1).clamp(min=1e-6)
            mask = masks[stack].to(relative.dtype)
            terms.append((relative * mask).sum() / mask.sum().clamp(min=1))
    return sum(terms) / len(terms)


def pairs_of(stack: str, own: int, theirs: int, layers: Mapping[str, tuple[int, ...]]) -> list[tuple[int, int]]:
    """Places of hidden states that belong together: what each kept layer but the first reads, and what the last one gives.

    own, theirs  layers of both stacks
    Example      layers 0, 1, 4 of 5 kept: [(1, 1), (2, 4), (3, 5)]
    Raises       HealError where the numbers do not fit
    """
    kept: Sequence[int] = layers.get(stack, range(theirs))
    if len(kept) != own or (len(kept) and kept[-1] >= theirs):
        raise HealError(
            f"--hidden: the slice gives states of {own} layers, the plan keeps {len(kept)} of the teacher's {theirs}",
            "leave --hidden out: this family's states are not those of its layers",
        )
    return [*((at, kept[at]) for at in range(1, own)), (own, theirs)]


def _states(output: Any) -> list[tuple[str, str]]:
    if output.get("encoder_hidden_states") is not None:
        return [("encoder", "encoder_hidden_states"), ("decoder", "decoder_hidden_states")]
    return [("layers", "hidden_states")]
