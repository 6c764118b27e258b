"""Lab 01: symmetric quantization, its inverse, its error, and clipping."""

LESSON = "01_fundamentals"  # the file in lessons/, without its ending
