"""Bytes on disk: headers, ranges, copies, hashes, and outputs that appear complete or not at all."""
