"""What `slice` made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langslice.formatting import count_text
from langslice.planning.plan import SlicePlan, kept_text
from langslice.planning.summary import html_table
from langslice.writing.shards import WriteReport

if TYPE_CHECKING:
    from langslice.verification.main import Verification


@dataclass(frozen=True, repr=False)
class SliceResult:
    """What `slice` made.

    out         the folder; of a GGUF file the file
    plan        what it did
    parameters  part -> number of parameters before and after
    written     bytes and files, by method
    left_out    file of the source -> why it is not in the output
    verification       None when verification was switched off
    notes       what else a user should know: stale partial outputs removed, weights that had to be converted first
    """

    out: Path
    plan: SlicePlan
    parameters: Mapping[str, tuple[int, int]]
    written: WriteReport
    left_out: Mapping[str, str]
    verification: Verification | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        before, after = self._totals()
        return f"SliceResult({self.out}: {count_text(before)} to {count_text(after)} parameters, {self._verdict()})"

    def _repr_html_(self) -> str:
        rows = [*self.parameters.items(), ("all", self._totals())]
        cells = [
            (part, f"{before:,}", f"{after:,}", f"{after / before - 1:+.1%}" if before else "")
            for part, (before, after) in rows
        ]
        caption = f"{self.out}: keeps {kept_text(self.plan)}; {self._verdict()}"
        return html_table(caption, ("part", "parameters before", "after", "change"), cells)

    def _totals(self) -> tuple[int, int]:
        return sum(before for before, _ in self.parameters.values()), sum(
            after for _, after in self.parameters.values()
        )

    def _verdict(self) -> str:
        if self.verification is None:
            return "not verified"
        return "verified" if self.verification.passed else "verification failed"

    def load(self, **options: Any) -> tuple[Any, Any]:
        """The slice in memory: its model, of the class that config.json names, and its tokenizer, both of transformers.

        options  of `from_pretrained`, such as dtype or device_map
        Raises   CheckpointError, TokenizerError
        """
        from langslice.slicing.loaded_slice import load_objects

        return load_objects(self.out, **options)

    def sentence_transformer(self, **options: Any) -> Any:
        """The slice as a SentenceTransformer, of sentence-transformers.

        options  of SentenceTransformer, such as device
        Raises   CheckpointError where the folder is none, or the package is missing
        """
        from langslice.slicing.loaded_slice import load_sentence_transformer

        return load_sentence_transformer(self.out, **options)
