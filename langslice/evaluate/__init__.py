"""What a model is worth: quality by language, speed and size."""
