"""Lab 03: a scale for each channel, the way back, four quantizers compared, and a scale for each token."""

LESSON = "03_per_channel"  # the file in lessons/, without its ending
