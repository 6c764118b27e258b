"""A copy of a model whose layers are quantized with knowledge of their inputs: GPTQ, AWQ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from tqdm.auto import tqdm

from labutils.models.conversion import quantize_model
from labutils.models.hessian import wanted_layers, weight_id
from labutils.models.left_in_float import tied_elsewhere

Tensor = torch.Tensor


def quantize_with(
    model: nn.Module,
    hessians: Mapping[str, Tensor],
    method: Callable[[nn.Linear, Tensor], nn.Module],
    skip: Iterable[str] = (),
    progress: bool = False,
) -> nn.Module:
    """A copy of `model`, each linear layer replaced by method(layer, its Hessian); `model` itself stays as it is.

    >>> from functools import partial
    >>> from labutils import Scheme
    >>> from labutils.models import gptq_linear, layer_hessians
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> hessians = layer_hessians(model, torch.randn(4, 128, 64))  # 4 batches
    >>> quantize_with(model, hessians, partial(gptq_linear, scheme=Scheme(4, granularity=PerGroup(32))))
    Sequential(
      (0): PackedLinear(64, 64, bias=True, packed, 4 bits, PerGroup(group_size=32), kernel: ...)
      (1): ReLU()
      (2): PackedLinear(64, 10, bias=True, packed, 4 bits, PerGroup(group_size=32), kernel: ...)
    )

    hessians  those of `layer_hessians`; one calibration serves any number of methods and schemes
    method    such as `gptq_linear` or `awq_linear`, with a scheme bound to it
    skip      names of layers to leave in float; "encoder.*" is all names that begin so
    progress  shows a bar

    All Hessians are those of the float model: no layer is calibrated on the outputs of layers that were quantized
    before it, which would take a pass over the calibration data for each layer. Layers that share a weight are
    quantized as one; one whose weight is also an embedding's stays in float. ValueError for a layer without a Hessian;
    other errors, and a warning for what stays in float, as from `quantize_model`.
    """
    wanted, tied = wanted_layers(model, skip), tied_elsewhere(model)
    layers = {name: layer for name, layer in wanted.items() if layer not in tied}
    unseen = [name for name in layers if name not in hessians]
    if unseen:
        raise ValueError(
            f"{', '.join(unseen)}: hessians must hold one for each layer; name in skip what is to stay float"
        )
    with tqdm(total=len({*layers.values()}), desc="quantize", unit="layer", disable=not progress) as bar:

        def with_hessian(hessian: Tensor) -> Callable[[nn.Linear], nn.Module]:
            def convert(layer: nn.Linear) -> nn.Module:
                bar.update()
                return method(layer, hessian)

            return convert

        converts = {weight_id(layer): with_hessian(hessians[name]) for name, layer in layers.items()}
        rules = {name: converts[weight_id(layer)] for name, layer in layers.items()}
        return quantize_model(model, rules=rules, skip=skip)
