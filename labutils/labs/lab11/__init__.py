"""Lab 11: grids of small floats, rounding to any grid, block formats whose scales are on a grid, and tables of "
"values."""

LESSON = "11_grids"  # the file in lessons/, without its ending
