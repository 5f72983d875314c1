"""What a slice does with a tokenizer: open it, close a choice of tokens, write it; and the checks around them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from langslice.tokenizer.extension import NewToken
from langslice.tokenizer.source import Closure, Rewrite, SourceTokenizer


def open_tokenizer(
    folder: Path, *, model_type: str | None = None, rows: int | None = None, merges: bool = True
) -> SourceTokenizer:
    """Read the tokenizer of a model folder.

    model_type  of config.json; needed only where the folder has neither tokenizer.json nor config.json
    rows        of the model's vocabulary; added tokens after them are left out, with a note
    merges      False for a job that leaves all tokens as they are: merges are read only when something asks for them
    Raises      TokenizerError when there is none, or it is damaged, inconsistent or not understood
    """
    from langslice.tokenizer.folder import open_folder

    return open_folder(Path(folder), model_type, rows, merges=merges)


def close(source: SourceTokenizer, chosen: Collection[int], *, lowest: bool = True) -> Closure:
    """Add the tokens without which the chosen ones could not be produced, or text would be scored differently.

    Added are special tokens that are in use, bytes, for BPE the tokens on each chosen token's route (bpe.py), for Unigram
    a piece of the lowest score (unigram.py). Closing twice adds nothing.

    lowest   add that piece, from whose score the score of an unknown character follows
    Raises   TokenizerError for an id that has no token
    Example  with the merges (a,c) and (a,ac), choosing aac adds a, c and ac
    """
    from langslice.tokenizer.closure import close_choice

    return close_choice(source, chosen, lowest=lowest)


def missing_closure(source: SourceTokenizer, kept: Collection[int], *, lowest: bool = True) -> Mapping[int, str]:
    """Reasons by id for every token that an edited plan lacks; empty when the plan is closed; `lowest` as in `close`."""
    return close(source, kept, lowest=lowest).added


def check_renumbering(source: SourceTokenizer, kept: Sequence[int]) -> None:
    """Refuse now what `write_tokenizer` would refuse: settings or parts of tokenizer.json that may hold ids unknown to us.

    kept    as for `write_tokenizer`
    Raises  TokenizerError
    """
    from langslice.tokenizer.output_files import check_renumbering

    check_renumbering(source, kept)


def write_tokenizer(
    source: SourceTokenizer,
    kept: Sequence[int],
    out: Path,
    *,
    closed: bool = False,
    check: bool = True,
    extension: Sequence[NewToken] = (),
    slow: bool = True,
) -> Rewrite:
    """Write the tokenizer restricted to `kept` and check what was written.

    kept    ascending old ids; new id = position. Ids beyond the last token (padding rows) may follow and are not
    written
    out     an existing folder that holds none of the files yet
    closed  `kept` came out of `close` for this tokenizer, so it is not closed again to compare
    check   load what was written; who passes False calls `check_tokenizer` when the source is no longer in memory
    extension  tokens that the source does not have; they follow the kept ones
    slow    write the files of slow tokenizers, too; tokenizer.json and its settings are enough to encode text
    Raises  TokenizerError when `kept` is not closed, or what was written does not load with exactly these ids
    """
    from langslice.tokenizer.output_files import write_files

    return write_files(source, kept, out, closed=closed, check=check, extension=extension, slow=slow)


def copy_tokenizer(source: SourceTokenizer, out: Path) -> Rewrite:
    """Copy all files of a tokenizer as they are, for a slice that keeps its whole vocabulary."""
    import shutil

    from langslice.files.hashing import file_sha256

    for name in source.files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.folder / name, out / name)
    return Rewrite({name: file_sha256(out / name) for name in source.files}, {})


def check_tokenizer(rewrite: Rewrite, out: Path, tokens: Sequence[str]) -> None:
    """Load a written tokenizer.json, where there is one, and compare every id with `tokens` in both directions.

    tokens  token string of each new id
    Raises  TokenizerError at the first id that differs
    """
    from langslice.tokenizer.rewrite import TOKENIZER_FILE, check_written

    if TOKENIZER_FILE in rewrite.written:
        check_written(out / TOKENIZER_FILE, tokens)
