"""`python -m langslice` is the same as `langslice`."""

from langslice.cli import main

main()
