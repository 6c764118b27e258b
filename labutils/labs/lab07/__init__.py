"""Lab 07: ranges by percentile, squared error and KL divergence, and the moving average."""

LESSON = "07_calibration"  # the file in lessons/, without its ending
