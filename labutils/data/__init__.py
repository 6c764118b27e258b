"""Real data and real trained weights, for quantizing."""

# Imported eagerly on purpose: the function `digits` has the name of its module, and a lazy import would let the module
# take the function's place. The modules themselves are light.
from labutils.data.digits import digits, digits_network
from labutils.data.minilm import feed_forward_weight
from labutils.data.sentences import sentence_encoder

__all__ = ["digits", "digits_network", "feed_forward_weight", "sentence_encoder"]
