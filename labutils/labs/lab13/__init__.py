"""Lab 13: a quantized model as files that other libraries load."""

LESSON = "13_ship_it"  # the file in lessons/, without its ending
