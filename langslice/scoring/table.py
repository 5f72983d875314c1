"""The table of scores: one row for each layer, head, neuron or expert and each language, kept in memory and in a parquet file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from langslice.errors import ScoreError
from langslice.files.atomic_output import staging_file
from langslice.files.json_forms import check_form
from langslice.model.checkpoint import Checkpoint

FORMAT = "langslice-scores-1"
KINDS = ("layers", "heads", "neurons", "experts")
OVERALL = ""
"""Language of the rows that speak for all text together."""

Values = dict[str, dict[int, npt.NDArray[np.float64]]]
"""Place -> layer -> one value for each index; layers have one index."""


# Arrays have no truth value, so that a generated comparison would fail.
@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one kind by one method; a higher score is a more important part.

    kind         "layers", "heads", "neurons" or "experts"
    place        (rows,) as in Anatomy: "layers", "encoder", "decoder"; for heads "layers.self", "decoder.cross", ...
    layer        (rows,) int32, in the numbering of the source
    index        (rows,) int32, number of the head, neuron or expert in its layer; -1 for layers
    language     (rows,) a code; "" for all text together, and for scores that read no text
    score        (rows,) float64
    spread       (rows,) float64, standard deviation over seeds; NaN where one seed was measured, 0 where no text is read
    model        what the user called the model; fingerprint is what ties the scores to it
    texts        names of the texts, "ko=ko.txt" where a language was given
    seeds        each drew its own sample of the text
    loss         what gradients and measured losses are of: "causal", "masked", "seq2seq", "embedding", or "" for neither
    settings     numbers that the method was given
    notes        sentences a user should see
    """

    kind: str
    method: str
    place: npt.NDArray[np.str_]
    layer: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]
    language: npt.NDArray[np.str_]
    score: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    model: str
    fingerprint: str
    texts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    loss: str = ""
    settings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes that have rows of their own, sorted."""
        return tuple(sorted(set(self.language.tolist()) - {OVERALL}))

    def values(self, language: str = OVERALL) -> Values:
        """Scores of one language by place and layer, ordered by index.

        Returns  place -> layer -> (heads,) or (neurons,) float64; (1,) for layers
        Raises   ScoreError where there are no rows of this language
        """
        return self._arranged(self.score, language)

    def spreads(self, language: str = OVERALL) -> Values:
        """Spreads, arranged as `values` arranges scores.

        Returns  place -> layer -> (n,) float64; nan where one seed was measured
        """
        return self._arranged(self.spread, language)

    def _arranged(self, column: npt.NDArray[np.float64], language: str) -> Values:
        rows = np.flatnonzero(self.language == language)
        if not rows.size:
            have = ", ".join(self.languages) or "none"
            wanted = f"for `{language}`" if language else "for all languages together"
            raise ScoreError(
                f"{self.method} scores of {self.kind} have no rows {wanted}; languages in them: {have}",
                hint="language-specific choices use the rows by language"
                if not language
                else "score again with text of it",
            )
        rows = rows[np.lexsort((self.index[rows], self.layer[rows], self.place[rows]))]
        found: Values = {}
        keys = list(zip(self.place[rows].tolist(), self.layer[rows].tolist(), strict=True))
        starts = [at for at, key in enumerate(keys) if at == 0 or key != keys[at - 1]]
        for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
            place, layer = keys[start]
            found.setdefault(place, {})[layer] = column[rows[start:end]]
        return found

    def save(self, path: str | Path) -> None:
        """Write as parquet: the columns kind to spread; the rest as file metadata under "langslice"."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        facts = {
            "format": FORMAT, "kind": self.kind, "method": self.method, "model": self.model,
            "fingerprint": self.fingerprint, "texts": self.texts, "seeds": self.seeds, "loss": self.loss,
            "settings": dict(self.settings), "notes": self.notes,
        }  # fmt: skip
        columns = {
            "kind": pa.array([self.kind] * len(self.score), pa.string()).dictionary_encode(),
            "place": pa.array(self.place.tolist(), pa.string()).dictionary_encode(),
            "layer": pa.array(self.layer),
            "index": pa.array(self.index),
            "language": pa.array(self.language.tolist(), pa.string()).dictionary_encode(),
            "score": pa.array(self.score),
            "spread": pa.array(self.spread),
        }
        table = pa.table(columns).replace_schema_metadata({"langslice": json.dumps(facts)})
        with staging_file(Path(path)) as partial:
            pq.write_table(table, partial, compression="zstd")


def load_scores(path: Path, checkpoint: Checkpoint) -> Scores:
    """Read scores and check that they are of this model.

    Raises   ScoreError when the file is missing or damaged, or the scores are those of another model
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[b"langslice"])
        found = facts["format"]
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in _COLUMNS}
    except FileNotFoundError as error:
        raise ScoreError(f"{path}: no such file", hint="write scores with `langslice score`") from error
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ScoreError(f"{path}: not a file of scores ({error})", hint="write it with `langslice score`") from error
    if found != FORMAT:
        raise ScoreError(f"{path}: format {found!r}, expected {FORMAT!r}", hint="score again with this version")
    check_form(facts, _FORM, f"{path}, its facts", ScoreError, "write it again with `langslice score`")
    for name, kinds in _COLUMNS.items():
        values = columns[name]
        if values.dtype.kind not in kinds or (values.dtype == object and not all(type(item) is str for item in values)):
            raise ScoreError(f"{path}: column {name!r} is of another type", "write it again with `langslice score`")
    expected = model_fingerprint(checkpoint)
    if facts["fingerprint"] != expected:
        raise ScoreError(
            f"{path}: scores from another model\n"
            f"  scored:   {facts['model']}, fingerprint {facts['fingerprint'][:16]}\n"
            f"  expected: {checkpoint.model_id}, fingerprint {expected[:16]}",
            hint="score this model with `langslice score`",
        )
    return Scores(
        facts["kind"], facts["method"], columns["place"].astype(str), columns["layer"].astype(np.int32),
        columns["index"].astype(np.int32), columns["language"].astype(str), columns["score"].astype(np.float64),
        columns["spread"].astype(np.float64), facts["model"], facts["fingerprint"], tuple(facts["texts"]),
        tuple(facts["seeds"]), facts["loss"], facts["settings"], tuple(facts["notes"]),
    )  # fmt: skip


# Column -> kinds of numpy's types.
_COLUMNS = {"place": "OU", "layer": "i", "index": "i", "language": "OU", "score": "f", "spread": "f"}
_FORM = {
    "kind": str, "method": str, "model": str, "fingerprint": str, "texts": [str], "seeds": [int], "loss": (None, str),
    "settings": dict, "notes": [str],
}  # fmt: skip


def model_fingerprint(checkpoint: Checkpoint) -> str:
    """Tie scores to a model: sha256 over config.json and every tensor's name, dtype and shape.

    The weights themselves are not read: a model that is trained further keeps its fingerprint.
    """
    digest = hashlib.sha256(json.dumps(checkpoint.config, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tensor.shape}\n".encode())
    return digest.hexdigest()


def averaged(measured: Mapping[str, Sequence[Values]], *, overall: bool) -> dict[str, Any]:
    """Columns of a table from what each seed measured in each language.

    measured  language -> one set of values for each seed
    overall   add rows under "": each seed's mean over the languages
    Returns   the columns place to spread, as `Scores` takes them
              each column (rows,)
    Example   seeds that measured 1.0 and 3.0 give score 2.0, spread 1.41
    """
    measured = dict(measured)
    if overall and OVERALL not in measured:
        measured[OVERALL] = [_mean_of(list(seeds)) for seeds in zip(*measured.values(), strict=True)]
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for language, seeds in measured.items():
        for place, layers in seeds[0].items():
            for layer in layers:
                stacked = np.stack([seed[place][layer] for seed in seeds])  # (seeds, indices)
                size = stacked.shape[1]
                columns["place"].append(np.full(size, place))
                columns["layer"].append(np.full(size, layer, np.int32))
                columns["index"].append(np.arange(size, dtype=np.int32))
                columns["language"].append(np.full(size, language))
                columns["score"].append(stacked.mean(0))
                columns["spread"].append(stacked.std(0, ddof=1) if len(seeds) > 1 else np.full(size, np.nan))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _mean_of(languages: Sequence[Values]) -> Values:
    first = languages[0]
    return {
        place: {layer: np.mean([one[place][layer] for one in languages], axis=0) for layer in layers}
        for place, layers in first.items()
    }
