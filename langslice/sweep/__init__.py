"""Sweeps: many cuts of many models, each evaluated, from one recipe; finished runs are never run again.

Reading order: recipe.py (the grid that a recipe with lists spans), performing.py (one run), scheduling.py (many, in
processes or on Ray), sweeping.py (the flow), summary.py and charts.py (tables and plots). What may stand in a recipe, and
what each part does, is langslice.recipe's.
"""
