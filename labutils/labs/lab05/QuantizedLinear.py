"""QuantizedLinear."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs.lab05 import LESSON
from labutils.labs.lab05 import _layer as layer
from labutils.labs.lab05._head import head, pooled

Array = Any  # a numpy.ndarray or a torch.Tensor


# What it must do and keep is in `layer`. The wrong ones below are functions from an nn.Linear to a module: torch is
# imported when they are run.
def __getattr__(name: str) -> Any:
    if name == "QuantizedLinear":  # it brings torch, which the rest of this module does without
        from labutils.models.layers import QuantizedLinear

        return QuantizedLinear
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _layer_cases() -> list[Case]:
    rng = np.random.default_rng(55)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    weight, bias = head()
    hand = np.array([[0.5, -1.27, 0.1], [0.02, 0.03, -0.0254]], np.float32)
    uneven = normal(8, 8) * np.geomspace(0.01, 10, 8, dtype=np.float32)[:, None]
    silent = normal(4, 6)
    silent[2] = 0
    return [
        Case("the worked example", (hand, np.array([1.0, -1.0], np.float32), np.array([[1.0, 2.0, 0.5]], np.float32))),
        Case("the head of the digits network", (weight, bias, pooled())),
        Case("square, rows of differing size", (uneven, normal(8), normal(5, 8))),
        Case("no bias", (normal(4, 6), None, normal(3, 6))),
        Case("a row that is all zero", (silent, normal(4), normal(3, 6))),
        Case("one input", (normal(5, 1), normal(5), normal(3, 1))),
        Case("one output", (normal(1, 7), normal(1), normal(3, 7))),
        Case("x with one axis", (normal(4, 6), normal(4), normal(6))),
        Case("x with three axes", (normal(4, 6), normal(4), normal(2, 3, 6))),
        Case("an empty batch", (normal(4, 6), normal(4), normal(0, 6))),
        Case("the largest weights are negative", (-np.abs(normal(4, 6)), normal(4), normal(3, 6))),
        Case("tiny weights", (1e-9 * normal(4, 6), None, normal(3, 6))),
        Case("a layer of float64", (normal(4, 6), normal(4), normal(3, 6)), {"dtype": "float64"}),
        Case("a layer of bfloat16", (normal(4, 6), normal(4), normal(3, 6)), {"dtype": "bfloat16"}),
        Case("a layer of float16, square", (normal(6, 6), normal(6), normal(3, 6)), {"dtype": "float16"}),
    ]


def _layer(
    divide: Callable = lambda w: w.abs().amax(1, keepdim=True) / 127,
    steps: Callable = lambda ratio: ratio.round().clamp(-128, 127),
    hold: Callable = lambda layer, q, scale: _buffers(layer, q=q, scale=scale),
    keep_bias: Callable = lambda layer, linear: _buffers(layer, bias=_copied(linear.bias)),
    weight: Callable = lambda layer, x: (layer.q.to(layer.scale.dtype) * layer.scale).to(x.dtype),
    forward: Callable | None = None,
    told: Callable = lambda layer: sum(t.nbytes for t in [*layer.buffers(), *layer.parameters()]),
    zero: Callable = lambda scale: scale.masked_fill(scale == 0, 1),
    dtype: str = "int8",
    detach: bool = True,
    wide: bool = True,
    spoil: Callable = lambda linear, q, scale: None,
    returned: Callable = lambda layer: layer,
) -> Callable:
    """from_float of a layer in which one step can be replaced by a wrong one."""

    def from_float(linear):
        import torch

        class Layer(torch.nn.Module):
            def forward(self, x):
                if forward is not None:
                    return forward(self, x, weight(self, x))
                bias = None if self.bias is None else self.bias.to(x.dtype)
                return torch.nn.functional.linear(x, weight(self, x), bias)

            def memory_bytes(self):
                return told(self)

        layer = Layer()
        w = linear.weight.detach() if detach else linear.weight
        w = w.float() if wide and w.dtype != torch.float64 else w
        scale = zero(divide(w))
        q = steps(w / scale).to(getattr(torch, dtype))
        hold(layer, q, scale)
        keep_bias(layer, linear)
        spoil(linear, q, scale)
        return returned(layer)

    return from_float


def _buffers(layer: Any, **tensors: Any) -> None:
    for name, tensor in tensors.items():
        layer.register_buffer(name, tensor)


def _copied(bias: Any) -> Any:
    return None if bias is None else bias.detach().clone()


def _as_parameter(layer: Any, q: Any, scale: Any) -> None:
    import torch

    layer.q = torch.nn.Parameter(q, requires_grad=False)
    layer.register_buffer("scale", scale)


def _as_attributes(layer: Any, q: Any, scale: Any) -> None:
    layer.q, layer.scale = q, scale


def _codes_as_attribute(layer: Any, q: Any, scale: Any) -> None:
    layer.q = q
    layer.register_buffer("scale", scale)


def _scale_as_attribute(layer: Any, q: Any, scale: Any) -> None:
    layer.register_buffer("q", q)
    layer.scale = scale


def _linear_inside(quantize_at_each_call: bool) -> Callable:
    """The float layer is kept, and its weight rounded in place or at each call."""

    def from_float(linear):
        import torch

        class Layer(torch.nn.Module):
            def forward(self, x):
                return torch.nn.functional.linear(x, self.rounded().to(x.dtype), self.linear.bias)

            def rounded(self):
                if not quantize_at_each_call:
                    return self.linear.weight
                w = self.linear.weight
                w = w if w.dtype == torch.float64 else w.float()
                scale = w.abs().amax(1, keepdim=True) / 127
                scale = scale.masked_fill(scale == 0, 1)
                return (w / scale).round() * scale

            def memory_bytes(self):
                return sum(t.nbytes for t in self.parameters())

        layer = Layer()
        layer.linear = copy.deepcopy(linear)
        if not quantize_at_each_call:
            q = _layer()(linear)
            layer.linear.weight.data = (q.q * q.scale).to(linear.weight.dtype)
        return layer

    return from_float


def _share_bias(layer: Any, linear: Any) -> None:
    _buffers(layer, bias=None if linear.bias is None else linear.bias.detach())


def _share_parameter(layer: Any, linear: Any) -> None:
    layer.bias = linear.bias


def _rounded_bias(layer: Any, linear: Any) -> None:
    """The bias on the grid of the weight: 8 bits, the row's scale."""
    if linear.bias is None:
        return _buffers(layer, bias=None)
    scale = layer.scale.reshape(-1).to(linear.bias.dtype)
    rounded = (linear.bias.detach() / scale).round().clamp(-128, 127) * scale
    return _buffers(layer, bias=rounded.to(linear.bias.dtype))


def _own_grid_bias(layer: Any, linear: Any) -> None:
    """The bias in 8 bits with a scale of its own."""
    if linear.bias is None:
        return _buffers(layer, bias=None)
    bias = linear.bias.detach()
    scale = bias.abs().max() / 127
    return _buffers(layer, bias=(bias / scale).round() * scale)


def _then(change: Callable) -> Callable:
    """forward whose product, before the bias, is changed: change(layer, product, x)."""

    def forward(layer, x, weight):
        y = change(layer, x @ weight.t(), x)
        return y if layer.bias is None else y + layer.bias.to(y.dtype)

    return forward


def _with_bias_scaled(layer: Any, x: Any, weight: Any) -> Any:
    scale = layer.scale.reshape(-1).to(x.dtype)
    y = x @ layer.q.to(x.dtype).t()
    return (y if layer.bias is None else y + layer.bias.to(x.dtype)) * scale


def _in_float32(layer: Any, x: Any, weight: Any) -> Any:
    y = x.float() @ weight.float().t()
    return y if layer.bias is None else y + layer.bias.float()


def _not_transposed(layer: Any, x: Any, weight: Any) -> Any:
    y = x @ weight
    return y if layer.bias is None else y + layer.bias.to(y.dtype)


def _mm(layer: Any, x: Any, weight: Any) -> Any:
    y = x.mm(weight.t())
    return y if layer.bias is None else y + layer.bias.to(y.dtype)


def _flattened(layer: Any, x: Any, weight: Any) -> Any:
    y = x.reshape(-1, x.shape[-1]) @ weight.t()
    return y if layer.bias is None else y + layer.bias.to(y.dtype)


def _dequantized_once(layer: Any, q: Any, scale: Any) -> None:
    _buffers(layer, q=q * scale, scale=scale)


def _both(layer: Any, q: Any, scale: Any) -> None:
    _buffers(layer, q=q, scale=scale, held=q * scale)


def _emptied(linear: Any, q: Any, scale: Any) -> None:
    linear.weight.data = (q * scale).to(linear.weight.dtype)


def _bytes_of(*names: str, of: Callable = lambda tensor: tensor.nbytes) -> Callable:
    return lambda layer: sum(of(getattr(layer, name)) for name in names if getattr(layer, name) is not None)


SAVED = (
    "codes or scales are plain attributes",
    "`self.q = tensor` is an attribute that PyTorch does not know: it stays behind when the layer moves to another "
    "device, and is missing from the file. `register_buffer` tells it.",
)


STILL_FLOAT = (
    "the float weight is still there",
    "A rounded float takes as many bytes as any other. Hold the codes, in int8, and the scales; make floats of them in "
    "`forward`.",
)


SHARES = (
    "the bias is the float layer's own",
    "`detach()` gives another view of the same memory. When the float layer is trained on, this layer changes with it. "
    "Copy it.",
)


COUNTS = (
    "Ask each tensor that you hold for its `nbytes`, or count elements times `element_size()`: codes, scales, bias."
)


BIAS = (
    "the bias is quantized away",
    "The bias has one number for each output: it saves next to nothing in 8 bits, and its error goes straight into "
    "every result. Keep it as it is.",
)


QUANTIZED_LINEAR = (
    Misconception(SAVED[0], _layer(hold=_as_attributes), SAVED[1]),
    Misconception(SAVED[0], _layer(hold=_codes_as_attribute), SAVED[1]),
    Misconception(SAVED[0], _layer(hold=_scale_as_attribute), SAVED[1]),
    Misconception(
        "the codes are a Parameter",
        _layer(hold=_as_parameter),
        "A Parameter is what an optimizer trains, and what `.half()` converts. Codes are neither: make them a buffer.",
    ),
    Misconception(STILL_FLOAT[0], _linear_inside(True), STILL_FLOAT[1]),
    Misconception(STILL_FLOAT[0], _linear_inside(False), STILL_FLOAT[1]),
    Misconception(
        "dequantized once, and kept as floats",
        _layer(hold=_dequantized_once, weight=lambda layer, x: layer.q.to(x.dtype)),
        "The floats that `from_float` made of the codes are what the layer holds, so nothing got smaller. Hold the "
        "codes, and dequantize in `forward`.",
    ),
    Misconception(
        "floats are kept beside the codes",
        _layer(hold=_both, weight=lambda layer, x: layer.held.to(x.dtype)),
        "The codes are there, and the floats made of them as well: five bytes a weight. Dequantize in `forward`, and "
        "let the result go.",
    ),
    Misconception(
        "codes held as floats",
        _layer(dtype="float32"),
        "`round` gives whole numbers, but in float32 they take four bytes each. Cast them to int8.",
    ),
    Misconception(
        "codes wider than they need to be",
        _layer(dtype="int32"),
        "Codes from -128 to 127 fit into int8. int32 takes four bytes for each.",
    ),
    Misconception(
        "codes wider than they need to be",
        _layer(dtype="int16"),
        "Codes from -128 to 127 fit into int8. int16 takes two bytes for each.",
    ),
    Misconception(
        "unsigned codes",
        _layer(dtype="uint8", steps=lambda ratio: ratio.round() % 256),
        "Symmetric codes are signed: uint8 turns -1 into 255. Cast to int8.",
    ),
    Misconception(SHARES[0], _layer(keep_bias=_share_bias), SHARES[1]),
    Misconception(SHARES[0], _layer(keep_bias=_share_parameter), SHARES[1]),
    Misconception(
        "the float layer is changed",
        _layer(spoil=_emptied),
        "The rounded weights were written into the layer given. Its owner still needs it: write to your own only.",
    ),
    Misconception(
        "the bias is left out",
        _layer(forward=lambda layer, x, weight: x @ weight.t()),
        "A linear layer ends with `+ bias`, where it has one. Keep a copy, and add it.",
    ),
    Misconception(BIAS[0], _layer(keep_bias=_rounded_bias), BIAS[1]),
    Misconception(BIAS[0], _layer(keep_bias=_own_grid_bias), BIAS[1]),
    Misconception(
        "one scale for the whole matrix",
        _layer(divide=lambda w: w.abs().max().reshape(1, 1) / 127),
        "The largest weight of all sets one scale, and quiet rows lose. Take the maximum of each row: a scale for each "
        "output (lab 03).",
    ),
    Misconception(
        "a scale for each input",
        _layer(divide=lambda w: w.abs().amax(0, keepdim=True) / 127),
        "The maximum was taken along axis 0, which leaves a scale for each input. That one could never leave the sum. "
        "Take it along the inputs, so that each output keeps one.",
    ),
    Misconception(
        "the scales lie along the inputs",
        _layer(weight=lambda layer, x: (layer.q * layer.scale.reshape(-1)).to(x.dtype)),
        "Shape (N,) lines up with the last axis, the inputs. Each row has a scale, so they need shape (N, 1).",
    ),
    Misconception(
        "the scale is applied twice",
        _layer(forward=_then(lambda layer, y, x: y * layer.scale.reshape(-1).to(x.dtype))),
        "The weight was dequantized, scale and all, and then the result was scaled again. Do one of the two.",
    ),
    Misconception(
        "the scale is never applied",
        _layer(weight=lambda layer, x: layer.q.to(x.dtype)),
        "The codes were multiplied as if they were weights. Each output counts in steps of its scale.",
    ),
    Misconception(
        "divides by the scale",
        _layer(weight=lambda layer, x: (layer.q / layer.scale).to(x.dtype)),
        "A code counts steps of `scale`. To get back, multiply.",
    ),
    Misconception(
        "the bias is scaled, too",
        _layer(forward=_with_bias_scaled),
        "The scale belongs to the product. The bias is in the units of the result already: add it afterwards.",
    ),
    Misconception(
        "a smallest scale flattens tiny weights",
        _layer(zero=lambda scale: scale.clamp(min=1e-8)),
        "Weights of 1e-9 all became 0, for 1e-8 was the smallest scale. Replace only a scale of exactly 0.",
    ),
    Misconception(
        "an epsilon added to the scale",
        _layer(zero=lambda scale: scale + 1e-8),
        "Adding to every scale bends all of them, and ruins tiny weights. Replace only a scale of exactly 0.",
    ),
    Misconception(
        "truncation instead of round",
        _layer(steps=lambda ratio: ratio.trunc()),
        "Casting to int8 cuts the fraction off: 1.9 becomes 1. Round before you cast.",
    ),
    Misconception(
        "divides by 128",
        _layer(divide=lambda w: w.abs().amax(1, keepdim=True) / 128),
        "The largest code is 127. A row whose largest weight is positive then loses a whole step.",
    ),
    Misconception(
        "max(w) instead of max|w|",
        _layer(divide=lambda w: w.amax(1, keepdim=True).abs() / 127),
        "The scale must cover the largest magnitude of the row, and that may be a negative weight.",
    ),
    Misconception(
        "codes meet floats",
        _layer(forward=lambda layer, x, weight: x @ layer.q.t()),
        "PyTorch multiplies two tensors of one dtype only. Make floats of the codes, times their scales, before "
        "they meet x.",
    ),
    Misconception(
        "the result is float32, whatever came",
        _layer(forward=_in_float32),
        "A model in bfloat16 goes on in bfloat16. Make the weight of the dtype of x, or give the result back in it.",
    ),
    Misconception(
        "the weight is float32, whatever came",
        _layer(weight=lambda layer, x: layer.q.float() * layer.scale.float()),
        "x and the weight must have one dtype to be multiplied. x may be float16, bfloat16 or float64: cast the "
        "dequantized weight to the dtype of x.",
    ),
    Misconception(
        "the weight is not transposed",
        _layer(forward=_not_transposed),
        "A weight is (out, in), and x is (..., in): the product is x @ weight.T.",
    ),
    Misconception(
        "only matrices can come in",
        _layer(forward=_mm),
        "`mm` takes two matrices. x may have one axis, or three. `@` and `functional.linear` take them all.",
    ),
    Misconception(
        "the result is flattened",
        _layer(forward=_flattened),
        "Whatever axes come before the last one must be there again in the result.",
    ),
    Misconception(
        "codes are computed in 16 bits",
        _layer(wide=False, steps=lambda ratio: ratio.round()),
        "bfloat16 has 8 significant bits, no more than a code: the largest weight over its scale may come out as 128, "
        "which int8 does not know. Cast the weight to float32 before you choose scales and codes.",
    ),
    Misconception(
        "the scales still belong to autograd",
        _layer(detach=False),
        "The scales were computed from a Parameter, so autograd keeps their history, and `deepcopy` refuses. Start "
        "from `linear.weight.detach()`.",
    ),
    Misconception(
        "from_float returns nothing",
        _layer(returned=lambda layer: None),
        "The layer was made and then dropped: hand it back at the end.",
    ),
    Misconception("memory_bytes leaves out the scales", _layer(told=_bytes_of("q", "bias")), COUNTS),
    Misconception("memory_bytes leaves out the bias", _layer(told=_bytes_of("q", "scale")), COUNTS),
    Misconception("memory_bytes counts the codes only", _layer(told=_bytes_of("q")), COUNTS),
    Misconception(
        "memory_bytes counts elements",
        _layer(told=_bytes_of("q", "scale", "bias", of=lambda t: t.numel())),
        "A code takes one byte, a scale four. Multiply each count by its element size.",
    ),
    Misconception(
        "memory_bytes counts bits",
        _layer(told=_bytes_of("q", "scale", "bias", of=lambda t: 8 * t.nbytes)),
        "That is bits. Eight of them make a byte.",
    ),
    Misconception(
        "memory_bytes counts floats",
        _layer(told=_bytes_of("q", "scale", "bias", of=lambda t: 4 * t.numel())),
        "A code takes one byte, not four. That is why we are here.",
    ),
    Misconception("memory_bytes counts Parameters only", _layer(told=lambda layer: 0), COUNTS),
)


def _reference_layer(linear: Any) -> Any:
    """The reference, without torch until it is used."""
    from labutils.models.layers import QuantizedLinear

    return QuantizedLinear.from_float(linear)


_reference_layer.__name__ = "QuantizedLinear"


EXERCISE = Exercise(
    name="QuantizedLinear",
    lab=LESSON,
    place=20,
    points=4,
    reference=_reference_layer,
    cases=_layer_cases,
    read=layer.read,
    judge=layer.judge,
    misconceptions=QUANTIZED_LINEAR,
    run=layer.look,
)
