"""Compare a slice with its source: tensors, ids, tokenization, outputs, and the record in slice.json."""
