"""Recipes: the whole job in one readable file, done step by step; what is done already is not done again.

Reading order: parts.py (what may stand in a recipe, from the commands' options), schema.py (the same for editors),
document.py (YAML with the places of its entries), references.py (`$NAME`), reading.py (checked), content.py (what a result
depends on), performing.py (each part done), steps.py (which steps a recipe has), running.py (the flow, with what is kept from
before), showing.py (from a command line to its recipe), drafting.py (a first recipe after a look at a model).

A sweep is a recipe with lists: langslice.sweep.
"""
