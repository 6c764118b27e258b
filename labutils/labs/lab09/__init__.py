"""Lab 09: the Hessian of a layer, GPTQ's rounding column by column, AWQ's scales."""

LESSON = "09_gptq_and_awq"  # the file in lessons/, without its ending
