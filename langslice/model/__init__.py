"""What a checkpoint is: its files, its family, its layers, its tokenizer, and what transformers makes of it."""
