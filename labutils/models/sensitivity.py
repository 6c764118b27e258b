"""How much each layer suffers from few bits, and where a budget of bits is spent best."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping

from torch import nn

from labutils.arrays.inputs import bit_width, real_number, whole_number
from labutils.models.conversion import Convert, quantize_model
from labutils.models.layers import GROUPS
from labutils.models.left_in_float import LeftInFloatWarning
from labutils.models.linear import linear_layers


def layer_sensitivity(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    convert: Convert = GROUPS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, float]:
    """Name -> how much `score(model)` falls when that linear layer alone is quantized; the largest first.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).requires_grad_(False)
    >>> sensitivity = layer_sensitivity(model, lambda m: -float((m(torch.eye(8)) - model(torch.eye(8))).norm()))
    >>> min(sensitivity.values()) > 0
    True

    `score` is larger for a better model: an accuracy, a cosine to the float model, minus a loss. `progress` may be
    tqdm. Layers do not add up exactly: errors of one meet those of another.
    """
    aliases: dict[nn.Module, list[str]] = {}  # a layer used in two places is measured once, under its first name
    for name, layer in linear_layers(model).items():
        aliases.setdefault(layer, []).append(name)
    if not aliases:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
    best = float(score(model))
    falls = {}
    for names in progress(list(aliases.values())):
        rules = dict.fromkeys(names, convert) | {"*": None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftInFloatWarning)  # all but one are left on purpose
            quantized = quantize_model(model, convert, rules)
        falls[names[0]] = best - float(score(quantized))
    return dict(sorted(falls.items(), key=lambda item: -item[1]))


def allocate_bits(
    sensitivity: Mapping[int, Mapping[str, float]], budget: float, num_weights: Mapping[str, int]
) -> dict[str, int]:
    """Name -> bits: of all choices within the budget, the one whose losses add up to the least.

    >>> sensitivity = {4: {"first": 0.03, "last": 0.2}, 8: {"first": 0.0, "last": 0.01}}
    >>> allocate_bits(sensitivity, 6, {"first": 100, "last": 100})
    {'first': 4, 'last': 8}

    sensitivity  num_bits -> name -> what is lost when this layer alone has so many bits (see `layer_sensitivity`)
    budget       bits, on average over all weights
    num_weights  name -> how many weights the layer has

    An integer linear program, as in HAWQ-V3 (Yao et al., 2021, arXiv:2011.10680), solved exactly by scipy's HiGHS. It
    takes losses to add up, which is a fair guess while they are small. ValueError for a budget that even the fewest
    bits exceed, or where the names differ between bit widths.
    """
    import numpy as np
    from scipy import optimize

    bits, names = sorted(bit_width(num_bits) for num_bits in sensitivity), list(num_weights)
    if not bits:
        raise ValueError("sensitivity must hold at least one bit width, got none")
    if not names:
        raise ValueError("num_weights must name at least one layer, got none")
    losses = np.array(
        [[real_number(_loss(sensitivity[b], name), f"the loss of {name}") for b in bits] for name in names]
    )
    counts = np.array([_count(num_weights[name], f"num_weights[{name!r}]") for name in names])
    most = real_number(budget, "budget") * counts.sum()
    if counts.sum() * bits[0] > most:
        raise ValueError(f"a budget of {budget:g} bits per weight cannot be met: the fewest given are {bits[0]}")
    one_each = np.kron(np.eye(len(names)), np.ones(len(bits)))  # a row for each layer: its choices add up to 1
    taken = np.outer(counts, bits).reshape(1, -1)
    found = optimize.milp(
        losses.ravel(),
        integrality=1,
        bounds=optimize.Bounds(0, 1),
        constraints=[optimize.LinearConstraint(one_each, 1, 1), optimize.LinearConstraint(taken, 0, most)],
        options={"mip_rel_gap": 0},
    )
    chosen = found.x.reshape(losses.shape).argmax(axis=1)
    return {name: bits[choice] for name, choice in zip(names, chosen, strict=True)}


def _count(value: object, name: str) -> int:
    count = whole_number(value, name)
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count


def _loss(losses: Mapping[str, float], name: str) -> float:
    if name not in losses:
        raise ValueError(f"sensitivity has no loss of {name!r}; it has {', '.join(map(str, losses))}")
    return losses[name]
