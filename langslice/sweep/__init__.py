"""Sweeps: many cuts of many models, each evaluated, from one recipe; finished runs are never run again.

Reading order: recipe.py (what is asked, and the grid that it spans), content.py (what a run's result depends on),
performing.py (one run), scheduling.py (many, in processes or on Ray), sweeping.py (the flow), summary.py and charts.py
(tables and plots).
"""
