"""Real data and real trained weights, for quantizing."""

# Imported eagerly on purpose: the function `digits` has the name of its module, and a lazy import would let the module
# take the function's place. The module itself is light.
from labutils.data.digits import digits, digits_network

__all__ = ["digits", "digits_network"]
