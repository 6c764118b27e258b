"""QuantizedLinear: a layer that holds 8-bit codes, a scale for each output and the bias.

How a layer is examined is in `_layer`. The mistakes are functions from an nn.Linear to a module. torch is imported
where they run, so that the exercises can be listed without it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils import models
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs.lab05 import LESSON, _layer
from labutils.labs.lab05._head import head, pooled
from labutils.labs.recipes import Recipe


def __getattr__(name: str) -> Any:
    if name == "QuantizedLinear":
        return models.QuantizedLinear
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def reference(linear: Any) -> Any:
    return models.QuantizedLinear.from_float(linear)


reference.__name__ = "QuantizedLinear"


def cases() -> list[Case]:
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
        Case("x of bfloat16, the layer float32", (normal(4, 6), normal(4), normal(3, 6)), {"x_dtype": "bfloat16"}),
    ]


def at_least_float32(weight):
    import torch

    return weight if weight.dtype == torch.float64 else weight.float()


def buffers(layer, **tensors):
    for name, tensor in tensors.items():
        layer.register_buffer(name, tensor)


def attributes(layer, **tensors):
    for name, tensor in tensors.items():
        setattr(layer, name, tensor)


def hold_bias(layer, bias):
    import torch

    (attributes if isinstance(bias, torch.nn.Parameter) else buffers)(layer, bias=bias)


def torch_linear(x, weight, bias):
    import torch

    return torch.nn.functional.linear(x, weight, bias)


def linear(layer, x, weight):
    return torch_linear(x, weight, None if layer.bias is None else layer.bias.to(x.dtype))


def plus_bias(layer, y):
    return y if layer.bias is None else y + layer.bias.to(y.dtype)


def scaled(layer, y):
    return y * layer.scale.reshape(-1).to(y.dtype)


@dataclass(frozen=True)
class Layer(Recipe):
    """A quantized layer made of an nn.Linear, as `from_float` does it.

    w = floats(linear.weight), scale = floor(span(w) / divisor), q = to_codes(w / scale) in `dtype`; `hold` and `bias`
    say what the layer keeps of them, and forward(layer, x, weight(layer, x)) and `memory_bytes` are its methods.
    """

    floats: Callable = lambda weight: at_least_float32(weight.detach())
    span: Callable = lambda w: w.abs().amax(1, keepdim=True)
    divisor: float = 127
    floor: Callable = lambda scale: scale.masked_fill(scale == 0, 1)
    to_codes: Callable = lambda steps: steps.round().clamp(-128, 127)
    dtype: str = "int8"  # of the codes
    hold: Callable = lambda layer, q, scale: buffers(layer, q=q, scale=scale)
    bias: Callable = lambda bias, scale: bias.detach().clone()
    weight: Callable = lambda layer, x: (layer.q.to(layer.scale.dtype) * layer.scale).to(x.dtype)
    forward: Callable = linear
    memory_bytes: Callable = lambda layer: sum(t.nbytes for t in [*layer.buffers(), *layer.parameters()])

    def __call__(self, linear):
        import torch

        recipe = self

        class Layer(torch.nn.Module):
            def forward(self, x):
                return recipe.forward(self, x, recipe.weight(self, x))

            def memory_bytes(self):
                return recipe.memory_bytes(self)

        layer = Layer()
        w = self.floats(linear.weight)
        scale = self.floor(self.span(w) / self.divisor)
        self.hold(layer, self.to_codes(w / scale).to(getattr(torch, self.dtype)), scale)
        hold_bias(layer, None if linear.bias is None else self.bias(linear.bias, scale))
        return layer


right = Layer()


def scale_as_parameter(layer, q, scale):
    import torch

    buffers(layer, q=q)
    layer.scale = torch.nn.Parameter(scale)


def kept_weight(layer, x):
    if not hasattr(layer, "kept"):
        layer.kept = layer.q * layer.scale
    return layer.kept.to(x.dtype)


def codes_as_parameter(layer, q, scale):
    import torch

    attributes(layer, q=torch.nn.Parameter(q, requires_grad=False))
    buffers(layer, scale=scale)


def dequantized(linear):
    layer = right(linear)
    return layer.q * layer.scale


def linear_inside(quantized_at_each_call: bool) -> Callable:
    """The float layer is kept, and its weight rounded once or at each call."""

    def from_float(linear):
        import torch

        class Layer(torch.nn.Module):
            def forward(self, x):
                weight = dequantized(self.linear) if quantized_at_each_call else self.linear.weight
                return torch.nn.functional.linear(x, weight.to(x.dtype), self.linear.bias)

            def memory_bytes(self):
                return sum(tensor.nbytes for tensor in self.parameters())

        layer = Layer()
        layer.linear = copy.deepcopy(linear)
        if not quantized_at_each_call:
            layer.linear.weight.data = dequantized(linear).to(linear.weight.dtype)
        return layer

    return from_float


def changes_the_float_layer(linear):
    layer = right(linear)
    linear.weight.data = (layer.q * layer.scale).to(linear.weight.dtype)
    return layer


def on_the_grid_of_the_weight(bias, scale):
    scale = scale.reshape(-1).to(bias.dtype)
    return ((bias.detach() / scale).round().clamp(-128, 127) * scale).to(bias.dtype)


def on_a_grid_of_its_own(bias, scale):
    scale = bias.detach().abs().max() / 127
    return (bias.detach() / scale).round() * scale


def bytes_of(*names: str, each: Callable = lambda tensor: tensor.nbytes) -> Callable:
    """A memory_bytes that counts these tensors only."""
    return lambda layer: sum(each(getattr(layer, name)) for name in names if getattr(layer, name) is not None)


ALL = ("q", "scale", "bias")

SAVED = (
    "`self.q = tensor` is an attribute that PyTorch does not know: it stays behind when the layer moves to another "
    "device, and is missing from the file. `register_buffer` tells it."
)
STILL_FLOAT = (
    "A rounded float takes as many bytes as any other. Hold the codes, in int8, and the scales; make floats of them in "
    "`forward`."
)
SHARES = (
    "`detach()` gives another view of the same memory. When the float layer is trained on, this layer changes with it. "
    "Copy it."
)
BIAS = (
    "The bias has one number for each output: it saves next to nothing in 8 bits, and its error goes straight into "
    "every result. Keep it as it is."
)
COUNTS = (
    "Ask each tensor that you hold for its `nbytes`, or count elements times `element_size()`: codes, scales, bias."
)

MISCONCEPTIONS = (
    Misconception("codes or scales are plain attributes",
        right.but(hold=lambda layer, q, scale: attributes(layer, q=q, scale=scale)), SAVED),
    Misconception("codes or scales are plain attributes",
        right.but(hold=lambda layer, q, scale: (attributes(layer, q=q), buffers(layer, scale=scale))), SAVED),
    Misconception("codes or scales are plain attributes",
        right.but(hold=lambda layer, q, scale: (buffers(layer, q=q), attributes(layer, scale=scale))), SAVED),
    Misconception("the codes are a Parameter", right.but(hold=codes_as_parameter),
        "A Parameter is what an optimizer trains, and what `.half()` converts. Codes are neither: make them a buffer."),
    Misconception("the scales are a Parameter", right.but(hold=scale_as_parameter),
        "A Parameter is what an optimizer trains. A scale belongs to its codes, and stays as it is: make it a buffer."),
    Misconception("the float weight of the first call is kept", right.but(weight=kept_weight),
        "The dequantized weight is kept in the layer, four bytes each beside the codes, and a saved or moved "
        "layer does not know of it. Dequantize at each call, and let the result go."),
    Misconception("the float weight is still there", linear_inside(quantized_at_each_call=True), STILL_FLOAT),
    Misconception("the float weight is still there", linear_inside(quantized_at_each_call=False), STILL_FLOAT),
    Misconception("dequantized once, and kept as floats",
        right.but(hold=lambda layer, q, scale: buffers(layer, q=q * scale, scale=scale),
                  weight=lambda layer, x: layer.q.to(x.dtype)),
        "The floats that `from_float` made of the codes are what the layer holds, so nothing got smaller. Hold the "
        "codes, and dequantize in `forward`."),
    Misconception("floats are kept beside the codes",
        right.but(hold=lambda layer, q, scale: buffers(layer, q=q, scale=scale, floats=q * scale),
                  weight=lambda layer, x: layer.floats.to(x.dtype)),
        "The codes are there, and the floats made of them as well: five bytes a weight. Dequantize in `forward`, and "
        "let the result go."),
    Misconception("codes held as floats", right.but(dtype="float32"),
        "`round` gives whole numbers, but in float32 they take four bytes each. Cast them to int8."),
    Misconception("codes wider than they need to be", right.but(dtype="int32"),
        "Codes from -128 to 127 fit into int8. int32 takes four bytes for each."),
    Misconception("codes wider than they need to be", right.but(dtype="int16"),
        "Codes from -128 to 127 fit into int8. int16 takes two bytes for each."),
    Misconception("unsigned codes", right.but(dtype="uint8", to_codes=lambda steps: steps.round() % 256),
        "Symmetric codes are signed: uint8 turns -1 into 255. Cast to int8."),
    Misconception("the bias is the float layer's own", right.but(bias=lambda bias, scale: bias.detach()), SHARES),
    Misconception("the bias is the float layer's own", right.but(bias=lambda bias, scale: bias), SHARES),
    Misconception("the float layer is changed", changes_the_float_layer,
        "The rounded weights were written into the layer given. Its owner still needs it: write to your own only."),
    Misconception("the bias is left out", right.but(forward=lambda layer, x, weight: x @ weight.t()),
        "A linear layer ends with `+ bias`, where it has one. Keep a copy, and add it."),
    Misconception("the bias is quantized away", right.but(bias=on_the_grid_of_the_weight), BIAS),
    Misconception("the bias is quantized away", right.but(bias=on_a_grid_of_its_own), BIAS),
    Misconception("one scale for the whole matrix", right.but(span=lambda w: w.abs().max().reshape(1, 1)),
        "The largest weight of all sets one scale, and quiet rows lose. Take the maximum of each row: a scale for "
        "each output (lab 03)."),
    Misconception("a scale for each input", right.but(span=lambda w: w.abs().amax(0, keepdim=True)),
        "The maximum was taken along axis 0, which leaves a scale for each input. That one could never leave the "
        "sum. Take it along the inputs, so that each output keeps one."),
    Misconception("the scales lie along the inputs",
        right.but(weight=lambda layer, x: (layer.q * layer.scale.reshape(-1)).to(x.dtype)),
        "Shape (N,) lines up with the last axis, the inputs. Each row has a scale, so they need shape (N, 1)."),
    Misconception("the scale is applied twice",
        right.but(forward=lambda layer, x, weight: plus_bias(layer, scaled(layer, x @ weight.t()))),
        "The weight was dequantized, scale and all, and then the result was scaled again. Do one of the two."),
    Misconception("the scale is never applied", right.but(weight=lambda layer, x: layer.q.to(x.dtype)),
        "The codes were multiplied as if they were weights. Each output counts in steps of its scale."),
    Misconception("divides by the scale", right.but(weight=lambda layer, x: (layer.q / layer.scale).to(x.dtype)),
        "A code counts steps of `scale`. To get back, multiply."),
    Misconception("the bias is scaled, too",
        right.but(forward=lambda layer, x, weight: scaled(layer, plus_bias(layer, x @ layer.q.to(x.dtype).t()))),
        "The scale belongs to the product. The bias is in the units of the result already: add it afterwards."),
    Misconception("a row of zeros gives NaN, cast to an integer", right.but(floor=lambda scale: scale),
        "The scale of that row is 0, and 0 / 0 is NaN. What an integer is made of NaN differs from machine to machine. "
        "Use 1 where a scale is 0."),
    Misconception("scales rounded to 16 bits",
        right.but(floor=lambda scale: scale.masked_fill(scale == 0, 1).bfloat16().to(scale.dtype)),
        "bfloat16 keeps three digits of a scale, and every weight of the row is off by as much. Leave scales float32."),
    Misconception("a smallest scale flattens tiny weights", right.but(floor=lambda scale: scale.clamp(min=1e-8)),
        "Weights of 1e-9 all became 0, for 1e-8 was the smallest scale. Replace only a scale of exactly 0."),
    Misconception("an epsilon added to the scale", right.but(floor=lambda scale: scale + 1e-8),
        "Adding to every scale bends all of them, and ruins tiny weights. Replace only a scale of exactly 0."),
    Misconception("truncation instead of round", right.but(to_codes=lambda steps: steps.trunc()),
        "Casting to int8 cuts the fraction off: 1.9 becomes 1. Round before you cast."),
    Misconception("divides by 128", right.but(divisor=128),
        "The largest code is 127. A row whose largest weight is positive then loses a whole step."),
    Misconception("max(w) instead of max|w|", right.but(span=lambda w: w.amax(1, keepdim=True).abs()),
        "The scale must cover the largest magnitude of the row, and that may be a negative weight."),
    Misconception("codes meet floats", right.but(forward=lambda layer, x, weight: x @ layer.q.t()),
        "PyTorch multiplies two tensors of one dtype only. Make floats of the codes, times their scales, before they "
        "meet x."),
    Misconception("the result is float32, whatever came",
        right.but(forward=lambda layer, x, weight: plus_bias(layer, x.float() @ weight.float().t())),
        "A model in bfloat16 goes on in bfloat16. Make the weight of the dtype of x, or give the result back in it."),
    Misconception("the weight is float32, whatever came",
        right.but(weight=lambda layer, x: layer.q.float() * layer.scale.float()),
        "x and the weight must have one dtype to be multiplied. x may be float16, bfloat16 or float64: cast the "
        "dequantized weight to the dtype of x."),
    Misconception("the bias is float32, whatever came",
        right.but(forward=lambda layer, x, weight: torch_linear(x, weight, layer.bias)),
        "x may be of another dtype than the layer was: the bias must be cast to it, as the weight is."),
    Misconception("the weight is not transposed",
        right.but(forward=lambda layer, x, weight: plus_bias(layer, x @ weight)),
        "A weight is (out, in), and x is (..., in): the product is x @ weight.T."),
    Misconception("only matrices can come in",
        right.but(forward=lambda layer, x, weight: plus_bias(layer, x.mm(weight.t()))),
        "`mm` takes two matrices. x may have one axis, or three. `@` and `functional.linear` take them all."),
    Misconception("the result is flattened",
        right.but(forward=lambda layer, x, weight: plus_bias(layer, x.reshape(-1, x.shape[-1]) @ weight.t())),
        "Whatever axes come before the last one must be there again in the result."),
    Misconception("codes are computed in 16 bits",
        right.but(floats=lambda weight: weight.detach(), to_codes=lambda steps: steps.round()),
        "bfloat16 has 8 significant bits, no more than a code: the largest weight over its scale may come out as "
        "128, which int8 does not know. Cast the weight to float32 before you choose scales and codes."),
    Misconception("scales are computed in 16 bits", right.but(floats=lambda weight: weight.detach()),
        "bfloat16 has 8 significant bits, and a scale that is rounded to them shifts the largest codes by more than "
        "half a step. Cast the weight to float32 before you choose scales and codes."),
    Misconception("the scales still belong to autograd", right.but(floats=at_least_float32),
        "The scales were computed from a Parameter, so autograd keeps their history, and `deepcopy` refuses. Start "
        "from `linear.weight.detach()`."),
    Misconception("from_float returns nothing", lambda linear: None,
        "The layer was made and then dropped: hand it back at the end."),
    Misconception("memory_bytes leaves out the scales", right.but(memory_bytes=bytes_of("q", "bias")), COUNTS),
    Misconception("memory_bytes leaves out the bias", right.but(memory_bytes=bytes_of("q", "scale")), COUNTS),
    Misconception("memory_bytes counts the codes only", right.but(memory_bytes=bytes_of("q")), COUNTS),
    Misconception("memory_bytes counts elements", right.but(memory_bytes=bytes_of(*ALL, each=lambda t: t.numel())),
        "A code takes one byte, a scale four. Multiply each count by its element size."),
    Misconception("memory_bytes counts bits", right.but(memory_bytes=bytes_of(*ALL, each=lambda t: 8 * t.nbytes)),
        "That is bits. Eight of them make a byte."),
    Misconception("memory_bytes counts floats", right.but(memory_bytes=bytes_of(*ALL, each=lambda t: 4 * t.numel())),
        "A code takes one byte, not four. That is why we are here."),
    Misconception("memory_bytes counts Parameters only", right.but(memory_bytes=lambda layer: 0), COUNTS),
)  # fmt: skip

EXERCISE = Exercise(
    name="QuantizedLinear",
    lab=LESSON,
    place=20,
    points=4,
    reference=reference,
    cases=cases,
    read=_layer.read,
    judge=_layer.judge,
    misconceptions=MISCONCEPTIONS,
    shown=lambda answer: {},  # what is read are observations of the layer
    run=_layer.examine,
)
