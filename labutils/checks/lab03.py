"""Lab 03: a scale for each channel, the way back, four quantizers compared, and a scale for each token."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from labutils import affine, answers, data
from labutils.answers.lab03 import METHODS
from labutils.checks.contract import judge_codes, judge_rounding, trained_weights, wrapping
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_array, as_number, describe, parts
from labutils.metrics import quantization_error
from labutils.scheme import PerAxis, PerTensor, Scheme

LAB = "03_per_channel"
HAND = np.array([[0.05, -0.254, 0.1015], [2.54, 0.3, -1.013]], dtype=np.float32)  # the lesson's example


def _trained(name: str) -> np.ndarray:
    return data.digits_network().weights[f"{name}.weight"].copy()


def _uneven(shape: tuple[int, ...], axis: int, loudest: float = 100.0, seed: int = 0) -> np.ndarray:
    """Gaussian values whose channels along `axis` grow from 1 to `loudest`, so that the last one is the loudest."""
    x = np.random.default_rng(seed).normal(size=shape)
    gains = np.geomspace(1, loudest, shape[axis])
    return (x * _along(gains, x.ndim, axis)).astype(np.float32)


def _along(values: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    """Values that lie along `axis` of an array of `ndim` axes, ready to broadcast over it."""
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(values, shape)


def _others(ndim: int, axis: int) -> tuple[int, ...]:
    """All axes but one: those that are reduced."""
    return tuple(i for i in range(ndim) if i != axis % ndim)


# --- quantize_per_channel ---------------------------------------------------------------------------------------------


def _channel_cases() -> list[Case]:
    w, conv, square = trained_weights(), _trained("block3.depthwise"), _uneven((12, 12), 0)
    silent = _uneven((5, 8), 0, seed=1)
    silent[2] = 0
    negative = np.array([[0.4, -3.0, 1.1], [-0.2, 0.1, 0.05]], dtype=np.float32)
    far_apart = w[:4] * np.array([[1], [1e-9], [1e9], [1e-12]], dtype=np.float32)
    return [
        Case("the worked example", (HAND, 0)),
        Case("trained weights along axis 0", (w, 0), {"num_bits": 4}),
        Case("trained weights along axis 1", (w, 1), {"num_bits": 4}),
        Case("convolution weights, four axes", (conv, 0), {"num_bits": 4}),
        Case("a square matrix along axis 0", (square, 0)),
        Case("a square matrix along axis 1", (square.T.copy(), 1)),
        Case("the middle one of three axes", (_uneven((4, 6, 5), 1), 1)),
        Case("axis -1 is the last one", (_uneven((3, 4, 6), 2), -1)),
        Case("axis -2 of three", (_uneven((4, 6, 5), 1, seed=2), -2)),
        Case("a channel that is all zero", (silent, 0)),
        Case("the largest magnitudes are negative", (negative, 0)),
        Case("channels a billion times smaller and larger", (far_apart, 0)),
        Case("one channel alone", (w[:1], 0)),
        Case("a single axis: a scale for each value", (HAND[1], 0)),
        Case("2 bits", (w, 0), {"num_bits": 2}),
        Case("16 bits", (w, 0), {"num_bits": 16}),
        Case("a strided view", (w[:, ::2], 1), {"num_bits": 6}),
        Case("float64 input", (w.astype(np.float64), 0)),
    ]


def read_scaled(value: object) -> dict:
    """The answer of a quantizer with many scales: codes, and an array of them."""
    q, scales = parts(value, ("q", "scales"))
    scales = as_array(scales, "scales")
    return {"q": as_array(q, "q"), "scales": scales.astype(np.float64)}  # of any float dtype


def _judge_scales(scales: np.ndarray, peaks: np.ndarray, num_bits: int, whose: str) -> None:
    """Every scale is the largest magnitude of its slice over the largest code; any will do for a slice of zeros."""
    if not np.isfinite(scales).all() or scales.min() <= 0:
        where = np.unravel_index(np.argmin(np.where(scales > 0, np.isfinite(scales), False)), scales.shape)
        raise Wrong(f"scales{_index(where)} should be a positive number, but it is {scales[where]:g}")
    quant_max = Scheme(num_bits).quant_max
    expected = np.where(peaks > 0, peaks / quant_max, scales)
    off = np.abs(scales / expected - 1)
    worst = np.unravel_index(np.argmax(off), off.shape)
    if off[worst] > 1e-5:
        raise Wrong(
            f"scales{_index(worst)} should be the largest magnitude of {whose} / {quant_max} = {expected[worst]:.6g}, "
            f"but it is {scales[worst]:.6g}"
        )


def _index(where: tuple) -> str:
    return f"[{', '.join(str(int(i)) for i in where)}]"


def _judge_channels(answer: dict, case: Case) -> None:
    (x, axis), num_bits = case.args, case.kwargs.get("num_bits", 8)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    if scales.shape != (x.shape[axis],):
        channels = "1 channel" if x.shape[axis] == 1 else f"{x.shape[axis]} channels"
        raise Wrong(
            f"x of shape {x.shape} has {channels} along axis {axis}: "
            f"scales should have shape {(x.shape[axis],)}, but has {scales.shape}"
        )
    peaks = np.abs(x.astype(np.float64)).max(axis=_others(x.ndim, axis))
    _judge_scales(scales, peaks, num_bits, "that channel")
    judge_rounding(q, _along(scales, x.ndim, axis), x, num_bits)


def _channels(
    axis_of: Callable = lambda x, axis: axis % x.ndim,
    span: Callable = lambda x, others: np.abs(x).max(axis=others, keepdims=True),
    divisor: Callable = lambda bits: 2 ** (bits - 1) - 1,
    to_codes: Callable = np.round,
    dtype: Callable = lambda bits: np.int8 if bits <= 8 else np.int16,
    guard: Callable = lambda scales: np.where(scales == 0, np.float32(1), scales),
    shape: Callable = lambda scales, axis: scales.reshape(-1),
) -> Callable:
    """A per-channel quantizer in which one step can be replaced by a wrong one."""

    def quantize(x, axis, num_bits=8):
        kept = axis_of(x, axis)
        others = tuple(i for i in range(x.ndim) if i != kept)
        scales = guard((span(x, others) / divisor(num_bits)).astype(np.float32))
        steps = to_codes(x / scales)
        limit, kind = 2 ** (num_bits - 1), dtype(num_bits)
        q = steps if kind is None else wrapping(np.clip(steps, -limit, limit - 1), kind)
        return q, shape(scales, kept)

    return quantize


def _channels_returning(what: Callable) -> Callable:
    """The right codes and scales, of which `what(q, scales, x, axis)` is returned."""

    def quantize(x, axis, num_bits=8):
        return what(*answers.quantize_per_channel(x, axis, num_bits), x, axis)

    return quantize


def _reduces_the_axis(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=axis, keepdims=True) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    q = np.round(x / scales)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), np.squeeze(scales, axis)


def _broadcasts_along_the_last(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=_others(x.ndim, axis)) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    limit = 2 ** (num_bits - 1)
    return np.clip(np.round(x / scales), -limit, limit - 1).astype(np.int8 if num_bits <= 8 else np.int16), scales


def _channel_first_and_not_back(x, axis, num_bits=8):
    return answers.quantize_per_channel(np.moveaxis(x, axis, 0), 0, num_bits)


def _reshapes_without_moving(x, axis, num_bits=8):
    q, scales = answers.quantize_per_channel(x.reshape(x.shape[axis], -1), 0, num_bits)
    return q.reshape(x.shape), scales


def _removes_from_a_list(x, axis, num_bits=8):
    others = list(range(x.ndim))
    others.remove(axis)
    return answers.quantize_per_channel(x, axis, num_bits)


def _rows_of_a_matrix(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=1) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    return np.round(x / scales[:, None]).astype(np.int8 if num_bits <= 8 else np.int16), scales


def _loop_without_the_last(x, axis, num_bits=8):
    rows = np.moveaxis(x, axis, 0)
    scales, q = np.ones(len(rows)), np.zeros(rows.shape, np.int8 if num_bits <= 8 else np.int16)
    for c in range(len(rows) - 1):
        q[c], scales[c] = answers.quantize_symmetric(np.ascontiguousarray(rows[c]), num_bits)
    return np.moveaxis(q, 0, axis), scales


def _asks_an_array_whether_it_is_zero(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=_others(x.ndim, axis), keepdims=True) / (2 ** (num_bits - 1) - 1)
    if scales == 0:
        scales = np.ones_like(scales)
    return answers.quantize_per_channel(x, axis, num_bits)


def _scales_in_place(x, axis, num_bits=8):
    q, scales = answers.quantize_per_channel(x, axis, num_bits)
    x /= _along(scales, x.ndim, axis)
    return q, scales


NO_SUCH_AXIS = (
    "Among the numbers of the axes, from 0 on, there is no -1: a comparison such as `i != axis` lets every axis "
    "through, and removing it from a list fails. Make the axis positive first: remainder by the number of axes."
)
QUANTIZE_PER_CHANNEL = (
    Misconception(
        "the axis is reduced, and should be kept",
        _reduces_the_axis,
        "NumPy's `max(axis=0)` makes axis 0 disappear. Here `axis` is where the channels are: it stays, "
        "and the maximum runs over all the others.",
    ),
    Misconception(
        "one scale for all channels",
        _channels(
            span=lambda x, others: np.abs(x).max() * np.ones_like(np.abs(x).max(axis=others, keepdims=True)),
        ),
        "All channels got the scale of the loudest. Each has a largest magnitude of its own.",
    ),
    Misconception(
        "one number for the scale",
        lambda x, axis, num_bits=8: answers.quantize_symmetric(x, num_bits),
        "That is lab 01: one scale for the whole tensor. Here there is one for each channel.",
    ),
    Misconception(
        "the scales keep their reduced axes",
        _channels(shape=lambda scales, axis: scales),
        "`keepdims=True` is what you want for dividing, but the contract asks for one axis. Flatten them at the end.",
    ),
    Misconception(
        "a squeeze that takes too much",
        _channels(shape=lambda scales, axis: scales.squeeze()),
        "`squeeze()` removes every axis of length 1, and with one channel that is the channel axis too. "
        "Flatten the scales instead: one channel, one scale, shape (1,).",
    ),
    Misconception("a negative axis is not found", _channels(axis_of=lambda x, axis: axis), NO_SUCH_AXIS),
    Misconception(
        "a negative axis is not found",
        _channels(axis_of=lambda x, axis: axis, shape=lambda scales, axis: scales.squeeze()),
        NO_SUCH_AXIS,
    ),
    Misconception("a negative axis is not found", _removes_from_a_list, NO_SUCH_AXIS),
    Misconception(
        "written for the rows of a matrix",
        _rows_of_a_matrix,
        "`axis=1` and `[:, None]` are right for the rows of a matrix, and for nothing else. Use `axis`, and expect "
        "any number of axes.",
    ),
    Misconception(
        "only the last axis is reduced",
        _channels(span=lambda x, others: np.abs(x).max(axis=-1, keepdims=True)),
        "That is right for the rows of a matrix. In general everything but `axis` is reduced: three axes of a "
        "convolution's four.",
    ),
    Misconception(
        "always along axis 0",
        _channels(axis_of=lambda x, axis: 0),
        "`axis` is not used: the channels were taken along axis 0.",
    ),
    Misconception(
        "always along the last axis",
        _channels(axis_of=lambda x, axis: x.ndim - 1),
        "`axis` is not used: the channels were taken along the last axis.",
    ),
    Misconception(
        "scales spread along the wrong axis",
        _broadcasts_along_the_last,
        "Scales of shape (C,) line up with the last axis of x. For any other axis they need axes of length 1 behind "
        "them, as `keepdims=True` leaves them. A square matrix hides this: the shapes fit, the values do not.",
    ),
    Misconception(
        "the channel axis is moved to the front, and not back",
        _channel_first_and_not_back,
        "After `moveaxis` or a transpose the codes lie in another order. Move the axis back at the end.",
    ),
    Misconception(
        "reshaped without moving the axis",
        _reshapes_without_moving,
        "`reshape(C, -1)` cuts the memory into C pieces, and these are the channels only if the channel axis comes "
        "first. Move it there first, or reduce over the other axes and reshape nothing.",
    ),
    Misconception(
        "the loop ends one channel early",
        _loop_without_the_last,
        "The last channel was never done: `range(n)` ends at n - 1 by itself.",
    ),
    Misconception(
        "a channel of zeros divides by zero",
        _channels(guard=lambda scales: scales),
        "One channel is all zero, so its scale is 0, and 0 / 0 is NaN. Replace that scale by 1, and leave the others.",
    ),
    Misconception(
        "an array where one number is asked for",
        _asks_an_array_whether_it_is_zero,
        "`if scales == 0` has no answer for many scales at once. `np.where` decides for each of them.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _channels(span=lambda x, others: x.max(axis=others, keepdims=True)),
        "The scale must cover the largest magnitude of its channel, which may be negative.",
    ),
    Misconception(
        "the mean magnitude instead of the largest",
        _channels(span=lambda x, others: np.abs(x).mean(axis=others, keepdims=True)),
        "With the mean, everything above it is cut off. The grid must reach the largest magnitude of the channel.",
    ),
    Misconception(
        "the whole range max - min for the span",
        _channels(
            span=lambda x, others: x.max(axis=others, keepdims=True) - x.min(axis=others, keepdims=True),
            divisor=lambda bits: 2**bits - 1,
        ),
        "`(max - min) / (2^b - 1)` belongs to asymmetric quantization. Here the grid reaches equally far both ways.",
    ),
    Misconception(
        "127 at every bit width",
        _channels(divisor=lambda bits: 127),
        "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits.",
    ),
    Misconception(
        "divides by 2^(b-1)",
        _channels(divisor=lambda bits: 2 ** (bits - 1)),
        "The largest code is 2^(b-1) - 1: 127 at 8 bits, not 128.",
    ),
    Misconception(
        "truncation instead of round",
        _channels(to_codes=np.trunc),
        "Casting to an integer cuts the fraction off. Round before you cast.",
    ),
    Misconception(
        "floor instead of round",
        _channels(to_codes=np.floor),
        "`np.floor` always goes down, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "int8 at every bit width",
        _channels(dtype=lambda bits: np.int8),
        "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits.",
    ),
    Misconception(
        "codes left as floats",
        _channels(dtype=lambda bits: None),
        "The values are whole numbers, but still stored as floats: nothing got smaller. Cast them to an integer dtype.",
    ),
    Misconception(
        "a floor under the scales",
        _channels(guard=lambda scales: np.maximum(scales, np.float32(1e-8))),
        "A smallest scale such as 1e-8 rounds a quiet channel to zero. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "an epsilon added to the scales",
        _channels(guard=lambda scales: scales + np.float32(1e-8)),
        "Adding 1e-8 wipes out channels whose scale is smaller than that. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "returns scales and codes in the wrong order",
        _channels_returning(lambda q, scales, x, axis: (scales, q)),
        "The contract asks for the codes first, then the scales.",
    ),
    Misconception(
        "the scales are upside down",
        _channels_returning(lambda q, scales, x, axis: (q, 1 / scales)),
        "quant_max / max|x| is how many steps fit into one unit. A scale is how long a step is.",
    ),
    Misconception(
        "returns the reconstruction instead of the codes",
        _channels_returning(lambda q, scales, x, axis: (q * _along(scales, x.ndim, axis), scales)),
        "Quantizing ends with integers. Multiplying by the scales again is for `dequantize_per_channel`.",
    ),
    Misconception(
        "the input is changed",
        _scales_in_place,
        "`x /= scales` writes into the caller's array. `x / scales` makes a new one.",
    ),
)

# --- dequantize_per_channel -------------------------------------------------------------------------------------------


def _back_cases() -> list[Case]:
    rng = np.random.default_rng(3)

    def case(name: str, shape: tuple[int, ...], axis: int, dtype: type = np.int8) -> Case:
        info = np.iinfo(dtype)
        q = rng.integers(info.min, info.max + 1, shape).astype(dtype)
        return Case(name, (q, rng.uniform(0.01, 0.3, shape[axis]).astype(np.float32), axis))

    by_hand = np.array([[25, -127, 51], [127, 15, -51]], dtype=np.int8), np.array([0.002, 0.02], dtype=np.float32), 0
    return [
        Case("the worked example", by_hand),
        case("a matrix along axis 0", (16, 9), 0),
        case("a matrix along axis 1", (16, 9), 1),
        case("a square matrix along axis 0", (12, 12), 0),
        case("a square matrix along axis 1", (12, 12), 1),
        case("convolution weights, four axes", (8, 3, 3, 3), 0),
        case("the middle one of three axes", (4, 6, 5), 1),
        case("axis -1 is the last one", (3, 4, 6), -1),
        case("axis -2 of three", (4, 6, 5), -2),
        case("one channel alone", (1, 7), 0),
        case("16-bit codes", (6, 10), 0, np.int16),
        Case("scales far apart", (by_hand[0], np.array([1e-9, 1e6], dtype=np.float32), 0)),
    ]


def _read_floats(value: object) -> dict:
    return {"x": as_array(value, "the result")}


def _judge_back(answer: dict, case: Case) -> None:
    q, scales, axis = case.args
    x = answer["x"]
    if x.shape != q.shape:
        raise Wrong(f"the result should have the shape of q, {q.shape}, but has {x.shape}")
    if x.dtype != np.float32:
        raise Wrong(f"the result should be float32, but its dtype is {x.dtype}")
    steps = np.broadcast_to(_along(scales, q.ndim, axis).astype(np.float64), q.shape)
    expected = q * steps
    error = np.abs(x - expected)
    worst = np.unravel_index(np.argmax(error / steps), error.shape)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        raise Wrong(
            f"q{_index(worst)} = {q[worst]} belongs to channel {worst[axis]}, whose scale is {steps[worst]:.4g}: "
            f"it stands for {expected[worst]:.6g}, but came back as {x[worst]:.6g}"
        )


def _loop_back_without_the_last(q, scales, axis):
    rows = np.moveaxis(q, axis, 0).astype(np.float32)
    for c in range(len(rows) - 1):
        rows[c] *= scales[c]
    return np.moveaxis(rows, 0, axis)


def _channel_by_comparison(q, scales, axis):
    return q.astype(np.float32) * scales.reshape([len(scales) if i == axis else 1 for i in range(q.ndim)])


DEQUANTIZE_PER_CHANNEL = (
    Misconception(
        "scales spread along the last axis",
        lambda q, scales, axis: q.astype(np.float32) * scales,
        "Scales of shape (C,) line up with the last axis of q, whatever `axis` says. In a square matrix nothing "
        "complains, and every value gets the scale of another channel. Give the scales axes of length 1 where they "
        "do not vary.",
    ),
    Misconception(
        "one new axis, however many there are",
        lambda q, scales, axis: q.astype(np.float32) * scales[:, None],
        "`scales[:, None]` is right for the rows of a matrix. With more axes, or another `axis`, the scales need a "
        "length of 1 everywhere else.",
    ),
    Misconception(
        "always along axis 0",
        lambda q, scales, axis: q.astype(np.float32) * _along(scales, q.ndim, 0),
        "`axis` is not used: the scales were laid along axis 0.",
    ),
    Misconception(
        "the axis is counted from the wrong end",
        lambda q, scales, axis: q.astype(np.float32) * _along(scales, q.ndim, -1 - axis),
        "The scales lie along the mirror image of `axis`. In a square matrix the shapes fit all the same.",
    ),
    Misconception(
        "a negative axis is not found",
        _channel_by_comparison,
        "No axis number i equals -1, so a comparison such as `i == axis` never says yes. "
        "Make the axis positive first, or index a list of lengths with it: a list understands -1.",
    ),
    Misconception(
        "one scale for all channels",
        lambda q, scales, axis: q.astype(np.float32) * scales.max(),
        "Each channel has a scale of its own: that of the loudest makes the quiet ones loud.",
    ),
    Misconception(
        "the first scale for all channels",
        lambda q, scales, axis: q.astype(np.float32) * scales[0],
        "Each channel has a scale of its own, at its own index.",
    ),
    Misconception(
        "the loop ends one channel early",
        _loop_back_without_the_last,
        "The last channel still holds its codes: `range(n)` ends at n - 1 by itself.",
    ),
    Misconception(
        "the channel axis is moved to the front, and not back",
        lambda q, scales, axis: np.moveaxis(q, axis, 0).astype(np.float32) * _along(scales, q.ndim, 0),
        "After `moveaxis` or a transpose the values lie in another order. Move the axis back at the end.",
    ),
    Misconception(
        "divides by the scales",
        lambda q, scales, axis: q.astype(np.float32) / _along(scales, q.ndim, axis),
        "Quantizing divided by the scales; the way back multiplies.",
    ),
    Misconception(
        "the scales are not used",
        lambda q, scales, axis: q.astype(np.float32),
        "A code counts steps. What it stands for is that many steps of its channel's scale.",
    ),
    Misconception(
        "a float64 result",
        lambda q, scales, axis: q.astype(np.float64) * _along(scales, q.ndim, axis),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32.",
    ),
    Misconception(
        "the product is cast back to integers",
        lambda q, scales, axis: wrapping(np.trunc(q * _along(scales, q.ndim, axis)), q.dtype.type),
        "The point of coming back is to have floats again: leave the product as float32.",
    ),
)

# --- compare_quantization_methods -------------------------------------------------------------------------------------


def _compare_cases() -> list[Case]:
    rng = np.random.default_rng(4)
    relu = np.maximum(_uneven((12, 200), 0, seed=5), 0)
    shifted = (rng.normal(size=(8, 100)) + np.linspace(-3, 3, 8)[:, None]).astype(np.float32)
    positive = rng.uniform(5, 6, (6, 50)).astype(np.float32)
    return [
        Case("trained weights at 8 bits", (trained_weights(),)),
        Case("trained weights at 4 bits", (trained_weights(),), {"num_bits": 4}),
        Case("convolution weights at 3 bits", (_trained("block3.depthwise"),), {"num_bits": 3}),
        Case("after a ReLU", (relu,), {"num_bits": 6}),
        Case("channels of different means", (shifted,), {"num_bits": 5}),
        Case("strictly positive values", (positive,)),
        Case("more channels than values in each", (_uneven((40, 9), 0, seed=6),), {"num_bits": 8}),
    ]


def _read_comparison(value: object) -> dict:
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict with the keys {', '.join(METHODS)}, but returned {describe(value)}")
    missing = [name for name in METHODS if name not in value]
    if missing:
        raise Wrong(f"the dict has no {', '.join(missing)} (its keys are {', '.join(map(str, value)) or 'none'})")
    numbers = {}
    for name in METHODS:
        error = value[name]
        if not isinstance(error, dict) or "sqnr_db" not in error:
            raise Wrong(f"{name} should be what `quantization_error` returns, a dict, but it is {describe(error)}")
        numbers |= {f"{name}.{key}": as_number(number, f"{name}: {key}") for key, number in error.items()}
    return numbers


def _judge_comparison(answer: dict, case: Case) -> None:
    right = answers.compare_quantization_methods(*case.args, **case.kwargs)
    for name, error in right.items():
        for measure, expected in error.items():
            got = answer.get(f"{name}.{measure}", math.nan)
            # A value next to a tie may get either code: one or two codes more or less, and 1e-3 of any mean.
            slack = 2 if measure == "codes_used" else 1e-12
            if not math.isclose(got, expected, rel_tol=1e-3, abs_tol=slack):
                raise Wrong(f"{measure} of {name} should be {expected:.6g}, but it is {got:.6g}")


def _error(x: np.ndarray, scheme: Scheme) -> dict:
    quantized = affine.quantize(x, scheme)
    return quantization_error(x, quantized.codes, affine.dequantize(quantized))


def _comparing(
    scheme: Callable = lambda bits, symmetric, granularity: Scheme(bits, symmetric, granularity),
    error: Callable = _error,
    names: Callable = lambda name: name,
) -> Callable:
    """The comparison, of which one part can be replaced by a wrong one."""

    def compare(x, num_bits=8):
        found = {name: error(x, scheme(num_bits, *choice)) for name, choice in METHODS.items()}
        return {name: found[names(name)] for name in METHODS}

    return compare


def _swapped(a: str, b: str) -> Callable:
    return lambda name: name.replace(a, "?").replace(b, a).replace("?", b) if a in name else name.replace(b, a)


def _zero_left_out(x: np.ndarray, scheme: Scheme) -> dict:
    """Asymmetric from (min, max) as they are; the zero point is clamped to the codes."""
    if scheme.symmetric:
        return _error(x, scheme)
    others = None if scheme.granularity == PerTensor() else _others(x.ndim, 0)
    low, high = x.min(axis=others, keepdims=True), x.max(axis=others, keepdims=True)
    scale = (high - low) / scheme.quant_max
    zero_point = np.clip(np.round(-low / scale), 0, scheme.quant_max)
    q = np.clip(np.round(x / scale) + zero_point, 0, scheme.quant_max)
    return quantization_error(x, q.astype(np.uint16), ((q - zero_point) * scale).astype(np.float32))


def _against(codes_or_values: str) -> Callable:
    def error(x, scheme):
        quantized = affine.quantize(x, scheme)
        back = affine.dequantize(quantized)
        if codes_or_values == "codes":
            return quantization_error(x, quantized.codes, quantized.codes.astype(np.float32))
        if codes_or_values == "zero point":
            scale = quantized.scale if quantized.scale.ndim == 0 else _along(quantized.scale, x.ndim, 0)
            return quantization_error(x, quantized.codes, (quantized.codes * scale).astype(np.float32))
        return quantization_error(back, quantized.codes, x)

    return error


COMPARE_QUANTIZATION_METHODS = (
    Misconception(
        "the bits are not passed on",
        _comparing(scheme=lambda bits, symmetric, granularity: Scheme(8, symmetric, granularity)),
        "All four are measured at 8 bits, whatever `num_bits` says. Hand it on to the scheme.",
    ),
    Misconception(
        "per tensor twice",
        _comparing(scheme=lambda bits, symmetric, granularity: Scheme(bits, symmetric, PerTensor())),
        "The per-channel entries are those of one scale for all. The granularity of their scheme is `PerAxis(0)`.",
    ),
    Misconception(
        "per channel twice",
        _comparing(scheme=lambda bits, symmetric, granularity: Scheme(bits, symmetric, PerAxis(0))),
        "The per-tensor entries have a scale for each channel. The granularity of their scheme is `PerTensor()`.",
    ),
    Misconception(
        "symmetric twice",
        _comparing(scheme=lambda bits, symmetric, granularity: Scheme(bits, True, granularity)),
        "The asymmetric entries have no zero point: their scheme needs `symmetric=False`.",
    ),
    Misconception(
        "asymmetric twice",
        _comparing(scheme=lambda bits, symmetric, granularity: Scheme(bits, False, granularity)),
        "The symmetric entries have a zero point: their scheme needs `symmetric=True`, the default.",
    ),
    Misconception(
        "asymmetric is per tensor in both places",
        _comparing(
            scheme=lambda bits, symmetric, granularity: Scheme(
                bits, symmetric, granularity if symmetric else PerTensor()
            )
        ),
        "Symmetry and granularity are two choices of their own. Asymmetric per channel has a scale and a zero point "
        "for each channel.",
    ),
    Misconception(
        "symmetric and asymmetric exchanged",
        _comparing(names=lambda name: name[1:] if name.startswith("a") else f"a{name}"),
        "The numbers are right, but stand under each other's names: symmetric is the one without a zero point.",
    ),
    Misconception(
        "per tensor and per channel exchanged",
        _comparing(names=_swapped("per_tensor", "per_channel")),
        "The numbers are right, but stand under each other's names: per channel is the one with many scales.",
    ),
    Misconception(
        "channels along the last axis",
        _comparing(
            scheme=lambda bits, symmetric, granularity: Scheme(
                bits, symmetric, PerAxis(-1) if isinstance(granularity, PerAxis) else granularity
            )
        ),
        "The contract puts the channels along axis 0, as in a weight of shape (out, in).",
    ),
    Misconception(
        "channels along axis 1",
        _comparing(
            scheme=lambda bits, symmetric, granularity: Scheme(
                bits, symmetric, PerAxis(1) if isinstance(granularity, PerAxis) else granularity
            )
        ),
        "The contract puts the channels along axis 0, as in a weight of shape (out, in).",
    ),
    Misconception(
        "the error against the codes",
        _comparing(error=_against("codes")),
        "Codes count steps, the original is in units of x. Measure against what `dequantize` gives back.",
    ),
    Misconception(
        "the zero point is not subtracted",
        _comparing(error=_against("zero point")),
        "An asymmetric code stands for scale * (q - zero_point). `dequantize` subtracts it.",
    ),
    Misconception(
        "original and reconstruction exchanged",
        _comparing(error=_against("exchanged")),
        "The errors are measured relative to the reconstruction. `quantization_error` takes the original first.",
    ),
    Misconception(
        "the asymmetric range leaves zero out",
        _comparing(error=_zero_left_out),
        "Where all values are positive, the range must still begin at 0, or the zero point does not fit its codes "
        "(lab 02). `Scheme(symmetric=False)` widens the range for you.",
    ),
)

# --- quantize_per_token (stretch) -------------------------------------------------------------------------------------


def _token_cases() -> list[Case]:
    images, _ = data.digits("test")
    pixels = np.moveaxis(data.digits_network().activations(images[:4])["block2.depthwise"], 1, -1).copy()
    silent = _uneven((5, 8), 0, seed=7)
    silent[3] = 0
    quiet = _uneven((6, 10), 0, seed=8) * np.array([1, 1e-9, 1, 1e-7, 1, 1], dtype=np.float32)[:, None]
    return [
        Case("(batch, tokens, features)", (_uneven((2, 5, 7), 1),)),
        Case("(tokens, features)", (_uneven((6, 11), 0, seed=1),)),
        Case("real activations: (images, height, width, channels)", (pixels,), {"num_bits": 4}),
        Case("as many tokens as features", (_uneven((3, 6, 6), 1, seed=2),)),
        Case("one vector", (_uneven((9,), 0, seed=3),)),
        Case("one feature", (_uneven((4, 1), 0, seed=4),)),
        Case("a token that is all zero", (silent,)),
        Case("tokens of tiny values", (quiet,)),
        Case("only negative values", (-np.abs(_uneven((2, 3, 4), 1, seed=5)),), {"num_bits": 6}),
        Case("16 bits", (_uneven((2, 4, 8), 1, seed=6),), {"num_bits": 16}),
    ]


def _judge_tokens(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    if scales.shape != (*x.shape[:-1], 1):
        raise Wrong(
            f"x has shape {x.shape}: with one scale for each token, scales should have shape {(*x.shape[:-1], 1)}, "
            f"but has {scales.shape}"
        )
    _judge_scales(scales, np.abs(x.astype(np.float64)).max(axis=-1, keepdims=True), num_bits, "that token")
    judge_rounding(q, scales, x, num_bits)


def _tokens(
    span: Callable = lambda x: np.abs(x).max(axis=-1, keepdims=True),
    guard: Callable = lambda scales: np.where(scales == 0, 1, scales),
    shape: Callable = lambda scales: scales,
    divisor: Callable = lambda bits: 2 ** (bits - 1) - 1,
) -> Callable:
    def quantize(x, num_bits=8):
        scales = guard(span(x) / divisor(num_bits))
        limit = 2 ** (num_bits - 1)
        q = wrapping(np.clip(np.round(x / scales), -limit, limit - 1), np.int8 if num_bits <= 8 else np.int16)
        return q, shape(scales)

    return quantize


def _in_place(x, num_bits=8):
    q, scales = answers.quantize_per_token(x, num_bits)
    x /= scales
    np.round(x, out=x)
    x *= scales
    return q, scales


QUANTIZE_PER_TOKEN = (
    Misconception(
        "a scale for each feature",
        _tokens(span=lambda x: np.abs(x).max(axis=tuple(range(x.ndim - 1)), keepdims=True)),
        "The features lie along the last axis. A token's scale is shared by its features, so the last axis is the one "
        "that is reduced.",
    ),
    Misconception(
        "a scale for each sequence",
        _tokens(span=lambda x: np.abs(x).max(axis=tuple(range(1, x.ndim)) or 0, keepdims=True)),
        "All tokens of one sequence share a scale here. Reduce the last axis only.",
    ),
    Misconception(
        "axis 1 is reduced",
        _tokens(span=lambda x: np.abs(x).max(axis=min(1, x.ndim - 1), keepdims=True)),
        "That is right for (tokens, features). With a batch in front the features are no longer axis 1, but they are "
        "always the last.",
    ),
    Misconception(
        "one scale for the whole tensor",
        _tokens(span=lambda x: np.abs(x).max(keepdims=True)),
        "Every token has a scale of its own: reduce the last axis only.",
    ),
    Misconception(
        "the last axis is lost",
        _tokens(shape=lambda scales: scales[..., 0]),
        "Keep the reduced axis with length 1, so that `q * scales` works without another thought.",
    ),
    Misconception(
        "a scale for each position, shared by the batch",
        _tokens(span=lambda x: np.abs(x).max(axis=(0, -1) if x.ndim > 1 else -1, keepdims=True)),
        "The same position in two sequences holds two tokens. Reduce the last axis only.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _tokens(span=lambda x: x.max(axis=-1, keepdims=True)),
        "The scale must cover the largest magnitude of its token, which may be negative.",
    ),
    Misconception(
        "a token of zeros divides by zero",
        _tokens(guard=lambda scales: scales),
        "One token is all zero (padding often is): its scale is 0, and 0 / 0 is NaN. Replace that one scale by 1.",
    ),
    Misconception(
        "a floor under the scales",
        lambda x, num_bits=8: _tokens(span=lambda x: np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5))(
            x, num_bits
        ),
        "A smallest magnitude such as 1e-5 rounds a quiet token to zero. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "127 at every bit width",
        _tokens(divisor=lambda bits: 127),
        "127 is the largest code at 8 bits only. Compute it from num_bits.",
    ),
    Misconception(
        "the input is changed",
        _in_place,
        "Dividing in place writes into the caller's activations, which another layer may still need.",
    ),
)

EXERCISES = (
    Exercise(
        name="quantize_per_channel",
        lab=LAB,
        points=3,
        reference=answers.quantize_per_channel,
        cases=_channel_cases,
        read=read_scaled,
        judge=_judge_channels,
        misconceptions=QUANTIZE_PER_CHANNEL,
    ),
    Exercise(
        name="dequantize_per_channel",
        lab=LAB,
        points=2,
        reference=answers.dequantize_per_channel,
        cases=_back_cases,
        read=_read_floats,
        judge=_judge_back,
        misconceptions=DEQUANTIZE_PER_CHANNEL,
    ),
    Exercise(
        name="compare_quantization_methods",
        lab=LAB,
        points=2,
        reference=answers.compare_quantization_methods,
        cases=_compare_cases,
        read=_read_comparison,
        judge=_judge_comparison,
        misconceptions=COMPARE_QUANTIZATION_METHODS,
    ),
    Exercise(
        name="quantize_per_token",
        lab=LAB,
        points=2,
        reference=answers.quantize_per_token,
        cases=_token_cases,
        read=read_scaled,
        judge=_judge_tokens,
        misconceptions=QUANTIZE_PER_TOKEN,
        stretch=True,
    ),
)
