"""Names of the files that are next to a slice's own."""

FILE_NAME = "slice.json"
# Written next to a slice after its record, by langslice or the person who publishes it; no loader reads them.
LATER_FILES = ("README.md", FILE_NAME, "report.html", "healing.*", "LICENSE*", "LICENCE*", "NOTICE*", ".gitattributes")
