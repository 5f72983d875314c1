"""Write the model of a run, finished or not, as a folder that stock transformers loads.

python training/export.py --run runs/mini --out langslice/mini/model
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from model import build_model, export_model
from tokenizers import Tokenizer


def main() -> None:
    """Read the command line, load the last checkpoint, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; files in it are replaced")
    given = parser.parse_args()
    run = json.loads((given.run / "run.json").read_text(encoding="utf-8"))
    model = build_model(run["shape"], run["seed"])
    state = torch.load(given.run / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["model"])
    export_model(model, run["shape"], Tokenizer.from_file(str(given.run / "tokenizer.json")), given.out)
    print(f"step {state['step']} of {run['steps']} written to {given.out}")


if __name__ == "__main__":
    main()
