"""`python -m langslice` is the same as `langslice`."""

from langslice.cli.app import main

main()
