"""Lab 08: scales that smooth, layers that are smoothed, outlier channels that are split off."""

LESSON = "08_outliers"  # the file in lessons/, without its ending
