"""Evaluation of a model and its slice side by side: quality by language, speed and size.

Reading order: main.py (the flow), measurement.py and statistics.py (what a score is, and how sure), data_sets.py and
choice_tasks.py (data and tasks), then one module for each kind of task. Nothing here changes a model.
"""
