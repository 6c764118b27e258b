"""Real data and real trained models, for quantizing."""

import lazy_loader

# Imported eagerly on purpose: the function `digits` has the name of its module, and a lazy import would let the module
# take the function's place. The modules themselves are light.
from labutils.data.corpus import calibration_sentences, continuations, questions
from labutils.data.digits import digits, digits_network
from labutils.data.language_model import language_model
from labutils.data.minilm import feed_forward_weight
from labutils.data.sentences import sentence_encoder

# What needs torch is imported when it is first used.
__getattr__, _, _lazy = lazy_loader.attach(__name__, submod_attrs={"digits_torch": ["digits_accuracy", "digits_model"]})

__all__ = [
    "calibration_sentences",
    "continuations",
    "digits",
    "digits_network",
    "feed_forward_weight",
    "language_model",
    "questions",
    "sentence_encoder",
    *_lazy,
]


def __dir__():
    return __all__
