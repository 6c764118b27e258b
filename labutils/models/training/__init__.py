"""Training a network that will run in few bits: fake-quantized while it learns, integers when it is done.

The forward pass sees weights and activations on their grids; the backward pass looks straight through the rounding
(Bengio, Leonard and Courville, 2013, arXiv:1308.3432; Jacob et al., 2018, arXiv:1712.05877). Scales stay as they were
chosen, or are learned too: LSQ (Esser et al., 2020, arXiv:1902.08153). All grids are symmetric: a weight has a scale
for each output channel, an activation one scale.
"""

from labutils.models.training.fake_quantization import FakeQuantize, best_weight_scale, fake_quantize_ste
from labutils.models.training.integers import IntegerLayer, convert
from labutils.models.training.loop import train
from labutils.models.training.preparation import FakeQuantizedLayer, prepare

__all__ = [
    "FakeQuantize",
    "FakeQuantizedLayer",
    "IntegerLayer",
    "best_weight_scale",
    "convert",
    "fake_quantize_ste",
    "prepare",
    "train",
]
