"""Lab 12: a language model's perplexity, its key-value cache in few bits, and rotations."""

LESSON = "12_language_model"  # the file in lessons/, without its ending
