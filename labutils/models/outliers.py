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

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from labutils.arrays import affine
from labutils.arrays.inputs import positive_number
from labutils.arrays.scheme import PerAxis, PerTensor, Scheme
from labutils.models.conversion import linear_layers, quantize_model
from labutils.models.kernels import what
from labutils.models.layers import PER_CHANNEL, Int8Linear

Tensor = torch.Tensor


# --- seeing them ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Observed:
    """What entered the linear layers of a model.

    maxima  name of a layer -> (in_features,), the largest magnitude in each channel
    inputs  name of a layer that was to be kept -> (rows, in_features), every row that came
    """

    maxima: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def observe(model: nn.Module, keep: Iterable[str] = ()) -> Iterator[Observed]:
    """Watch what enters every linear layer while the model runs, one batch after the other; batches are not stored.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> with observe(model) as seen:
    ...     for batch in (torch.tensor([[1.0, -3.0]]), torch.tensor([[-2.0, 0.5], [0.0, 1.0]])):
    ...         y = model(batch)
    >>> seen.maxima["0"]
    tensor([2., 3.])

    The maxima are complete when the block ends; what watches is removed then, also after an error. Inputs are kept
    only of the layers that `keep` names. ValueError where a layer's input holds NaN or Inf (it is named), where nothing
    ran, for a model without linear layers, and for a name that no linear layer has.
    """
    layers, keep = linear_layers(model), [keep] if isinstance(keep, str) else list(keep)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to observe")
    for name in keep:
        if name not in layers:
            raise ValueError(f"no linear layer is called {name!r}; there are {', '.join(list(layers)[:3])}, ...")
    seen, kept = Observed(), {name: [] for name in keep}

    def look(layer: nn.Linear, args: tuple, kwargs: dict, name: str) -> None:
        rows = (args[0] if args else kwargs["input"]).detach().reshape(-1, layer.in_features)
        if len(rows):
            peaks = rows.abs().amax(0)
            if not peaks.isfinite().all():
                raise ValueError(f"{name}: its input holds NaN or Inf")
            seen.maxima[name] = torch.maximum(seen.maxima[name], peaks) if name in seen.maxima else peaks
            if name in kept:
                kept[name].append(rows.clone())

    handles = [
        layer.register_forward_pre_hook(partial(look, name=name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    if not seen.maxima:
        raise ValueError("nothing was observed: run the model on calibration data inside the `with` block")
    seen.inputs.update({name: torch.cat(rows) for name, rows in kept.items() if rows})


def replace_linears(
    model: nn.Module, maxima: Mapping[str, Tensor], make: Callable[[nn.Linear, Tensor], nn.Module]
) -> nn.Module:
    """A copy of `model`, each linear layer replaced by make(layer, its maxima); `model` itself stays as it is.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> with observe(model) as seen:
    ...     y = model(torch.randn(8, 2))
    >>> type(replace_linears(model, seen.maxima, StaticInt8Linear)[2]).__name__
    'StaticInt8Linear'

    `maxima` are those of `observe`. ValueError for a layer that it did not see.
    """
    layers = linear_layers(model)
    unseen = [name for name in layers if name not in maxima]
    if unseen:
        raise ValueError(f"{', '.join(unseen)}: never observed, so nothing is known of what enters there")
    choices = {id(layer): _bound(make, maxima[name]) for name, layer in layers.items()}  # a shared layer has one
    return quantize_model(model, rules={name: choices[id(layer)] for name, layer in layers.items()})


def _bound(make: Callable[[nn.Linear, Tensor], nn.Module], input_max: Tensor) -> Callable[[nn.Linear], nn.Module]:
    return lambda layer: make(layer, input_max)


# --- what suffers from them -------------------------------------------------------------------------------------------


class StaticInt8Linear(Int8Linear):
    """Integers by integers, and one scale for all activations, fixed before the first of them comes (W8A8, static).

    >>> layer = StaticInt8Linear(nn.Linear(512, 256), input_max=torch.tensor(6.35))
    >>> layer.input_scale
    tensor(0.0500)

    input_max  the largest magnitude to be represented, or those of the channels, of which the largest counts; what
               comes beyond is clamped to it
    scheme     of the weight: symmetric, 2 to 8 bits, PerAxis(0) or PerTensor(); activations have as many bits

    A row of `x` that holds NaN or Inf comes out NaN.
    """

    def __init__(self, linear: nn.Linear, input_max: Tensor, scheme: Scheme = PER_CHANNEL):
        super().__init__(linear)
        if scheme.num_bits > 8 or not scheme.symmetric or scheme.granularity not in (PerAxis(0), PerTensor()):
            raise ValueError(f"scheme must be symmetric, of 2 to 8 bits, with PerAxis(0) or PerTensor(), got {scheme}")
        _checked_maxima(input_max, linear.in_features)
        self.scheme = scheme
        weight = affine.quantize(linear.weight, scheme)
        scale = weight.scale.to(torch.float32).expand(self.out_features).clone()
        self._weights = self._hold({"codes": weight.codes, "scale": scale})
        largest = input_max.detach().max().to(torch.float32)
        self.register_buffer("input_scale", torch.where(largest > 0, largest / scheme.quant_max, 1.0))

    @classmethod
    def from_float(cls, linear: nn.Linear, input_max: Tensor) -> StaticInt8Linear:
        """The layer with `linear`'s weight in 8 bits; `linear` stays as it is."""
        return cls(linear, input_max)

    def _multiply(self, rows: Tensor) -> Tensor:
        limit = self.scheme.quant_max
        rows = rows.detach().to(torch.float32)
        spoilt = rows.abs().amax(1, keepdim=True) * 0  # 0, or NaN where a row holds NaN or Inf: integers cannot say so
        codes = (rows / self.input_scale).round_().clamp_(-limit, limit).nan_to_num_().add_(128).to(torch.uint8)
        return self._weights.multiply(codes, zero_point=128).mul_(self.input_scale).add_(spoilt)

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """`.half()` and its like go past the scale, as they do in the other integer layers."""
        scale = self.input_scale
        super()._apply(fn, recurse)
        self.input_scale = scale.to(self.input_scale.device)
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.scheme.num_bits} bits, one activation scale"


# --- smoothing --------------------------------------------------------------------------------------------------------


class Divide(nn.Module):
    """x / scales, channel by channel along the last axis.

    >>> Divide(torch.tensor([8.0, 2.0]))(torch.tensor([[16.0, -1.0]]))
    tensor([[ 2.0000, -0.5000]])
    """

    def __init__(self, scales: Tensor):
        super().__init__()
        self.register_buffer("scales", _checked_scales(scales, None).clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> (..., channels)."""
        return x / self.scales.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{len(self.scales)}"


def smooth_linear(linear: nn.Linear, scales: Tensor) -> nn.Sequential:
    """The reference of lab 08: see `labs.lab08.smooth_linear`."""
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"expected an nn.Linear, got {type(linear).__name__}")
    scales = _checked_scales(scales, linear.in_features)
    return nn.Sequential(Divide(scales), _with_columns_times(linear, scales))


def fold_division(before: nn.Module, scales: Tensor) -> nn.Module:
    """The reference of lab 08's stretch exercise: see `labs.lab08.fold_division`."""
    if not isinstance(before, (nn.LayerNorm, nn.RMSNorm, nn.Linear)):
        raise TypeError(
            f"a division folds into an nn.LayerNorm, nn.RMSNorm or nn.Linear, not into {type(before).__name__}: "
            "divide at the layer's input instead, with smooth_linear"
        )
    if before.weight is None:
        raise ValueError(f"{before} has no weight to divide: divide at the layer's input instead, with smooth_linear")
    if before.weight.ndim != 1 and not isinstance(before, nn.Linear):
        raise ValueError(f"the norm must act on the last axis alone, got {before}")
    scales = _checked_scales(scales, len(before.weight))
    folded = copy.deepcopy(before)
    with torch.no_grad():
        folded.weight.div_(scales[:, None] if folded.weight.ndim == 2 else scales)  # a row, or one number, an output
        if getattr(folded, "bias", None) is not None:
            folded.bias.div_(scales)
    return folded


def rescale(before: nn.Module, after: nn.Linear, factors: Tensor) -> tuple[nn.Module, nn.Linear]:
    """Copies of two modules, the outputs of the first times `factors`, the second's columns divided by them.

    >>> value, output = nn.Linear(4, 4), nn.Linear(4, 2)
    >>> louder, quieter = rescale(value, output, torch.tensor([1.0, 1024.0, 1.0, 1.0]))
    >>> x = torch.randn(8, 4)
    >>> torch.equal(quieter(louder(x)), output(value(x)))
    True

    Powers of two change no digit, so the outputs are the same to the last bit, as long as nothing over- or underflows.
    What stands between the two must pass a factor through, channel by channel: nothing, a ReLU, or, from the values of
    an attention to its output layer, a weighted mean over tokens. Errors as in `fold_division`.
    """
    factors = _checked_scales(factors, after.in_features)
    return fold_division(before, 1 / factors), _with_columns_times(after, 1 / factors)


def _with_columns_times(linear: nn.Linear, scales: Tensor) -> nn.Linear:
    changed = copy.deepcopy(linear)
    with torch.no_grad():
        changed.weight.mul_(scales)
    return changed


# --- splitting --------------------------------------------------------------------------------------------------------


class SplitLinear(nn.Module):
    """Channels with an outlier in float, the others in integers with one activation scale (W8A8, static).

    >>> layer = SplitLinear(nn.Linear(4, 2), input_max=torch.tensor([1.0, 30.0, 2.0, 1.5]))
    >>> layer.channels, layer.regular.input_scale * 127
    (tensor([1]), tensor(2.))

    A channel is an outlier if its maximum, of `input_max` (in_features,), is above `threshold`. LLM.int8() looks at
    each batch anew and gives every row a scale of its own; here both are fixed beforehand, to be compared with
    `StaticInt8Linear`.
    """

    def __init__(self, linear: nn.Linear, input_max: Tensor, threshold: float = 6.0):
        super().__init__()
        _checked_maxima(input_max, linear.in_features)
        if tuple(input_max.shape) != (linear.in_features,):
            raise ValueError(f"input_max must have shape ({linear.in_features},), got {tuple(input_max.shape)}")
        outlier = input_max > positive_number(threshold, "threshold")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("channels", outlier.nonzero()[:, 0])
        self.register_buffer("others", (~outlier).nonzero()[:, 0])
        self.register_buffer("weight", linear.weight.detach()[:, outlier].clone())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self.regular = None  # where every channel is an outlier
        if len(self.others):
            rest = nn.Linear(len(self.others), linear.out_features, bias=False, device="meta")
            rest.weight = nn.Parameter(linear.weight.detach()[:, ~outlier], requires_grad=False)
            self.regular = StaticInt8Linear(rest, input_max[~outlier])

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) floats -> (..., out_features)."""
        y = functional.linear(x[..., self.channels], self.weight, self.bias)
        return y if self.regular is None else y + self.regular(x[..., self.others])

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {len(self.channels)} channels in float"


# --- what may come in -------------------------------------------------------------------------------------------------


def _checked_scales(scales: Tensor, length: int | None) -> Tensor:
    """Positive finite scales, as a vector of `length`."""
    if not isinstance(scales, Tensor) or not scales.is_floating_point():
        raise TypeError(f"scales must be a float tensor, got {what(scales)}")
    if scales.ndim != 1 or (length is not None and len(scales) != length):
        wanted = "one axis" if length is None else f"shape ({length},), one for each channel"
        raise ValueError(f"scales must have {wanted}, got {tuple(scales.shape)}")
    if not bool((scales.isfinite() & (scales > 0)).all()):
        raise ValueError("scales must be positive and finite everywhere")
    return scales.detach()


def _checked_maxima(input_max: Tensor, length: int) -> None:
    if not isinstance(input_max, Tensor) or not input_max.is_floating_point():
        raise TypeError(f"input_max must be a float tensor, got {what(input_max)}")
    if tuple(input_max.shape) not in ((), (length,)):
        raise ValueError(f"input_max must be one number or have shape ({length},), got {tuple(input_max.shape)}")
    if not bool((input_max.isfinite() & (input_max >= 0)).all()):
        raise ValueError("input_max must hold finite magnitudes, from 0 on")
