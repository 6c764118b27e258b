"""Lab 06: a whole model quantized, what it takes, what it still answers, and where its bits should go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_model(model: nn.Module, convert: Callable[[nn.Linear], nn.Module], skip: Iterable[str] = ()) -> nn.Module:
    """A copy of `model` in which `convert(layer)` stands in place of every linear layer, however deep.

    >>> from torch import nn
    >>> from labutils.nn import QuantizedLinear
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> quantize_model(model, QuantizedLinear.from_float, skip=["2"])
    Sequential(
      (0): QuantizedLinear(64, 64, bias=True, int8 codes, 8 bits, PerAxis(axis=0))
      (1): ReLU()
      (2): Linear(in_features=64, out_features=10, bias=True)
    )

    `skip` names layers, as `model.named_modules()` does, that stay in float. A layer used in two places is converted
    once. The model itself is not changed, and the copy is in its mode, training or eval. Errors as in
    `labutils.nn.quantize_model`, which does more.
    """
    from labutils import nn

    return nn.quantize_model(model, convert, skip=skip)


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers of a model; what is used in two places counts once.

    >>> from torch import nn
    >>> model_bytes(nn.Sequential(nn.Linear(100, 50), nn.BatchNorm1d(50)))
    21008

    4 * (5000 + 50) for the linear layer, 4 * 4 * 50 for the norm, and 8 for the int64 in which it counts batches.
    """
    from labutils import nn

    return nn.model_bytes(model)


def compare_predictions(logits: Array, quantized_logits: Array, labels: Array) -> dict[str, float]:
    """How often a model is right, how often its quantized copy is, and how often the two say the same.

    >>> logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    >>> swapped = np.array([[2.0, 1.0], [1.0, 0.0], [1.0, 0.0], [5.0, 1.0]])
    >>> compare_predictions(logits, swapped, np.array([0, 1, 1, 0]))
    {'accuracy': 0.5, 'quantized_accuracy': 0.5, 'agreement': 0.5}

    (n, classes) logits, (n,) integer labels, NumPy or torch. ValueError for shapes that do not match.
    """
    logits, quantized_logits, labels = (_plain(x) for x in (logits, quantized_logits, labels))
    if logits.ndim != 2 or not logits.size or quantized_logits.shape != logits.shape:
        raise ValueError(
            f"logits and quantized_logits must have one shape (n, classes), got {logits.shape} "
            f"and {quantized_logits.shape}"
        )
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have shape ({len(logits)},), got {labels.shape}")
    before, after = logits.argmax(axis=1), quantized_logits.argmax(axis=1)
    return {
        "accuracy": float((before == labels).mean()),
        "quantized_accuracy": float((after == labels).mean()),
        "agreement": float((before == after).mean()),
    }


def _plain(x: Array) -> Any:
    import numpy as np

    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def layer_sensitivity(
    model: nn.Module, score: Callable[[nn.Module], float], convert: Callable[[nn.Linear], nn.Module]
) -> dict[str, float]:
    """Name -> how much `score(model)` falls when `convert` replaces that linear layer and no other.

    >>> import torch
    >>> from labutils import Scheme
    >>> from labutils.nn import QuantizedLinear
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, 0.6]])), model[1].weight.data.fill_(1.0)
    >>> score = lambda model: model(torch.tensor([[0.0, 1.0]])).item()
    >>> falls = layer_sensitivity(model, score, lambda layer: QuantizedLinear(layer, Scheme(2)))
    >>> {name: round(fall, 4) for name, fall in falls.items()}
    {'1': 0.0, '0': -0.4}

    At 2 bits and scale 1 the weights 1.0 and 0.6 both become 1. A fall below 0 says that the score rose. Errors as in
    `labutils.nn.layer_sensitivity`.
    """
    from labutils import nn

    return nn.layer_sensitivity(model, score, convert)


def allocate_bits(
    sensitivity: Mapping[int, Mapping[str, float]], budget: float, num_weights: Mapping[str, int]
) -> dict[str, int]:
    """Name -> bits: of all choices whose bits, averaged over all weights, are within `budget`, that of least loss.

    >>> sensitivity = {4: {"first": 0.03, "last": 0.2}, 8: {"first": 0.0, "last": 0.01}}
    >>> allocate_bits(sensitivity, 6, {"first": 100, "last": 100})
    {'first': 4, 'last': 8}
    >>> allocate_bits(sensitivity, 6, {"first": 100, "last": 300})
    {'first': 8, 'last': 4}

    sensitivity[num_bits][name] is what is lost where that layer alone has so many bits; losses are taken to add up.
    ValueError for a budget that even the fewest bits exceed.
    """
    from labutils import nn

    return nn.allocate_bits(sensitivity, budget, num_weights)
