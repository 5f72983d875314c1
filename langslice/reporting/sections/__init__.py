"""The sections of the page, each a function from the report's data to its HTML, or None where nothing is known."""
