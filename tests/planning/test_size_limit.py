"""`--max-size`: the written weights stay at or below it, whatever else is sliced, and use what there is."""

import pytest

import langslice
from langslice.errors import PlanError
from langslice.model.anatomy import read_anatomy
from langslice.model.checkpoint import open_checkpoint
from langslice.planning.size_limit import parse_size, weight_sizes
from langslice.planning.source import Source
from langslice.planning.tensors import plan_tensors


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("150MB", 150_000_000),
        ("1.5GiB", 1_610_612_736),
        ("4096", 4096),
        (4096, 4096),
        ("2 kB", 2000),
        ("3k", 3000),
        ("7mb", 7_000_000),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "-3MB", "0", "5XB", "", "1.5.2MB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(PlanError, match="is no size"):
        parse_size(text)


def weights(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize("model_type", ["llama", "t5", "gemma3n_text", "mt5", "whisper"])
@pytest.mark.parametrize("more", [{}, {"drop_layers": 1}, {"neurons_sparsity": 0.5, "output_style": "sliced"}])
def test_what_the_weights_will_take_is_never_too_little_and_hardly_too_much(model_type, more, zoo, tmp_path):
    if "drop_layers" in more and model_type != "llama":
        more = {"drop_layers": ["encoder.1", "decoder.1"]}
    if model_type == "gemma3n_text":
        more = {}  # its layers are not in the table
    result = langslice.slice(zoo(model_type), tmp_path / "out", scripts="Latn", verify=False, **more)
    checkpoint = open_checkpoint(zoo(model_type))
    anatomy = read_anatomy(checkpoint) if more else None
    tensors = plan_tensors(Source(checkpoint))
    sizes = weight_sizes(checkpoint, tensors, anatomy, result.plan.structure)
    written, bound = weights(tmp_path / "out"), sizes.fixed + len(result.plan.new_to_old) * sizes.per_row
    dropped = 200 * sum(tensor.action == "drop" for tensor in result.plan.tensors.values())
    assert written <= bound <= written + 4096 + 64 + 20 * len(tensors) + dropped


PADDED = [(f"6.{hundredths}MB", {"pad_to_multiple_of": 64}) for hundredths in (49, 50, 51)]


@pytest.mark.parametrize(("size", "more"), [("6.5MB", {}), *PADDED, ("3MB", {"first_layers": 2})])
def test_the_weights_stay_below_and_use_what_there_is(size, more, tmp_path):
    result = langslice.slice("mini", tmp_path / "out", languages="ko,en", max_size=size, verify=False, **more)
    unused = 10_000 + 384 * more.get("pad_to_multiple_of", 1)
    assert parse_size(size) - unused < weights(tmp_path / "out") <= parse_size(size)
    assert any(note.startswith(f"--max-size {size}: the weights take at most") for note in result.plan.notes)
    assert result.plan.request["max_size"] == size


def test_a_size_that_nothing_fits(zoo):
    with pytest.raises(PlanError, match=r"`max_size=.10kB.` leaves no room for a vocabulary"):
        langslice.plan(zoo("llama"), scripts="Latn", max_size="10kB")


def test_a_size_in_which_what_always_stays_does_not_fit(zoo):
    with pytest.raises(PlanError, match=r"cannot be sliced to \d+ tokens: \d+ always stay \(`max_size=.85kB.`\)"):
        langslice.plan(zoo("llama"), scripts="Latn", max_size="85kB")
