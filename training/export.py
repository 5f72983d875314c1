"""Write the model of a run, finished or not, as a folder that unmodified transformers loads.

    python training/export.py --run runs/mini --out langslice/mini/model
    python training/export.py --run runs/long --average runs/short --share 0.75 --out langslice/mini/model

Two runs from one seed can be averaged, parameter by parameter (Wortsman et al. 2022, arXiv 2203.05482).
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
    parser.add_argument("--average", type=Path, help="folder of another run of the same shape and seed")
    parser.add_argument("--share", type=float, default=0.5, help="of the first run in the average")
    given = parser.parse_args()
    run = json.loads((given.run / "run.json").read_text(encoding="utf-8"))
    model = build_model(run["shape"], run["seed"])
    state = torch.load(given.run / "checkpoint.pt", weights_only=True)
    parameters = state["model"]
    if given.average:
        other = torch.load(given.average / "checkpoint.pt", weights_only=True)["model"]
        # In the type that is shipped, as each run is exported by itself.
        rounded = {name: [one[name].half().float() for one in (parameters, other)] for name in parameters}
        parameters = {name: given.share * one + (1 - given.share) * two for name, (one, two) in rounded.items()}
    model.load_state_dict(parameters)
    export_model(model, run["shape"], Tokenizer.from_file(str(given.run / "tokenizer.json")), given.out)
    print(f"step {state['step']} of {run['steps']} written to {given.out}")


if __name__ == "__main__":
    main()
