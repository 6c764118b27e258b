"""Lab 00: one tiny exercise, to see how the labs work."""

LESSON = "00_start_here"  # the file in lessons/, without its ending
