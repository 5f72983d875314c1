"""Stream a dataset of the hub through the optional package `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from langslice.corpus.sources import HubDataset
from langslice.errors import CorpusError


def read_dataset(source: HubDataset, text_field: str, progress: Callable[[int], None]) -> Iterator[str]:
    """Yield the text field of every record, streamed; code of a dataset's repository is never run.

    Raises  CorpusError without the package, without the network, or when the dataset, split or field is not there
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise CorpusError(
            f"{source.name}: not a local path, and datasets of the hub need the package `datasets`",
            'pip install "langslice[datasets]"',
        ) from error
    try:
        for number, record in enumerate(load_dataset(source.name, source.config, split=source.split, streaming=True)):
            text = record.get(text_field)
            if not isinstance(text, str):
                fields = ", ".join(record)
                raise CorpusError(
                    f"{source.name}: record {number} has no text in field {text_field!r}; found: {fields}",
                    "name the field with --text-field",
                )
            progress(len(text.encode(errors="replace")))
            yield text
    except CorpusError:
        raise
    except Exception as error:
        # `datasets` passes on the errors of every library under it
        raise CorpusError(
            f"{source.name}: not a local path, and as a dataset of the hub (split {source.split!r}) it cannot be "
            f"opened: {type(error).__name__}: {error}",
            "check the name, the configuration (owner/name:config), the split (@split) and the network",
        ) from error
