"""llama.cpp itself, as the package `xllamacpp` carries it: a GGUF file loaded, and asked for ids, log probabilities and vectors.

Its server runs in this process and is asked over the loopback interface.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np

from langslice.errors import VerificationError

RUNTIME = "xllamacpp"
_CONTEXT = 512


class Runtime:
    """A GGUF file in llama.cpp."""

    def __init__(self, address: str) -> None:
        self.address = address
        # Never through a proxy: it is this process that answers.
        self.opener = build_opener(ProxyHandler({}))

    def ids(self, text: str) -> list[int]:
        """Token ids of a text with what the file says to put around it; special tokens spelled out in it are such tokens."""
        asked = {"content": text, "add_special": True, "parse_special": True}
        return [int(token_id) for token_id in self._ask("/tokenize", asked)["tokens"]]

    def log_probabilities(self, ids: Sequence[int], size: int, count: int, plain: int) -> np.ndarray:
        """Of the likeliest tokens after these, (size,) float64; NaN for the others.

        size   rows of the vocabulary
        count  tokens that llama.cpp is asked for
        plain  id of a token that is whole characters
        """
        # The end of a text, or a part of a character, would be an answer without probabilities. What is chosen does not matter
        # to them: they are taken before.
        asked = {
            "prompt": list(ids), "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": False,
            "logit_bias": [[plain, 1e4]],
        }  # fmt: skip
        answer = self._ask("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
        found = np.full(size, np.nan)
        for each in answer:
            found[each["id"]] = each["logprob"] if each["logprob"] > -1e30 else np.nan
        return found

    def greedy(self, ids: Sequence[int], length: int) -> list[int]:
        """The likeliest tokens after these, one after the other; fewer where the text ends."""
        asked = {
            "prompt": list(ids), "n_predict": length, "temperature": 0.0, "cache_prompt": False, "return_tokens": True,
            "samplers": ["temperature"],
        }  # fmt: skip
        return [int(token_id) for token_id in self._ask("/completion", asked)["tokens"]]

    def vector(self, ids: Sequence[int]) -> np.ndarray:
        """The vector of a text, (hidden,) float64, not normalised."""
        answer = self._ask("/embedding", {"content": list(ids), "embd_normalize": -1})
        return np.asarray(answer[0]["embedding"], dtype=np.float64).reshape(-1)

    def _ask(self, route: str, body: Any) -> Any:
        request = Request(self.address + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with self.opener.open(request) as answer:
                return json.load(answer)
        except HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            raise VerificationError(f"llama.cpp does not answer {route}: {said}") from error


def is_installed() -> bool:
    """Whether the package is there."""
    return find_spec(RUNTIME) is not None


@contextmanager
def running(path: Path, *, encoder: bool, pooled: bool = True) -> Iterator[Runtime]:
    """Load a file; the server ends with the block.

    encoder  the file gives vectors
    pooled   the file says how; else it is their mean
    Raises   VerificationError where llama.cpp does not load it
    """
    import torch
    import xllamacpp

    asked = xllamacpp.CommonParams()
    asked.model.path = str(path)
    asked.n_ctx = asked.n_batch = asked.n_ubatch = _CONTEXT
    asked.n_parallel, asked.n_gpu_layers, asked.port, asked.hostnames = 1, 0, 0, ["127.0.0.1"]
    # Threads that wait for each other, and keep their cores busy with it, stand still where there are more of them than cores
    # that are free: with another process on one of two cores, two took seven times as long as one.
    threads = max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1))
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
    asked.warmup, asked.ui, asked.embedding, asked.verbosity = False, False, encoder, -1
    if not pooled:
        asked.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # Full numbers where llama.cpp would round what it remembers, so that only the file's own rounding shows.
    asked.cache_type_k = asked.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    asked.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    try:
        server = xllamacpp.Server(asked)
    except RuntimeError as error:
        raise VerificationError(f"llama.cpp does not load {path.name}: {error}") from error
    try:
        yield Runtime(server.listening_address)
    finally:
        del server
