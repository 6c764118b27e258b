"""Lab 02: asymmetric quantization, its inverse, and a range that is given."""

LESSON = "02_asymmetric"  # the file in lessons/, without its ending
