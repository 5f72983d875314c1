"""Examples of what needs a network, or an adapter of your own. The tests check that they name what they show."""

from pathlib import Path

import langslice

# langslice.restoration.AdapterOptions
from langslice.restoration import AdapterOptions

carried = langslice.adapter("lora", "lora-ko-en", options=AdapterOptions(plan="ko-en/slice.json"))

# langslice.restoration.AdapterResult
print(carried.tensors, carried.not_carried)  # an AdapterResult

# langslice.slicing.send
from langslice.slicing import plan_upload, send

address = send(plan_upload(Path("ko-en"), "ORG/NAME"), private=True)
