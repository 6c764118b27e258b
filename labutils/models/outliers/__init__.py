"""Outlier channels in activations: seeing them, what they do to integers, and what can be done about it.

| | |
|---|---|
| `observe` | the largest magnitude of every channel that enters a linear layer, over a calibration set |
| `StaticInt8Linear` | what suffers: 8 bits by 8 bits, one activation scale for the whole tensor, fixed beforehand |
| `smooth_linear`, `fold_division` | SmoothQuant: a channel's size is moved from the activations into the weights |
| `SplitLinear` | as in LLM.int8(): outlier channels in float, the others in integers |
| `rescale` | plants outliers, without changing what the model computes |

Xiao et al., 2023, "SmoothQuant" (arXiv:2211.10438). Dettmers et al., 2022, "LLM.int8()" (arXiv:2208.07339).
"""

from labutils.models.observation import Observed, observe
from labutils.models.outliers.calibrated import replace_linears
from labutils.models.outliers.smoothing import Divide, fold_division, rescale, smooth_linear
from labutils.models.outliers.split import SplitLinear
from labutils.models.outliers.static import StaticInt8Linear

__all__ = [
    "Divide",
    "Observed",
    "SplitLinear",
    "StaticInt8Linear",
    "fold_division",
    "observe",
    "replace_linears",
    "rescale",
    "smooth_linear",
]
