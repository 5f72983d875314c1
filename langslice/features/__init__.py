"""Which dimensions of the hidden states are large while a model does one thing and small while it does another.

Reading order: main.py (the flow), magnitudes.py (measure), overlaps.py (compare), ablation.py (zero them and see the loss),
ablated_translation.py (and what is then written), tables.py (parquet), pictures.py (PNG). Source: Kim et al. 2024, arXiv
2409.16911, sections 3 and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.features.ablated_translation import AblatedTranslation, read_pairs_to_translate, translate_ablated
    from langslice.features.ablation import Ablation, ablate
    from langslice.features.magnitudes import Magnitudes, measure_magnitudes
    from langslice.features.main import Features as Features
    from langslice.features.main import find_features as find_features
    from langslice.features.options import FeatureOptions as FeatureOptions
    from langslice.features.overlaps import overlap, particular_dimensions, prominence, standing_out

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
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.features.ablated_translation": (
            "AblatedTranslation",
            "read_pairs_to_translate",
            "translate_ablated",
        ),
        "langslice.features.ablation": (
            "Ablation",
            "ablate",
        ),
        "langslice.features.magnitudes": (
            "Magnitudes",
            "measure_magnitudes",
        ),
        "langslice.features.main": (
            "Features",
            "find_features",
        ),
        "langslice.features.options": ("FeatureOptions",),
        "langslice.features.overlaps": (
            "overlap",
            "particular_dimensions",
            "prominence",
            "standing_out",
        ),
    },
)
