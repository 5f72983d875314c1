"""Commands of the command line, one module each; cli/app.py registers them."""
