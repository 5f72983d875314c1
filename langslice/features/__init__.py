"""Which dimensions of the hidden states are large while a model does one thing and small while it does another.

Reading order: magnitudes.py (measure), overlap.py (compare), ablation.py (zero them and see the loss), ablated_translation.py (and
what is then written), tables.py (parquet), pictures.py (PNG). Source: Kim et al. 2024, arXiv 2409.16911, sections 3 and 4.
"""

from langslice.features.ablated_translation import AblatedTranslation, read_pairs_to_translate, translate_ablated
from langslice.features.ablation import Ablation, ablate
from langslice.features.magnitudes import Magnitudes, measure_magnitudes
from langslice.features.overlap import overlap, particular_dimensions, prominence, standing_out

__all__ = [
    "AblatedTranslation",
    "Ablation",
    "Magnitudes",
    "ablate",
    "measure_magnitudes",
    "overlap",
    "particular_dimensions",
    "prominence",
    "read_pairs_to_translate",
    "standing_out",
    "translate_ablated",
]
