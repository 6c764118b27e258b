"""The Hessian of a linear layer's output error: what each error in a weight costs, and how errors can cancel.

For inputs X (n, K) and weights W (N, K) that become W', the outputs lose

    ||X W^T - X W'^T||^2 = 1/2 tr((W - W') H (W - W')^T)    with    H = 2 X^T X, (K, K)

The rows of W do not meet in it, and all of them have the same H. Optimal Brain Surgeon (Hassibi and Stork, 1992)
prunes with it; GPTQ (Frantar et al., 2022, arXiv:2210.17323) rounds with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from labutils.arrays.inputs import real_array, require_finite, working_dtype
from labutils.models.conversion import require_known_names
from labutils.models.inputs import describe
from labutils.models.linear import linear_layers
from labutils.models.observation import in_eval_mode, watch_inputs

Tensor = torch.Tensor


def call_model(model: nn.Module, batch: Any) -> Any:
    """model(batch): how a model is run on one batch where nothing else is said."""
    return model(batch)


def layer_hessians(
    model: nn.Module,
    batches: Iterable[Any],
    run: Callable[[nn.Module, Any], Any] = call_model,
    skip: Iterable[str] = (),
    progress: bool = False,
) -> dict[str, Tensor]:
    """Name -> H = 2 X^T X, (in_features, in_features), of every linear layer; X is all rows that enter it.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> hessians = layer_hessians(model, [torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])])
    >>> hessians["0"]
    tensor([[ 2.,  4.],
            [ 4., 10.]])

    batches   whatever `run` takes; one after the other, and none is stored
    run       run(model, batch) runs the model on a batch; model(batch) where it is left out
    skip      names of layers that need no Hessian; "encoder.*" is all names that begin so
    progress  shows a bar

    A sum over rows, not a mean: Hessians of two sets of batches add up to that of both. It is float32, and float64 for
    float64 inputs; 16-bit inputs are multiplied in float32. A layer that runs several times in a batch counts every
    time, and layers that share a weight share the sum. The model runs in eval mode without gradients. Memory: K^2
    numbers a layer, all layers at once.

    ValueError for a model without linear layers, for no batches, for a layer that no batch reaches (it is named), and
    where an input holds NaN or Inf or is so large that its square does (batch and layer are named).
    """
    layers = wanted_layers(model, skip)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be a list of what run takes, or another iterable, got {describe(batches)}")
    weights = {name: weight_id(layer) for name, layer in layers.items()}
    watched = {layer: name for name, layer in layers.items()}  # a layer with two names is watched once
    sums: dict[int, Tensor] = {}
    number = 0

    def add(name: str, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]).to(working_dtype(torch, x))
        with torch.autocast(x.device.type, enabled=False):
            product = 2 * (rows.t() @ rows)
        if not product.diagonal().isfinite().all():
            raise ValueError(f"batch {number}, {name}: its input holds NaN, Inf, or values whose squares overflow")
        weight = weights[name]
        sums[weight] = sums[weight] + product if weight in sums else product

    inputs = watch_inputs({name: layer for layer, name in watched.items()}, add)
    with in_eval_mode(model), torch.no_grad(), inputs:
        for number, batch in enumerate(tqdm(batches, desc="calibrate", unit="batch", disable=not progress)):  # noqa: B007
            run(model, batch)
    _require_all(sums, weights)
    return {name: sums[weight] for name, weight in weights.items()}


def wanted_layers(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Linear]:
    """Name -> layer, for the linear layers of a model that no pattern of `skip` fits; ValueError where it has none.

    >>> list(wanted_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), skip="2"))
    ['0']
    """
    layers = linear_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
    skip = [skip] if isinstance(skip, str) else list(skip)
    require_known_names(skip, layers)
    return {name: layer for name, layer in layers.items() if not any(fnmatchcase(name, pattern) for pattern in skip)}


def weight_id(layer: nn.Linear) -> int:
    """The same number for layers that share a weight; a weight that is recomputed is its layer's own."""
    return id(layer._parameters.get("weight", layer))


def output_loss(weight: Tensor, changed: Tensor, hessian: Tensor) -> float:
    """The squared error of all outputs where `changed` stands for `weight`: 1/2 tr((W - W') H (W - W')^T).

    >>> x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.25]])
    >>> output_loss(weight, torch.zeros(1, 2), hessian=2 * x.t() @ x)  # the output was 1
    1.0

    (N, K), (N, K) and (K, K) floats. Summed over the rows that entered the layer, and over its outputs.
    """
    error = weight - changed
    return float(torch.sum((error @ hessian) * error)) / 2


def checked_problem(weight: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (N, K) and a Hessian (K, K) that belong together, in the dtype to compute in, or an error."""
    for name, matrix in (("weight", weight), ("hessian", hessian)):
        if not isinstance(matrix, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {describe(matrix)}")
        require_finite(*real_array(matrix, name), name)
    if weight.ndim != 2:
        raise ValueError(f"weight must have two axes (outputs, inputs), got shape {tuple(weight.shape)}")
    length = weight.shape[1]
    if tuple(hessian.shape) != (length, length):
        raise ValueError(
            f"hessian must have shape {(length, length)}, as the weight's inputs, got {tuple(hessian.shape)}"
        )
    dtype = working_dtype(torch, weight)
    hessian = hessian.detach().to(weight.device)
    diagonal = hessian.diagonal()
    if bool((diagonal < 0).any()):
        raise ValueError(
            f"hessian must not be negative on its diagonal, a sum of squares, got {float(diagonal.min()):g}"
        )
    if float((hessian - hessian.t()).abs().max()) > 1e-3 * float(diagonal.max()):
        raise ValueError("hessian must be symmetric, as 2 X^T X is")
    return weight.detach().to(dtype), hessian


def _require_all(sums: Mapping[int, Tensor], weights: Mapping[str, int]) -> None:
    unreached = [name for name, weight in weights.items() if weight not in sums]
    if not unreached:
        return
    if not sums:
        raise ValueError("nothing entered the linear layers: batches must hold at least one batch, and run must run it")
    raise ValueError(f"{', '.join(unreached)}: no batch came here; calibrate with batches that do, or name it in skip")
