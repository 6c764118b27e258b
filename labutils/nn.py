"""Linear layers with integer weights, and a model's copy made of them.

| layer | weight | activations | multiplies |
|---|---|---|---|
| `QuantizedLinear` | codes, any `Scheme` | float | floats: the weight is dequantized at each call |
| `Int8Linear` | 8 bits, a scale for each output | 8 bits, a scale and zero point for each row | integers |
| `PackedLinear` | 2 to 8 bits in real bytes, groups | float | on torch's int4 kernel where it fits, else floats |

They are for inference: what they hold are buffers, and no gradient reaches a weight. They go through `state_dict`,
`deepcopy`, `pickle`, `.to()` and safetensors like any layer; what is saved does not depend on the machine.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from labutils import affine, kernels, packing
from labutils.scheme import PerAxis, PerGroup, Scheme, bit_width, real_number, whole_number

Tensor = torch.Tensor
Convert = Scheme | Callable[[nn.Linear], nn.Module]  # how a linear layer is replaced

PER_CHANNEL = Scheme(8, granularity=PerAxis(0))
GROUPS = Scheme(4, granularity=PerGroup(128))


# --- layers -----------------------------------------------------------------------------------------------------------


class _Linear(nn.Module):
    """What the three layers have in common: y = x @ weight.T + bias for x of shape (..., in_features)."""

    def __init__(self, linear: nn.Linear):
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"expected an nn.Linear, got {type(linear).__name__}")
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) floats -> (..., out_features), in the dtype of `x`."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"x must be a float tensor, got {kernels.what(x)}")
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must have shape (..., {self.in_features}), got {tuple(x.shape)}")
        rows = x.reshape(-1, self.in_features)
        y = self._multiply(rows) if len(rows) else rows.new_empty(0, self.out_features)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class QuantizedLinear(_Linear):
    """Integer weights, float activations (W8A16): the codes are dequantized at each call, and floats are multiplied.

    >>> layer = QuantizedLinear.from_float(nn.Linear(512, 256))
    >>> layer, layer.memory_bytes()
    (QuantizedLinear(512, 256, bias=True, int8 codes, 8 bits, PerAxis(axis=0)), 133120)

    131,072 codes of a byte, 256 scales and 256 biases of 4. Smaller than float, and slower: dequantizing comes on top.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = PER_CHANNEL):
        super().__init__(linear)
        quantized = affine.quantize(linear.weight, scheme)
        self.scheme = scheme
        self.register_buffer("codes", quantized.codes)
        self.register_buffer("scale", quantized.scale)
        self.register_buffer("zero_point", None if scheme.symmetric else quantized.zero_point)

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = PER_CHANNEL) -> QuantizedLinear:
        """The layer with `linear`'s weight under `scheme`, and a copy of its bias; `linear` stays as it is."""
        return cls(linear, scheme)

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized: (out_features, in_features) in the dtype of `scale`."""
        zero_point = 0 if self.zero_point is None else self.zero_point
        return affine.dequantize(
            affine.QuantizedArray(self.codes, self.scale, zero_point, self.scheme, self.scale.dtype)
        )

    def memory_bytes(self) -> int:
        """Bytes of all buffers: codes, scales, zero points, bias."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def _multiply(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.weight.to(rows.dtype))

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """`.half()` and its like go past the scale: 16 bits would round it, and turn 1e-8 into 0."""
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.codes.device)
        return self

    def extra_repr(self) -> str:
        dtype = str(self.codes.dtype).removeprefix("torch.")
        return f"{super().extra_repr()}, {dtype} codes, {_described(self.scheme)}"


class _HeldLinear(_Linear):
    """A layer whose weight is held as a kernel wants it, and saved in plain form (see `kernels`)."""

    _weights: Any  # a kernels.Int8Weights, PackedWeights or Int4Weights

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized: (out_features, in_features) float32."""
        return self._weights.dequantize()

    @property
    def kernel(self) -> str:
        """What multiplies here; `kernels.report()` says why."""
        return self._weights.kernel

    def memory_bytes(self) -> int:
        """Bytes held: codes, scales, zero points as the kernel wants them, and the bias."""
        return self._weights.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def _hold(self, plain: Mapping[str, Tensor]) -> Any:
        raise NotImplementedError

    def _multiply(self, rows: Tensor) -> Tensor:
        return self._weights.linear(rows.detach())

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: tensor for name, tensor in self._weights.plain().items()})

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        own = self._weights.plain()
        found = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        missing += [prefix + name for name in own if name not in found]
        for name, tensor in found.items():
            if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
                errors.append(f"{prefix}{name} must be {_form(own[name])}, got {_form(tensor)}")
        if len(found) == len(own) and not errors:
            self._weights = self._hold({name: tensor.to(self._weights.device) for name, tensor in found.items()})
        rest = {name: tensor for name, tensor in state_dict.items() if name.removeprefix(prefix) not in own}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """Only a move to another device concerns the weight: `.half()` and its like would spoil the scales."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, dtype=torch.int8, device=self._weights.device)).device
        if device != self._weights.device:
            self._weights = self._hold({name: tensor.to(device) for name, tensor in self._weights.plain().items()})
        return self

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_weights": {name: tensor.clone() for name, tensor in self._weights.plain().items()}}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._weights = self._hold(self._weights)


class Int8Linear(_HeldLinear):
    """Integers by integers (W8A8): each row of activations is quantized as it comes, products add up in int32.

    >>> layer = Int8Linear.from_float(nn.Linear(512, 256))
    >>> layer.memory_bytes()
    134144

    A byte for each weight, and 12 for each output: its scale, its bias, and the sum of its weights, by which the zero
    points of activations are accounted for. A row of `x` that holds NaN or Inf comes out not finite, and alone.
    Computes in float32 whatever the dtype of `x`.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        quantized = affine.quantize(linear.weight, PER_CHANNEL)
        self._weights = self._hold({"codes": quantized.codes, "scale": quantized.scale})

    @classmethod
    def from_float(cls, linear: nn.Linear) -> Int8Linear:
        """The layer with `linear`'s weight in 8 bits, a scale for each output; `linear` stays as it is."""
        return cls(linear)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.Int8Weights:
        return kernels.Int8Weights(**plain)

    def _multiply(self, rows: Tensor) -> Tensor:
        return super()._multiply(rows.to(torch.float32))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, int8 by int8, kernel: {self.kernel}"


class PackedLinear(_HeldLinear):
    """Weights of 2 to 8 bits without a bit between them, in groups, with 16-bit scales; float activations (W4A16).

    >>> layer = PackedLinear.from_float(nn.Linear(512, 256, bias=False), Scheme(3, granularity=PerGroup(64)))
    >>> layer.memory_bytes() * 8 / (512 * 256)  # 3 + 16 / 64
    3.25

    Scales are rounded up to bfloat16, so that no weight is clipped for it.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = GROUPS):
        super().__init__(linear)
        self.scheme = _in_groups(scheme, linear)
        scale, zero_point = affine.choose_qparams(linear.weight, self.scheme)
        scale = _up_to_bfloat16(scale)
        quantized = affine.quantize(linear.weight, self.scheme, (scale.to(torch.float32), zero_point))
        plain = {"packed": packing.pack(quantized.codes, scheme.num_bits), "scale": scale}
        self._weights = self._hold(plain if scheme.symmetric else plain | {"zero_point": zero_point.to(torch.uint8)})

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = GROUPS) -> PackedLinear:
        """The layer with `linear`'s weight packed under `scheme`: groups, or PerAxis(0) for a group each row."""
        return cls(linear, scheme)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.PackedWeights | kernels.Int4Weights:
        return kernels.hold_packed(**({"zero_point": None} | plain), scheme=self.scheme, length=self.in_features)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, packed, {_described(self.scheme)}, kernel: {self.kernel}"


def _in_groups(scheme: Scheme, linear: nn.Linear) -> Scheme:
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, got {scheme!r}")
    if isinstance(scheme.granularity, PerGroup):
        return scheme
    if scheme.granularity not in (PerAxis(0), PerAxis(-2)):
        raise ValueError(f"a packed weight has groups or PerAxis(0), got {scheme.granularity}")
    return Scheme(scheme.num_bits, scheme.symmetric, PerGroup(linear.in_features), scheme.clip)


def _up_to_bfloat16(scale: Tensor) -> Tensor:
    rounded = scale.to(torch.bfloat16)
    return torch.where(rounded < scale, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded)


def _described(scheme: Scheme) -> str:
    return f"{scheme.num_bits} bits, {scheme.granularity}" + ("" if scheme.symmetric else ", asymmetric")


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


# --- models -----------------------------------------------------------------------------------------------------------


def quantize_model(
    model: nn.Module,
    convert: Convert = PER_CHANNEL,
    rules: Mapping[str, Convert | None] | None = None,
    skip: Iterable[str] = (),
) -> nn.Module:
    """A copy of `model` with its linear layers replaced; `model` itself stays as it is.

    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> quantize_model(model, Scheme(4, granularity=PerGroup(32)), rules={"2": Int8Linear})
    Sequential(
      (0): PackedLinear(64, 64, bias=True, packed, 4 bits, PerGroup(group_size=32), kernel: ...)
      (1): ReLU()
      (2): Int8Linear(64, 10, bias=True, int8 by int8, kernel: ...)
    )

    convert  a Scheme for the weight (8 bits and more: QuantizedLinear, below: PackedLinear), or any function from an
             nn.Linear to the module that replaces it, such as Int8Linear
    rules    name -> what to do there instead, None to leave it in float; "encoder.*" is all names that begin so; the
             first rule that fits holds
    skip     names, in the same way, to leave in float

    The float weights of replaced layers are not copied. A layer used in several places is replaced once; layers that
    share a weight go on sharing it. A layer whose weight also serves another kind of module, such as an embedding,
    stays in float unless a rule names it: its float weight would be kept anyway. Subclasses of nn.Linear stay too, for
    they use their weight in ways of their own. ValueError for a model without linear layers and for names that no
    linear layer has; TypeError for what is no module, Scheme or function.
    """
    layers = linear_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
    choices = _choices(layers, convert, dict(rules or {}), skip, _tied_elsewhere(model))
    memo: dict[int, nn.Module] = {}  # what deepcopy puts in place of a layer, wherever it finds it
    weights: dict[tuple[int, Convert], nn.Module] = {}
    for name, choice in choices.items():
        layer = layers[name]
        if choice is None or id(layer) in memo:
            continue
        try:
            replaced = _replacement(layer, choice)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        _share(replaced, weights.setdefault((id(layer.weight), choice), replaced))
        memo[id(layer)] = replaced.train(layer.training)
    return copy.deepcopy(model, memo)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Name -> layer, for all nn.Linear of a model, in its order; a layer used in two places has two names.

    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))))
    ['0', '1.1']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if type(module) is nn.Linear}


def model_bytes(model: nn.Module) -> int:
    """Bytes that the parameters, buffers and integer weights of a model take; what is shared counts once.

    >>> model = nn.Linear(1024, 1024, bias=False)
    >>> model_bytes(model), model_bytes(quantize_model(model))
    (4194304, 1052672)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    held = {}
    for tensor in _plain_tensors([*model.parameters(), *model.buffers()]):
        storage = tensor.untyped_storage()
        held[storage.data_ptr() or id(tensor)] = storage.nbytes()
    for module in model.modules():
        if isinstance(module, _HeldLinear):
            held[id(module._weights)] = module._weights.nbytes
    return sum(held.values())


def _plain_tensors(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that hold the bytes: inside a wrapper such as torchao's, which has none of its own."""
    for tensor in tensors:
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _plain_tensors(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor


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
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    if not names:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
    best = float(score(model))
    falls = {}
    for name in progress(names):
        falls[name] = best - float(score(quantize_model(model, convert, rules={name: convert, "*": None})))
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


def _choices(
    layers: Mapping[str, nn.Linear],
    convert: Convert,
    rules: dict[str, Convert | None],
    skip: Iterable[str],
    left: set[int],
) -> dict[str, Convert | None]:
    """Name -> how it is replaced, or None for float."""
    skip = [skip] if isinstance(skip, str) else list(skip)
    rules = dict.fromkeys(skip) | rules
    for pattern, choice in {"convert": convert, **rules}.items():
        if choice is not None and not isinstance(choice, Scheme) and not callable(choice):
            raise TypeError(f"{pattern}: expected a Scheme or a function of a layer, got {choice!r}")
    for pattern in rules:
        if not any(fnmatchcase(name, pattern) for name in layers):
            near = difflib.get_close_matches(pattern, layers, n=3) or list(layers)[:3]
            raise ValueError(f"no linear layer is called {pattern!r}; there are {', '.join(near)}")
    choices: dict[str, Convert | None] = {}
    by_layer: dict[int, str] = {}
    for name, layer in layers.items():
        fitting = [choice for pattern, choice in rules.items() if fnmatchcase(name, pattern)]
        choices[name] = fitting[0] if fitting else None if id(layer) in left else convert
        first = by_layer.setdefault(id(layer), name)
        if choices[first] != choices[name]:
            raise ValueError(f"{first} and {name} are one and the same layer, but the rules treat them differently")
    return choices


def _tied_elsewhere(model: nn.Module) -> set[int]:
    """The ids of linear layers whose weight is also that of a module of another kind."""
    owners = [(module, weight) for module in model.modules() for weight in module.parameters(recurse=False)]
    others = {id(weight) for module, weight in owners if type(module) is not nn.Linear}
    return {id(module) for module, _ in owners if type(module) is nn.Linear and id(module.weight) in others}


def _replacement(layer: nn.Linear, choice: Convert) -> nn.Module:
    if isinstance(choice, Scheme):
        return (PackedLinear if choice.num_bits < 8 else QuantizedLinear)(layer, choice)
    replaced = choice(layer)
    if not isinstance(replaced, nn.Module):
        raise TypeError(f"{choice} should make an nn.Module of a layer, got {type(replaced).__name__}")
    return replaced


def _share(layer: nn.Module, first: nn.Module) -> None:
    """Let two layers made of one weight hold it together."""
    if layer is first:
        return
    if isinstance(layer, _HeldLinear):
        layer._weights = first._weights
    elif isinstance(layer, QuantizedLinear):
        layer.codes, layer.scale, layer.zero_point = first.codes, first.scale, first.zero_point
