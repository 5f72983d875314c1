"""Sweeps: many slices of many models, each evaluated, from one recipe; finished runs are never run again.

Reading order: recipe.py (the grid that a recipe with lists spans), job.py (one run), scheduler.py (many, in
processes or on Ray), main.py (the flow), summary.py (tables and plots). What may be in a recipe, and
what each part does, is langslice.recipes's.
"""
