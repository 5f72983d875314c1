"""What every process of a sweep needs: imported, and read, once. Importing it takes some seconds."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

# A process that is forked has the threads of nobody.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import transformers

from tests.families.sweep import sweep

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.simplefilter("ignore")
with tempfile.TemporaryDirectory(prefix="langslice-warm-") as _folder:
    sweep("arcee", "ArceeForCausalLM", Path(_folder))
