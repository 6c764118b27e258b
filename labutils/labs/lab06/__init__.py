"""Lab 06: a quantized copy of a model, its bytes, its answers, the sensitivity of its layers, and their bits."""

LESSON = "06_full_model"  # the file in lessons/, without its ending
