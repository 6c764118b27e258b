"""Lab 05: a matrix product of codes, a layer that holds them, and a layer that multiplies them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from labutils import answers, data
from labutils.checks import layer
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_array, place

LAB = "05_quantized_linear"
FLOAT32 = 2.0**-24  # the largest relative error of one rounding


def _trained(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in) and bias of a trained layer."""
    weights = data.digits_network().weights
    w = weights[f"{name}.weight"]
    return w.reshape(len(w), -1).copy(), weights[f"{name}.bias"].copy()


def _pooled() -> np.ndarray:
    """What enters the head of the digits network: (20, 128), none of it negative."""
    images, _ = data.digits("test")
    return data.digits_network().activations(images[:20])["pool"]


# --- quantized_matmul -------------------------------------------------------------------------------------------------

HAND = (np.array([[130, 125, 140]], np.uint8), 0.1, np.array([[12], [-3], [5]], np.int8), 0.5)  # of the lesson


def _matmul_cases() -> list[Case]:
    rng = np.random.default_rng(5)

    def codes(kind: type, *shape: int) -> np.ndarray:
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)

    weight, _ = _trained("head")
    x_q, x_scale, x_zp = answers.quantize_asymmetric(_pooled())
    w_q, w_scales = answers.quantize_per_channel(weight, 0)
    _, w_scale = answers.quantize_symmetric(weight)
    tokens, token_scales = answers.quantize_per_token(rng.normal(size=(6, 6)).astype(np.float32))
    channels = np.geomspace(0.01, 0.1, 6).astype(np.float32)
    largest = np.where(rng.random((3, 4096)) < 0.9, 127, -128).astype(np.int8)
    high, low = np.where(largest > 0, 255, 254).astype(np.uint8), np.where(largest.T > 0, 0, 3).astype(np.uint8)
    column = rng.integers(-50, 51, (300, 1), dtype=np.int8)
    balanced = np.concatenate([column, -column[::-1]])  # beside a palindrome, every sum is 0
    row = rng.integers(-128, 128, (1, 300), dtype=np.int8)
    return [
        Case("the worked example", HAND, {"a_zp": 128, "b_zp": 2}),
        Case("both symmetric", (codes(np.int8, 3, 20), 0.02, codes(np.int8, 20, 4), 0.005)),
        Case("only a has a zero point", (codes(np.uint8, 3, 20), 0.02, codes(np.int8, 20, 4), 0.005), {"a_zp": 131}),
        Case("only b has a zero point", (codes(np.int8, 5, 20), 0.1, codes(np.uint8, 20, 4), 0.5), {"b_zp": 77}),
        Case(
            "both have zero points",
            (codes(np.uint8, 4, 30), 0.02, codes(np.uint8, 30, 6), 0.5),
            {"a_zp": 200, "b_zp": 90},
        ),
        Case("square, both have zero points", (codes(np.uint8, 8, 8), 0.02, codes(np.uint8, 8, 8), 0.5),
             {"a_zp": 3, "b_zp": 250}),
        Case("signed codes, zero points below 0", (codes(np.int8, 4, 9), 0.3, codes(np.int8, 9, 3), 0.2),
             {"a_zp": -100, "b_zp": -7}),
        Case("4-bit codes with zero points", (codes(np.uint8, 4, 16) & 15, 0.1, codes(np.uint8, 16, 3) & 15, 0.1),
             {"a_zp": 8, "b_zp": 5}),
        Case("activations of the digits network by its head", (x_q, x_scale, w_q.T, w_scales), {"a_zp": int(x_zp)}),
        Case("one scale for the head", (x_q, x_scale, answers.quantize_symmetric(weight)[0].T, w_scale),
             {"a_zp": int(x_zp)}),
        Case("a scale for each row and each column, square", (tokens, token_scales, codes(np.int8, 6, 6), channels)),
        Case("4096 of the largest codes", (largest, 0.01, largest.T.copy(), 0.01)),
        Case("4096 of the largest codes, with zero points", (high, 0.1, low, 1.0), {"a_zp": 1, "b_zp": 255}),
        Case("sums that are 0", (np.concatenate([row, row[:, ::-1]], axis=1), 0.1, balanced, 0.7)),
        Case("one product", (np.array([[-128]], np.int8), 0.25, np.array([[-128]], np.int8), 0.25)),
        Case("one column by one row", (codes(np.int8, 4, 1), 0.25, codes(np.int8, 1, 3), 0.25), {"a_zp": 2}),
    ]  # fmt: skip


def _read_product(value: object) -> dict:
    y = as_array(value, "the result")
    # A mistake is the same mistake in float32 and in float64, and both may be returned.
    return {"y": y.astype(np.float64) if y.dtype == np.float32 else y}


def _integer_sums(a_q: np.ndarray, b_q: np.ndarray, a_zp: int = 0, b_zp: int = 0) -> np.ndarray:
    return (a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp)


def _judge_product(answer: dict, case: Case) -> None:
    a_q, a_scale, b_q, b_scale = case.args
    y, sums = answer["y"], _integer_sums(a_q, b_q, **case.kwargs)
    if y.shape != sums.shape:
        raise Wrong(f"the result should have shape {sums.shape}, rows of a by columns of b, but it has {y.shape}")
    if y.dtype.kind != "f":
        raise Wrong(f"the result should hold floats, for scales are floats, but its dtype is {y.dtype}")
    if y.dtype.itemsize < 4:
        raise Wrong(f"the result should be float32, but its dtype is {y.dtype}")
    expected = sums * np.asarray(a_scale, np.float64) * np.asarray(b_scale, np.float64)
    error = np.abs(y.astype(np.float64) - expected)
    allowed = 8 * FLOAT32 * np.abs(expected)  # the sum, two scales, their product and the result, each rounded
    if (bad := ~(error <= allowed)).any():
        worst = np.unravel_index(np.argmax(np.where(bad, np.nan_to_num(error - allowed, nan=np.inf), 0)), y.shape)
        told = "" if sums[worst] else ": the integers cancel, and floats do not"
        raise Wrong(
            f"result[{place(worst)}] should be {expected[worst]:.9g}, the integer {sums[worst]} times the scales, "
            f"but it is {y[worst]:.9g}{told}"
        )


def _product(
    total: Callable = lambda a, b, za, zb: _integer_sums(a, b, za, zb),
    rescale: Callable = lambda sums, a_scale, b_scale: sums * (a_scale * b_scale),
) -> Callable:
    """A quantized matmul in which the integers or the scaling are wrong."""

    def quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
        return rescale(total(a_q, b_q, a_zp, b_zp), a_scale, b_scale)

    return quantized_matmul


def _expanded(
    a_term: Callable = lambda a, b, za: -za * b.sum(axis=0, keepdims=True),
    b_term: Callable = lambda a, b, zb: -zb * a.sum(axis=1, keepdims=True),
    last: Callable = lambda a, b, za, zb: a.shape[1] * za * zb,
) -> Callable:
    """The expansion in which one term is wrong, in int64."""

    def total(a, b, za, zb):
        a, b = a.astype(np.int64), b.astype(np.int64)
        return a @ b + a_term(a, b, za) + b_term(a, b, zb) + last(a, b, za, zb)

    return _product(total)


def _floats(dtype: type, of_scales: type) -> Callable:
    """Dequantizes both, and multiplies what comes out."""

    def quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
        a = (a_q.astype(dtype) - dtype(a_zp)) * np.asarray(a_scale, of_scales)
        b = (b_q.astype(dtype) - dtype(b_zp)) * np.asarray(b_scale, of_scales)
        return (a @ b).astype(np.float32)

    return quantized_matmul


def _in_floats_of(dtype: type) -> Callable:
    """Adds up in a float type, one product after the other."""

    def total(a, b, za, zb):
        a, b = a.astype(dtype) - dtype(za), b.astype(dtype) - dtype(zb)
        sums = np.zeros((a.shape[0], b.shape[1]), dtype)
        for k in range(a.shape[1]):
            sums += a[:, k : k + 1] * b[k]
        return sums.astype(np.float64)

    return _product(total)


def _wrapped(dtype: type, correct: bool = True) -> Callable:
    def total(a, b, za, zb):
        corrections = _integer_sums(a, b, za, zb) - a.astype(np.int64) @ b.astype(np.int64)
        return (a.astype(np.int64) @ b.astype(np.int64)).astype(dtype) + corrections * correct

    return _product(total)


def _subtracted_in(signed: type | None) -> Callable:
    """The zero points are subtracted in the dtype of the codes, or in int8, where they do not fit."""

    def total(a, b, za, zb):
        moved = (
            (q.astype(np.int64) - zp).astype(signed or q.dtype).astype(np.int64) if zp else q.astype(np.int64)
            for q, zp in ((a, za), (b, zb))
        )
        a, b = moved
        return a @ b

    return _product(total)


NO_SCALE = "The sums count in steps of a_scale * b_scale. Multiply each sum once with both."
FLOATS = (
    "floats are multiplied",
    "Each code was turned into a float first, so this is the float product of two dequantized matrices: nothing is "
    "gained, and roundings add up. Multiply the codes, add up integers, and let the scales in at the very end.",
)
WRAPS = (
    "Multiplying keeps the dtype of the codes: 127 * 127 = 16129 does not fit, and wraps around without a word. Cast "
    "both to a wide integer before you multiply."
)
SIDE = (
    "a_scale belongs to the rows of the result, b_scale to its columns. Shape (N,) broadcasts along columns by itself; "
    "do not turn it."
)

QUANTIZED_MATMUL = (
    Misconception("accumulates in int8", _wrapped(np.int8), WRAPS),
    Misconception("accumulates in int8", _product(lambda a, b, za, zb: a.astype(np.int8) @ b.astype(np.int8)), WRAPS),
    Misconception(
        "accumulates in the dtype of the codes",
        _product(lambda a, b, za, zb: (a - a.dtype.type(za)) @ (b - b.dtype.type(zb)) if min(za, zb) >= 0 else a @ b),
        WRAPS,
    ),
    Misconception(
        "accumulates in int16",
        _wrapped(np.int16),
        "A product of two 8-bit codes fits into 16 bits, but a sum of more than one or two may not. Add up in 32.",
    ),
    Misconception(
        "accumulates in float16",
        _in_floats_of(np.float16),
        "float16 knows whole numbers up to 2048, and ends at 65504. Add up integers, in int32.",
    ),
    Misconception(
        "accumulates in float32",
        _in_floats_of(np.float32),
        "float32 knows whole numbers up to 2^24 = 16777216: about a thousand products of the largest codes. A longer "
        "sum loses its last digits. Add up integers, in int32.",
    ),
    Misconception(FLOATS[0], _floats(np.float32, np.float32), FLOATS[1]),
    Misconception(FLOATS[0], _floats(np.float64, np.float64), FLOATS[1]),
    Misconception(
        "the zero points are left out",
        _product(lambda a, b, za, zb: _integer_sums(a, b)),
        "A code with a zero point stands for (q - zero_point) steps. Without it, every value is "
        "off by the same amount, and every sum by K of those.",
    ),
    Misconception(
        "the zero point of a is left out",
        _product(lambda a, b, za, zb: _integer_sums(a, b, 0, zb)),
        "a stands for a_q - a_zp. Write the product out: a_zp meets every code of b, and b_zp.",
    ),
    Misconception(
        "the zero point of b is left out",
        _product(lambda a, b, za, zb: _integer_sums(a, b, za, 0)),
        "b stands for b_q - b_zp. Write the product out: b_zp meets every code of a, and a_zp.",
    ),
    Misconception(
        "zero points are added",
        _product(lambda a, b, za, zb: _integer_sums(a, b, -za, -zb)),
        "0.0 has the code zero_point, so zero_point is subtracted from a code. In (p - z)(q - w) both terms with one "
        "zero point are subtracted: pq - zq - wp + zw.",
    ),
    Misconception(
        "the zero point's term of a is added",
        _expanded(a_term=lambda a, b, za: za * b.sum(axis=0)),
        "In (p - z)(q - w) the terms with one zero point are subtracted: pq - zq - wp + zw.",
    ),
    Misconception(
        "the zero point's term of b is added",
        _expanded(b_term=lambda a, b, zb: zb * a.sum(axis=1, keepdims=True)),
        "In (p - z)(q - w) the terms with one zero point are subtracted: pq - zq - wp + zw.",
    ),
    Misconception(
        "the sums of b run along the wrong axis",
        _expanded(a_term=lambda a, b, za: -za * b.sum(axis=1)),
        "a_zp meets all K codes of one column of b. The sum runs over K, which is axis 0 of b, and leaves N numbers.",
    ),
    Misconception(
        "the sums of a run along the wrong axis",
        _expanded(b_term=lambda a, b, zb: -zb * a.sum(axis=0)),
        "b_zp meets all K codes of one row of a. The sum runs over K, which is axis 1 of a, and leaves M numbers.",
    ),
    Misconception(
        "the sums of a lie along the columns",
        _expanded(b_term=lambda a, b, zb: -zb * a.sum(axis=1)),
        "Each row of a has a sum of its own, so the M sums must lie along the rows of the result: they need shape "
        "(M, 1) to broadcast. A flat array lies along the columns.",
    ),
    Misconception(
        "the zero points changed places",
        _expanded(
            lambda a, b, za: -za * a.sum(axis=1, keepdims=True),
            lambda a, b, zb: -zb * b.sum(axis=0, keepdims=True),
        ),
        "The zero point of a meets the codes of b, and the other way round: a_zp times the column sums of b.",
    ),
    Misconception(
        "sums over everything",
        _expanded(lambda a, b, za: -za * b.sum(), lambda a, b, zb: -zb * a.sum()),
        "One number was subtracted from every result. Each column of b has a sum of its own, and so has each row of a.",
    ),
    Misconception(
        "the last term is left out",
        _expanded(last=lambda a, b, za, zb: 0),
        "Both corrections subtract the product of the zero points, so it has been subtracted once too often, K times "
        "in each sum. Add it again.",
    ),
    Misconception(
        "the last term is counted once",
        _expanded(last=lambda a, b, za, zb: za * zb),
        "a_zp * b_zp stands in every one of the K products of a sum. It comes K times.",
    ),
    Misconception(
        "the last term is subtracted",
        _expanded(last=lambda a, b, za, zb: -a.shape[1] * za * zb),
        "Minus times minus is plus: in (p - z)(q - w) the last term is + zw.",
    ),
    Misconception(
        "the last term counts rows",
        _expanded(last=lambda a, b, za, zb: a.shape[0] * za * zb),
        "The last term comes as often as there are products in a sum: K, the columns of a.",
    ),
    Misconception(
        "the last term counts columns",
        _expanded(last=lambda a, b, za, zb: b.shape[1] * za * zb),
        "The last term comes as often as there are products in a sum: K, the rows of b.",
    ),
    Misconception(
        "zero points subtracted in 8 bits",
        _subtracted_in(None),
        "200 - 255 is -55, which uint8 does not know: it becomes 201. Cast to a wide integer first, then subtract.",
    ),
    Misconception(
        "zero points subtracted in 8 bits",
        _subtracted_in(np.int8),
        "255 - 3 is 252, which int8 does not know: it becomes -4. The difference of two bytes needs 9 bits: cast to a "
        "wide integer first.",
    ),
    Misconception("the scales are left out", _product(rescale=lambda sums, a, b: sums.astype(np.float64)), NO_SCALE),
    Misconception("the scale of b is left out", _product(rescale=lambda sums, a, b: sums * a), NO_SCALE),
    Misconception("the scale of a is left out", _product(rescale=lambda sums, a, b: sums * b), NO_SCALE),
    Misconception(
        "the scales are applied twice", _product(rescale=lambda sums, a, b: sums * (a * b) * (a * b)), NO_SCALE
    ),
    Misconception("divides by the scales", _product(rescale=lambda sums, a, b: sums / (a * b)), NO_SCALE),
    Misconception("the scales are added", _product(rescale=lambda sums, a, b: sums * (a + b)), NO_SCALE),
    Misconception(
        "the scales of columns lie along the rows",
        _product(rescale=lambda sums, a, b: sums * a * (b[:, None] if np.ndim(b) else b)),
        SIDE,
    ),
    Misconception(
        "the scales of rows lie along the columns",
        _product(rescale=lambda sums, a, b: sums * (a.T if np.ndim(a) else a) * b),
        SIDE,
    ),
    Misconception(
        "the scales change sides",
        _product(
            rescale=lambda sums, a, b: sums * (a.reshape(-1) if np.ndim(a) else a) * (b[:, None] if np.ndim(b) else b)
        ),
        SIDE,
    ),
    Misconception(
        "b is transposed",
        _product(lambda a, b, za, zb: _integer_sums(a, b.T, za, zb)),
        "b_q is (K, N) already, as in a_q @ b_q. Whoever calls with a weight (N, K) transposes it before.",
    ),
    Misconception(
        "elements are multiplied, not matrices",
        _product(lambda a, b, za, zb: (a.astype(np.int64) - za) * (b.astype(np.int64) - zb)),
        "`*` multiplies element by element. A matrix product is `@`.",
    ),
    Misconception(
        "the result is rounded",
        _product(rescale=lambda sums, a, b: np.round(sums * (a * b)).astype(np.int32)),
        "The result is in units of the original numbers, not in steps. Return floats, as they are.",
    ),
    Misconception(
        "the result is clipped to 8 bits",
        _product(rescale=lambda sums, a, b: np.clip(sums, -128, 127) * (a * b)),
        "A sum of many products is far larger than a code, and nothing makes codes of it here. Do not clip it.",
    ),
)


# --- QuantizedLinear --------------------------------------------------------------------------------------------------
# What it must do and keep is in `layer`. The wrong ones below are functions from an nn.Linear to a module: torch is
# imported when they are run.


def _layer_cases() -> list[Case]:
    rng = np.random.default_rng(55)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    head, head_bias = _trained("head")
    hand = np.array([[0.5, -1.27, 0.1], [0.02, 0.03, -0.0254]], np.float32)
    uneven = normal(8, 8) * np.geomspace(0.01, 10, 8, dtype=np.float32)[:, None]
    silent = normal(4, 6)
    silent[2] = 0
    return [
        Case("the worked example", (hand, np.array([1.0, -1.0], np.float32), np.array([[1.0, 2.0, 0.5]], np.float32))),
        Case("the head of the digits network", (head, head_bias, _pooled())),
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
    return answers.QuantizedLinear.from_float(linear)


_reference_layer.__name__ = "QuantizedLinear"


# --- int8_linear (stretch) --------------------------------------------------------------------------------------------


def _int8_cases() -> list[Case]:
    rng = np.random.default_rng(56)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def layer(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = normal(rows, columns) * np.geomspace(0.1, 1, rows, dtype=np.float32)[:, None]
        return *answers.quantize_per_channel(w, 0), normal(rows)

    head, head_bias = _trained("head")
    hand = (np.array([[1, 2], [-3, 127]], np.int8), np.array([0.1, 0.01], np.float32), None)
    loud = normal(6, 20) * np.geomspace(0.01, 100, 6, dtype=np.float32)[:, None]
    silent = normal(3, 20)
    silent[1] = 0
    largest = (np.full((3, 600), 127, np.int8), np.array([0.01, 0.02, 0.03], np.float32), normal(3))
    cases = {
        "the worked example": (np.array([[1.27, 0.5]], np.float32), *hand),
        "the head of the digits network": (_pooled(), *answers.quantize_per_channel(head, 0), head_bias),
        "rows from quiet to loud": (loud, *layer(8, 20)),
        "square, rows from quiet to loud": (loud[:, :6].copy(), *layer(6, 6)),
        "no bias": (normal(4, 12), *layer(5, 12)[:2], None),
        "a row that is all zero": (silent, *layer(4, 20)),
        "the largest values are negative": (-np.abs(normal(3, 12)), *layer(4, 12)),
        "x with one axis": (normal(12), *layer(4, 12)),
        "x with three axes": (normal(2, 3, 12), *layer(4, 12)),
        "one input": (normal(5, 1), *layer(4, 1)),
        "600 of the largest codes": (np.ones((2, 600), np.float32), *largest),
        "an empty batch": (normal(0, 12), *layer(4, 12)),
    }
    return [Case(name, args) for name, args in cases.items()]


def _use_tensors(submission: Callable, *arrays: np.ndarray | None) -> Any:
    """The submission's answer to tensors, which share their memory with the arrays: a change of them shows."""
    import torch

    return submission(*(None if array is None else torch.from_numpy(array) for array in arrays))


def _row_codes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(x).max(axis=-1, keepdims=True) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale)
    return np.round(x / scale), scale


def _judge_int8(answer: dict, case: Case) -> None:
    x, w_q, w_scale, bias = case.args
    y, shape = answer["y"], (*x.shape[:-1], len(w_q))
    if y.shape != shape:
        raise Wrong(f"for x of shape {x.shape} the result should have shape {shape}, but it has {y.shape}")
    if y.dtype.kind != "f":
        raise Wrong(f"the result should hold floats, but its dtype is {y.dtype}")
    steps, scale = _row_codes(x)
    sums = steps @ w_q.T.astype(np.float64)
    expected = sums * scale * w_scale + (0 if bias is None else bias)
    slack = 2**-20 * (np.abs(sums * scale * w_scale) + (0 if bias is None else np.abs(bias)))
    bad = ~(np.abs(y - expected) <= slack)
    if bad.any():
        worst = tuple(np.argwhere(bad)[0])
        raise Wrong(
            f"result[{place(worst)}] should be {expected[worst]:.7g}, the integer {sums[worst]:.0f} times its two "
            f"scales{'' if bias is None else ' plus the bias'}, but it is {y[worst]:.7g}"
        )


def _int8(
    span: Callable = lambda x: np.abs(x).max(axis=-1, keepdims=True),
    divisor: float = 127,
    zero: Callable = lambda scale: np.where(scale == 0, np.float32(1), scale),
    to_codes: Callable = np.round,
    total: Callable = lambda q, w: q.astype(np.int64) @ w.T.astype(np.int64),
    rescale: Callable = lambda sums, x_scale, w_scale, bias: sums * (x_scale * w_scale) + bias,
) -> Callable:
    """An integer layer in which one step can be replaced by a wrong one. It works on arrays; tensors come in."""

    def int8_linear(x, w_q, w_scale, bias):
        import torch

        x, w, w_scale = x.numpy(), w_q.numpy(), w_scale.numpy()
        b = np.float32(0) if bias is None else bias.numpy()
        if not x.size:
            return torch.zeros(*x.shape[:-1], len(w))
        x_scale = zero(span(x) / np.float32(divisor))
        q = np.clip(to_codes(x / x_scale), -128, 127)
        return torch.from_numpy(np.asarray(rescale(total(q, w), x_scale, w_scale, b), np.float32))

    return int8_linear


def _returning(change: Callable) -> Callable:
    right = _int8()
    return lambda x, w_q, w_scale, bias: change(right(x, w_q, w_scale, bias), x)


def _dequantized_linear(x, w_q, w_scale, bias):
    y = x @ (w_q * w_scale[:, None]).t()
    return y if bias is None else y + bias


def _only_matrices(x, w_q, w_scale, bias):
    if x.ndim != 2:
        raise ValueError("x must have two axes")
    return answers.int8_linear(x, w_q, w_scale, bias)


def _raises_runtime(x, w_q, w_scale, bias):
    if x.ndim != 2:
        raise RuntimeError("self must be a matrix")
    return answers.int8_linear(x, w_q, w_scale, bias)


MATRICES = (
    "only matrices can come in",
    "Integer kernels take matrices, but x may have one axis, or three. Make rows of it, and give its axes back at the "
    "end.",
)
INT8_LINEAR = (
    Misconception(
        "one scale for all rows",
        _int8(span=lambda x: np.abs(x).max()),
        "The loudest row sets the scale for all of them, and quiet rows become 0. Take the maximum of each row: the "
        "scale of a row leaves the sum.",
    ),
    Misconception(
        "a scale for each feature",
        _int8(
            span=lambda x: np.abs(x).max(axis=tuple(range(x.ndim - 1)), keepdims=True) if x.ndim > 1 else np.abs(x),
            rescale=lambda sums, x_scale, w_scale, bias: sums * (np.mean(x_scale) * w_scale) + bias,
        ),
        "The maximum was taken over the rows, so that each feature has a scale. It varies along the axis that is "
        "summed over, and cannot leave the sum. Take the maximum along the last axis.",
    ),
    Misconception(
        "x stays float",
        _dequantized_linear,
        "This dequantizes the weight and multiplies floats, as `QuantizedLinear` does. Here x gets codes, too, and "
        "integers are multiplied.",
    ),
    Misconception(
        "accumulates in int8",
        _int8(total=lambda q, w: q.astype(np.int8) @ w.T),
        "int8 by int8 in PyTorch is int8, and wraps around. `int_matmul` adds up in int32.",
    ),
    Misconception(
        "accumulates in int16",
        _int8(total=lambda q, w: q.astype(np.int16) @ w.T.astype(np.int16)),
        "Two products of large codes are already too many for 16 bits. Add up in 32.",
    ),
    Misconception(
        "accumulates in float16",
        _int8(total=lambda q, w: (q.astype(np.int64) @ w.T.astype(np.int64)).astype(np.float16).astype(np.float32)),
        "float16 knows whole numbers up to 2048 only. Add up in int32.",
    ),
    Misconception(
        "the scale of the weight is left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * x_scale + bias),
        "A sum counts in steps of the row's scale times the output's scale. Multiply with both.",
    ),
    Misconception(
        "the scale of the row is left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * w_scale + bias),
        "A sum counts in steps of the row's scale times the output's scale. Multiply with both.",
    ),
    Misconception(
        "the scales are left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums + bias),
        "The sums are integers, in steps of the row's scale times the output's scale. Multiply with both.",
    ),
    Misconception(
        "divides by the row's scale",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums / x_scale * w_scale + bias),
        "Dividing makes codes of values. On the way back, multiply.",
    ),
    Misconception(
        "the weight's scales lie along the rows",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * x_scale * w_scale[:, None] + bias),
        "w_scale has a number for each output, and the outputs are the last axis of the result. Shape (N,) lines up "
        "with it by itself.",
    ),
    Misconception(
        "the bias is scaled, too",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: (sums + bias) * (x_scale * w_scale)),
        "The bias is in the units of the result. Rescale first, then add it.",
    ),
    Misconception(
        "the bias is left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * (x_scale * w_scale)),
        "A linear layer ends with `+ bias`, where there is one.",
    ),
    Misconception(
        "truncation instead of round",
        _int8(to_codes=np.trunc),
        "Casting to int8 cuts the fraction off. Round before you cast.",
    ),
    Misconception(
        "divides by 128",
        _int8(divisor=128),
        "The largest code is 127. A row whose largest value is positive then loses a whole step.",
    ),
    Misconception(
        "divides by 255",
        _int8(divisor=255),
        "255 counts the steps of the whole grid, but max|x| spans only its positive half: 127 steps.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _int8(span=lambda x: np.abs(x.max(axis=-1, keepdims=True))),
        "The scale must cover the largest magnitude of the row, and that may be a negative value.",
    ),
    Misconception(
        "the weight is not transposed",
        _int8(total=lambda q, w: q.astype(np.int64) @ w.astype(np.int64)),
        "The weight is (N, K), and rows of x have K values: multiply with its transpose.",
    ),
    Misconception(MATRICES[0], _only_matrices, MATRICES[1]),
    Misconception(MATRICES[0], _raises_runtime, MATRICES[1]),
    Misconception(
        "the result is flattened",
        _returning(lambda y, x: y.reshape(-1, y.shape[-1])),
        "Whatever axes x has before the last one must be there again in the result.",
    ),
)

EXERCISES = (
    Exercise(
        name="quantized_matmul",
        lab=LAB,
        points=3,
        reference=answers.quantized_matmul,
        cases=_matmul_cases,
        read=_read_product,
        judge=_judge_product,
        misconceptions=QUANTIZED_MATMUL,
    ),
    Exercise(
        name="QuantizedLinear",
        lab=LAB,
        points=4,
        reference=_reference_layer,
        cases=_layer_cases,
        read=layer.read,
        judge=layer.judge,
        misconceptions=QUANTIZED_LINEAR,
        run=layer.look,
    ),
    Exercise(
        name="int8_linear",
        lab=LAB,
        points=2,
        reference=answers.int8_linear,
        cases=_int8_cases,
        read=_read_product,
        judge=_judge_int8,
        misconceptions=INT8_LINEAR,
        stretch=True,
        run=_use_tensors,
    ),
)
