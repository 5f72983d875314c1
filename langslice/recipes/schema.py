"""A recipe's form as a JSON schema: for editors, and for the check that validation.py makes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langslice.recipes.parts import Entries, RecipePart, parts

DRAFT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def recipe_schema(*, sweep: bool = False) -> Schema:
    """The JSON schema of recipes.

    sweep  of recipes that are swept over: a list in the place of any value, a null next to it
    """
    from langslice.recipes.parts import SWEEPING

    properties: Schema = {
        "model": {
            "description": "A local folder, the id of a model on the hub, or `mini`, the packaged one.",
            "type": ["string"],
        },
        "revision": {"description": "Branch, tag or commit of a hub model.", "type": ["string", "null"]},
        **{name: part_schema(part) for name, part in parts().items()},
    }
    shared: Schema = {}
    if sweep:
        properties = {name: _lifted(each, name, shared) for name, each in properties.items() if name in SWEEPING}
    return {
        "$schema": DRAFT,
        "title": "langslice sweep" if sweep else "langslice recipe",
        "description": "A recipe in which every list spans an axis, for `langslice sweep`."
        if sweep
        else "What `langslice run` does, part by part.",
        "type": ["object"],
        "additionalProperties": False,
        **({"required": ["model", "evaluate"]} if sweep else {}),
        "properties": properties,
        **({"$defs": shared} if shared else {}),
    }


def part_schema(part: RecipePart) -> Schema:
    """Schema of a part; of one with names, the mapping of them."""
    inner = mapping_schema(part.entries, part.nested or {})
    if part.named:
        return {"description": part.help, "type": ["object", "null"], "additionalProperties": inner}
    kinds = ["object", "boolean", "null"] if part.switch else ["object", "null"]
    return {"description": part.help, **inner, "type": kinds}


def mapping_schema(found: Entries, nested: Mapping[str, Entries]) -> Schema:
    """Schema of a mapping with these entries, and no others."""
    properties = {
        name: {"description": option.entry.help, **mapping_schema(nested[name], {}), "type": ["object", "null"]}
        if name in nested
        else option.schema()
        for name, option in found.items()
    }
    required = [name for name, option in found.items() if option.required]
    schema: Schema = {"type": ["object"], "additionalProperties": False, "properties": properties}
    return {**schema, "required": required} if required else schema


def _lifted(schema: Schema, name: str, shared: Schema) -> Schema:
    """A schema, or a list of what fits it; what fits is once, among the shared definitions."""
    inner = dict(schema)
    if "properties" in inner:
        inner["properties"] = {
            each: _lifted(value, f"{name}.{each}", shared) for each, value in inner["properties"].items()
        }
    if isinstance(inner.get("additionalProperties"), dict):
        inner["additionalProperties"] = _lifted(inner["additionalProperties"], f"{name}.*", shared)
    shared[name] = inner
    one = {"$ref": f"#/$defs/{name}"}
    return {"anyOf": [one, {"type": "array", "items": {"anyOf": [one, {"type": "null"}]}}]}
