"""The main job: open, plan, write, verify; and the jobs around it: inspect, demo, publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langslice.lazy import lazy_names

if TYPE_CHECKING:
    from langslice.slicing.inspect import Inspection, ModelPart, Saving
    from langslice.slicing.options import CountOptions, InspectOptions, MaskOptions, SliceOptions
    from langslice.slicing.publish import Upload, plan_upload, send

__all__ = [
    "CountOptions",
    "InspectOptions",
    "Inspection",
    "MaskOptions",
    "ModelPart",
    "Saving",
    "SliceOptions",
    "Upload",
    "plan_upload",
    "send",
]
__getattr__ = lazy_names(
    __name__,
    {
        "langslice.slicing.inspect": (
            "Inspection",
            "ModelPart",
            "Saving",
        ),
        "langslice.slicing.options": (
            "CountOptions",
            "InspectOptions",
            "MaskOptions",
            "SliceOptions",
        ),
        "langslice.slicing.publish": (
            "Upload",
            "plan_upload",
            "send",
        ),
    },
)
