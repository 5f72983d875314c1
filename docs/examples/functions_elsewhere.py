"""Examples of functions that need a network, an adapter of your own, or minutes. The tests check their names and parameters."""

import langslice

# demo
made = langslice.demo()

# reproduce
langslice.reproduce("kim2024", "google/mt5-small", "kim2024", data="DATA")

# adapter
langslice.adapter("lora", "lora-ko-en", plan="ko-en/slice.json")

# push
address = langslice.push("ko-en", "ORG/NAME", private=True)

# open_studio
langslice.open_studio(["mini", "MODELS"], work="studio")  # until Ctrl-C stops it
