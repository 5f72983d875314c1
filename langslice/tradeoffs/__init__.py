"""What a smaller vocabulary costs a model, measured without writing one.

Reading order: in_memory.py (the slice of a plan as a model in memory), losses.py (what it loses on text), costs.py (which tokens
are dear), ladder.py (one size after another), main.py (the flow), table.py and picture.py (what people see).
"""
