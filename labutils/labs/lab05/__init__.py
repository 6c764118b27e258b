"""Lab 05: a matrix product of codes, a layer that holds them, and a layer that multiplies them."""

LESSON = "05_quantized_linear"  # the file in lessons/, without its ending
