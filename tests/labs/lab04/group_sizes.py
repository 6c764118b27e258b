"""What is no group size, with the error and the words of its message."""

import math

from tests.arrays.bad_inputs import NO_INT

NO_GROUP_SIZES = {
    "0": (0, ValueError, ("group_size must be at least 1, got 0",)),
    "-1": (-1, ValueError, ("group_size must be at least 1, got -1",)),
    "1.5": (1.5, TypeError, ("group_size", NO_INT, "1.5 of type float")),
    "128.0": (128.0, TypeError, ("group_size", NO_INT, "128.0 of type float")),
    "None": (None, TypeError, ("group_size", NO_INT, "None")),
    "a string": ("128", TypeError, ("group_size", NO_INT, "'128'")),
    "True": (True, TypeError, ("group_size", NO_INT, "True")),
    "a list": ([128], TypeError, ("group_size", NO_INT, "[128]")),
    "NaN": (math.nan, TypeError, ("group_size", NO_INT, "nan")),
}
