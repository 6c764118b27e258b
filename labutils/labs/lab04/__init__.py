"""Lab 04: groups, packed codes, and bits per weight."""

LESSON = "04_group_int4"  # the file in lessons/, without its ending
