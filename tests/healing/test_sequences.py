"""Text as sequences, and what is asked on them."""

from __future__ import annotations

import numpy as np
import pytest

from langslice.healing.objectives import IGNORED, Examples, Objective
from langslice.healing.sequences import Frame, Order, TokenSequences, _one_by_one, _packed, _split

ENDS = Frame((0,), (), 0)


def ids(*numbers):
    return np.array(numbers, dtype=np.int32)


def listed(sequences):
    return [sequences[row].tolist() for row in range(len(sequences))]


def test_packing_by_hand():
    """One token begins and ends texts: 0 5 6 0 7 8 9 0 in sequences of 5."""
    assert listed(_packed([ids(5, 6), ids(7, 8, 9)], ENDS, 5, causal=True)) == [[0, 5, 6, 0, 7], [8, 9, 0]]
    # A token for the beginning and another for the end.
    assert listed(_packed([ids(5, 6), ids(7)], Frame((1,), (), 2), 9, causal=True)) == [[1, 5, 6, 2, 1, 7, 2]]
    # What is around a text is added to each row of a masked model later.
    assert listed(_packed([ids(5, 6), ids(7)], Frame((1,), (2,), 2), 9, causal=False)) == [[5, 6, 2, 7, 2]]
    # A last row of one token has nothing to predict.
    assert listed(_packed([ids(5, 6, 7, 8)], ENDS, 5, causal=True)) == [[0, 5, 6, 7, 8]]
    assert listed(_packed([], ENDS, 5, causal=True)) == []


def test_one_document_a_row():
    assert listed(_one_by_one([ids(5, 6), ids(7, 8, 9)], ENDS, 4, causal=True)) == [[0, 5, 6, 0], [0, 7, 8, 9]]
    assert listed(_one_by_one([ids(5, 6, 7, 8, 9)], Frame((1,), (2,), 2), 3, causal=False)) == [[5, 6, 7], [8, 9]]


def test_a_document_is_on_one_side_only():
    documents = [ids(number % 7, 1) for number in range(100)]
    kept, apart = _split(documents, 0.05, 3)
    assert len(apart) == 5
    assert not {one.tobytes() for one in kept} & {one.tobytes() for one in apart}
    assert _split(documents, 0.05, 3)[1][0].tolist() == apart[0].tolist()
    assert _split(documents, 0.0, 3) == (documents, [])
    assert _split([ids(1)], 0.5, 3) == ([ids(1)], [])


def test_every_pass_visits_every_row_in_a_new_order():
    order = Order(10, 0)
    passes = [[order[10 * number + at] for at in range(10)] for number in range(3)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    again = Order(10, 0)
    assert again[25] == passes[2][5]
    assert [Order(10, 1)[at] for at in range(10)] != passes[0]


def test_masking_shares():
    sequences = TokenSequences(np.arange(10, 1010, dtype=np.int32), np.array([0, 1000]))
    plain = np.arange(10, 5000, dtype=np.int32)
    objective = Objective("masked", Frame((1,), (2,), 2), 0, mask=3, plain=plain, special=frozenset({0, 1, 2, 3}))
    example = objective.example(sequences[0], np.random.default_rng(0))
    given, labels = np.array(example["input_ids"]), np.array(example["labels"])
    chosen = labels != IGNORED
    assert chosen.sum() == 150
    assert (labels[chosen] == sequences[0][chosen[1:-1]]).all()
    assert not chosen[0]
    assert not chosen[-1]
    assert (given[~chosen][1:-1] == sequences[0][~chosen[1:-1]]).all()
    shares = [(given[chosen] == 3).mean(), (given[chosen] == labels[chosen]).mean()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.06)


@pytest.mark.parametrize("seed", range(8))
def test_spans_and_targets_hold_the_whole_text(seed):
    """Put back what the target says of each sentinel: the text is there again."""
    row = np.arange(100, 190, dtype=np.int32)
    sentinels = tuple(range(50, 60))
    example = Objective("denoising", Frame((), (1,), 1), 0, sentinels=sentinels).example(
        row, np.random.default_rng(seed)
    )
    source, target = example["input_ids"], example["labels"]
    assert (source[-1], target[-1]) == (1, 1)
    hidden, current = {}, None
    for token in target[:-1]:
        if token in sentinels:
            current = token
            hidden[token] = []
        else:
            hidden[current].append(token)
    restored = [one for token in source[:-1] for one in (hidden[token] if token in sentinels else [token])]
    assert restored == row.tolist()
    used = [token for token in source if token in sentinels]
    assert used == list(sentinels[: len(used)])
    assert hidden.popitem() == (sentinels[len(used)], [])
    assert sum(map(len, hidden.values())) == round(0.15 * 90)


def test_more_spans_than_sentinels():
    row = np.arange(100, 400, dtype=np.int32)
    example = Objective("denoising", Frame((), (1,), 1), 0, sentinels=(50, 51, 52)).example(
        row, np.random.default_rng(0)
    )
    assert [token for token in example["input_ids"] if token in (50, 51, 52)] == [50, 51]
    assert len(example["input_ids"]) - 3 + sum(token >= 100 for token in example["labels"]) == 300


@pytest.mark.parametrize("size", [1, 2, 5, 90])
def test_infilling_writes_the_whole_text(size):
    row = np.arange(100, 100 + size, dtype=np.int32)
    objective = Objective("denoising", Frame((1,), (2,), 2), 0, mask=3)
    examples = [objective.example(row, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one["labels"] == [1, *row.tolist(), 2] for one in examples)
    for one in examples:
        kept = [token for token in one["input_ids"] if token >= 100]
        assert kept == sorted(kept)
        assert 3 in one["input_ids"]
        assert size - len(kept) <= max(round(0.3 * size), 1)
    if size == 90:
        gone = np.mean([1 - sum(token >= 100 for token in one["input_ids"]) / size for one in examples])
        assert gone == pytest.approx(0.28, abs=0.05)


def test_damage_depends_on_seed_and_place_alone():
    sequences = TokenSequences(np.arange(10, 110, dtype=np.int32), np.array([0, 50, 100]))
    objective = Objective("masked", Frame((1,), (2,), 2), 0, mask=3, special=frozenset({1, 2, 3}))

    def made(place, **options):
        return Examples(sequences, objective, **{"length": 8, "seed": 0, "order": True, "static": False, **options})[
            place
        ]

    assert made(5) == made(5)
    assert made(5) != made(5, seed=1)
    same = [place for place in range(8) if made(place)["sequence"] == 0]
    assert made(same[0]) != made(same[1])
    assert made(same[0], static=True) == made(same[1], static=True)


def test_batches_are_filled_up():
    sequences = TokenSequences(np.array([5, 6, 7, 8, 9], dtype=np.int32), np.array([0, 2, 5]))
    examples = Examples(sequences, Objective("causal", ENDS, 1), length=2, seed=0, order=False, static=False)
    batch = {name: value.tolist() for name, value in examples.collate([examples[0], examples[1]]).items()}
    assert batch == {
        "input_ids": [[5, 6, 1], [7, 8, 9]], "labels": [[5, 6, -100], [7, 8, 9]],
        "attention_mask": [[1, 1, 0], [1, 1, 1]], "sequences": [0, 1],
    }  # fmt: skip
