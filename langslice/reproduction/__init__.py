"""Published experiments, run again: each is a recipe of a sweep and the tables that its paper prints.

A figure that was not obtained, for want of data or because the model does not fit, is left out and named.
"""

__all__: list[str] = []
