"""Real data and real trained models, for quantizing."""

# Imported eagerly on purpose: the function `digits` has the name of its module, and a lazy import would let the module
# take the function's place. The modules themselves are light.
from labutils.data.corpus import calibration_sentences, questions
from labutils.data.digits import digits, digits_network
from labutils.data.minilm import feed_forward_weight
from labutils.data.sentences import sentence_encoder

__all__ = [
    "calibration_sentences",
    "digits",
    "digits_network",
    "feed_forward_weight",
    "questions",
    "sentence_encoder",
]
