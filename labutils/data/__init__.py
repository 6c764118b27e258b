"""Real data and real trained weights, for quantizing."""

# Imported eagerly on purpose: the function `digits` has the name of its module, and a lazy import would let the module
# take the function's place. The module itself is light.
from labutils.data.digits import digits, digits_network
from labutils.data.minilm import feed_forward_weight

__all__ = ["digits", "digits_network", "feed_forward_weight"]
