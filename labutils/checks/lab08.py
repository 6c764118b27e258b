"""Lab 08: scales that smooth, layers that are smoothed, outlier channels that are split off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from labutils import answers, data
from labutils.checks.contract import trained_weights
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_array, describe, parts

LAB = "08_outliers"
ACTIVATION_MAX = np.array([16.0, 1.0, 4.0], dtype=np.float32)  # the lesson's example
WEIGHT = np.array([[0.5, -0.25, 0.25], [-1.0, 1.0, 0.125]], dtype=np.float32)

# Cases hold NumPy arrays, which the engine can copy and compare, and `run` makes tensors and modules of them. Torch is
# imported when a check runs: the exercises can be listed where it is not installed.


class _Changed(NamedTuple):
    """In place of an answer: what the submission changed, and should not have."""

    what: str


def _on_tensors(submission: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a submission with tensors for arrays; an answer only where it leaves them as they are."""
    import torch

    tensors = [torch.tensor(np.array(arg, order="C")) if isinstance(arg, np.ndarray) else arg for arg in args]
    value = submission(*tensors, **kwargs)
    if any(isinstance(arg, np.ndarray) and tensor.numpy().tobytes() != np.array(arg, order="C").tobytes()
           for arg, tensor in zip(args, tensors)):  # fmt: skip
        return _Changed("tensor")
    return value


def _require_unchanged(value: Any) -> None:
    if isinstance(value, _Changed):
        raise Wrong(f"it changed the {value.what} it was given: work on a copy")


def _floats(value: Any, name: str) -> np.ndarray:
    """In float64: which float dtype an answer has is left open."""
    array = as_array(value, name)
    if array.dtype.kind != "f":
        raise Wrong(f"{name} should hold floats, but its dtype is {array.dtype}")
    return array.astype(np.float64)


def _place(where: tuple) -> str:
    return ", ".join(str(int(i)) for i in where)


def _judge_close(found: np.ndarray, wanted: np.ndarray, name: str, meaning: str, tolerance: float = 1e-5) -> None:
    """Equal up to `tolerance` of the largest wanted magnitude; names the worst element."""
    if found.shape != wanted.shape:
        raise Wrong(f"{name} should have shape {wanted.shape}, but has {found.shape}")
    off = np.abs(found - wanted)
    off = np.where(np.isfinite(off), off, np.inf)
    worst = np.unravel_index(np.argmax(off), off.shape)
    if off[worst] > tolerance * np.abs(wanted).max() + 1e-30:
        raise Wrong(f"{name}[{_place(worst)}] should be {meaning} = {wanted[worst]:.6g}, but it is {found[worst]:.6g}")


# --- smooth_scales ----------------------------------------------------------------------------------------------------


def _real_maxima() -> np.ndarray:
    """The largest magnitude of each channel that enters the digits network's last pointwise layer, (64,)."""
    images, _ = data.digits("train")
    seen = data.digits_network().activations(images[:64])["block3.depthwise"]
    return np.abs(seen).max(axis=(0, 2, 3))


def _scale_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    w, seen = trained_weights(), _real_maxima()
    uneven = (rng.normal(size=(12, 12)) * np.geomspace(0.05, 5, 12)[:, None]).astype(np.float32)
    loud = (np.geomspace(30, 0.3, 12) * rng.uniform(0.8, 1.2, 12)).astype(np.float32)
    silent, idle = loud.copy(), uneven.copy()
    silent[[2, 7]] = 0
    idle[:, 4] = 0
    negative = -np.abs(uneven)
    negative[0] = 1e-3
    f4 = np.float32
    return [
        Case("the worked example", (ACTIVATION_MAX, WEIGHT), {"alpha": 0.5}),
        Case("real weights and activations, alpha = 0.75", (seen, w), {"alpha": 0.75}),
        Case("real weights and activations, alpha left at its default, 0.5", (seen, w)),
        Case("as many outputs as inputs, alpha = 0.8", (loud, uneven), {"alpha": 0.8}),
        Case("alpha = 0.25", (loud, uneven), {"alpha": 0.25}),
        Case("alpha = 1: all of it into the weights", (loud, uneven), {"alpha": 1.0}),
        Case("alpha = 0: all of it into the activations", (loud, uneven), {"alpha": 0.0}),
        Case("the largest weights are negative", (loud, negative), {"alpha": 0.6}),
        Case("two channels that were never active", (silent, uneven), {"alpha": 0.5}),
        Case("a channel whose weights are all 0", (loud, idle), {"alpha": 0.7}),
        Case("one output", (loud, uneven[:1]), {"alpha": 0.6}),
        Case("one channel", (np.array([9.0], f4), np.array([[0.5], [-2.0]], f4)), {"alpha": 0.5}),
        Case("activations a million times smaller", (loud * f4(1e-6), uneven), {"alpha": 0.4}),
    ]


def read_scales(value: Any) -> dict:
    """The answer of `smooth_scales`."""
    _require_unchanged(value)
    return {"scales": _floats(value, "scales")}


def _judge_scales(answer: dict, case: Case) -> None:
    (activation_max, weight), alpha = case.args, case.kwargs.get("alpha", 0.5)
    scales = answer["scales"]
    a, w = activation_max.astype(np.float64), np.abs(weight.astype(np.float64)).max(axis=0)
    if scales.shape != a.shape:
        raise Wrong(f"scales should have shape {a.shape}, one for each input channel, but has {scales.shape}")
    moves = (a > 0) & (w > 0)
    wanted = np.where(moves, np.where(moves, a, 1) ** alpha / np.where(moves, w, 1) ** (1 - alpha), 1)
    off = np.abs(scales / wanted - 1)
    off = np.where(np.isfinite(off), off, np.inf)
    worst = int(np.argmax(off))
    if off[worst] > 1e-4:
        told = f"max|X| = {a[worst]:.4g} and max|W| = {w[worst]:.4g} in channel {worst}, alpha = {alpha:g}"
        raise Wrong(f"{told}: scales[{worst}] should be {wanted[worst]:.6g}, but it is {scales[worst]:.6g}")


def _scaling(
    power: Callable = lambda a, w, alpha: a**alpha / w ** (1 - alpha),
    weight_max: Callable = lambda weight: weight.abs().amax(0),
    guard: Callable = lambda scales, a, w: scales.masked_fill((a == 0) | (w == 0), 1.0),
    floor: float = 0.0,
) -> Callable:
    """A rule for the scales in which one step can be replaced by a wrong one."""

    def smooth_scales(activation_max, weight, alpha=0.5):
        a, w = activation_max, weight_max(weight)
        return guard(power(a.clamp_min(floor), w.clamp_min(floor), alpha), a, w)

    return smooth_scales


def _weights_in_place(activation_max, weight, alpha=0.5):
    return _scaling(weight_max=lambda weight: weight.abs_().amax(0))(activation_max, weight, alpha)


FLOOR = (
    "A smallest value such as 1e-5 keeps the division alive, but gives a channel that was never active a scale far "
    "from 1, and its weights another size for nothing. The contract: where one of the two maxima is 0, the scale is 1."
)

SMOOTH_SCALES = (
    Misconception(
        "alpha on the wrong side",
        _scaling(lambda a, w, alpha: a ** (1 - alpha) / w**alpha),
        "alpha is how much of the activations' size moves: it is their exponent, and 1 - alpha is that of the weights. "
        "At alpha = 0.5 nobody can tell.",
    ),
    Misconception(
        "upside down",
        _scaling(lambda a, w, alpha: w ** (1 - alpha) / a**alpha),
        "The input is divided by the scales, so a loud channel needs a large one: activations stand above the line.",
    ),
    Misconception(
        "multiplied instead of divided",
        _scaling(lambda a, w, alpha: a**alpha * w ** (1 - alpha)),
        "A channel with large weights should take less from the activations, not more: its weights stand below the "
        "line.",
    ),
    Misconception(
        "alpha as the exponent of both",
        _scaling(lambda a, w, alpha: (a / w) ** alpha),
        "The exponents add up to 1: alpha above the line, 1 - alpha below. At alpha = 0.5 nobody can tell.",
    ),
    Misconception(
        "the weights are left out",
        _scaling(lambda a, w, alpha: a**alpha),
        "This looks at the activations only. The weights of the channel stand below the line, with exponent 1 - alpha.",
    ),
    Misconception(
        "the weights without their exponent",
        _scaling(lambda a, w, alpha: a**alpha / w),
        "The maximum of the weights has an exponent, too: 1 - alpha.",
    ),
    Misconception(
        "alpha is ignored",
        _scaling(lambda a, w, alpha: (a / w) ** 0.5),
        "This is the scale for alpha = 0.5, whatever was asked for. Use alpha in both exponents.",
    ),
    Misconception(
        "the weights' maximum over the wrong axis",
        _scaling(weight_max=lambda weight: weight.abs().amax(1)),
        "weight is (out_features, in_features), and an input channel is a column of it. Take the maximum over the "
        "outputs, so that one number for each input is left.",
    ),
    Misconception(
        "one maximum for all weights",
        _scaling(weight_max=lambda weight: weight.abs().amax().expand(weight.shape[1])),
        "Each channel has its own scale, from its own column of the weight.",
    ),
    Misconception(
        "max(W) instead of max|W|",
        _scaling(weight_max=lambda weight: weight.amax(0)),
        "The largest weight of a column may be a negative one. Magnitudes first, then the maximum.",
    ),
    Misconception(
        "the mean of the weights for their maximum",
        _scaling(weight_max=lambda weight: weight.abs().mean(0)),
        "What costs a quantizer its steps is the largest magnitude of a column, not the average one.",
    ),
    Misconception(
        "a silent channel gets the scale 0",
        _scaling(guard=lambda scales, a, w: scales.masked_fill(w == 0, 1.0)),
        "A channel that was never active has the maximum 0, and so the scale 0: the input is going to be divided by "
        "it. There is nothing to move in such a channel; say so with a scale of 1.",
    ),
    Misconception(
        "a column of zeros gets an infinite scale",
        _scaling(guard=lambda scales, a, w: scales.masked_fill(a == 0, 1.0)),
        "A channel whose weights are all 0 makes the divisor 0. It counts for nothing, whatever enters there: its "
        "scale is 1.",
    ),
    Misconception(
        "no guard for zeros",
        _scaling(guard=lambda scales, a, w: scales),
        "Two channels were never active and get the scale 0, a column of zero weights gets an infinite one. Where one "
        "of the two maxima is 0 there is nothing to move: the scale is 1.",
    ),
    Misconception("a floor under the maxima", _scaling(guard=lambda scales, a, w: scales, floor=1e-5), FLOOR),
    Misconception(
        "a floor under the scales",
        _scaling(guard=lambda scales, a, w: scales.clamp_min(1e-5)),
        FLOOR,
    ),
    Misconception(
        "the input is changed",
        _weights_in_place,
        "Functions whose name ends in _, and assignments into a tensor, change what the caller gave. Work on a copy.",
    ),
)


# --- smooth_linear ----------------------------------------------------------------------------------------------------


class _Bundle(NamedTuple):
    """A module that came out, and what it makes of an input."""

    module: Any
    y: Any = None


def _input_of(channels: int) -> np.ndarray:
    """(9, channels), of all sizes."""
    rng = np.random.default_rng(channels)
    return (rng.normal(size=(9, channels)) * np.geomspace(0.2, 5, 9)[:, None]).astype(np.float32)


def _module(spec: tuple) -> Any:
    """("Linear" or a norm, weight, bias or None) as a module of torch."""
    import torch

    kind, weight, bias = spec
    if kind == "Linear":
        made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    elif kind == "RMSNorm":
        made = torch.nn.RMSNorm(len(weight), eps=0.05)
    else:
        made = torch.nn.LayerNorm(len(weight), eps=0.05, bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        if bias is not None:
            made.bias.copy_(torch.tensor(bias))
    return made


def _on_module(submission: Callable, spec: tuple, scales: np.ndarray) -> Any:
    """Hand a module to a submission, and run what comes out on an input; an answer only where it left them as they are.

    Random numbers are the same each time, so that a layer that was left at its random start can be recognised.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given, divisors = _module(spec), torch.tensor(scales)
        before = copy.deepcopy(given.state_dict())
        torch.manual_seed(0)
        module = submission(given, divisors)
        after = given.state_dict()
        if after.keys() != before.keys() or any(not torch.equal(after[name], before[name]) for name in before):
            return _Changed("layer")
        if not np.array_equal(divisors.numpy(), scales):
            return _Changed("scales")
        if not isinstance(module, torch.nn.Module):
            return _Bundle(module)
        with torch.no_grad():
            return _Bundle(module, module(torch.tensor(_input_of(_features(spec)))))


def _features(spec: tuple) -> int:
    return spec[1].shape[-1]


def _expected_output(spec: tuple) -> np.ndarray:
    """What the module makes of the input, in float64."""
    kind, weight, bias = spec
    x, weight = _input_of(_features(spec)).astype(np.float64), weight.astype(np.float64)
    if kind == "LayerNorm":
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 0.05)
    elif kind == "RMSNorm":
        x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 0.05)
    y = x @ weight.T if kind == "Linear" else x * weight
    return y if bias is None else y + bias


def _parameters(module: Any) -> dict:
    none = np.zeros(0)
    weight, bias = module.weight, getattr(module, "bias", None)
    return {
        "weight": none if weight is None else _floats(weight, "weight"),
        "bias": none if bias is None else _floats(bias, "bias"),
    }


def _layer_cases() -> list[Case]:
    rng = np.random.default_rng(80)
    w = trained_weights()
    bias = rng.normal(size=128).astype(np.float32)
    square = rng.normal(size=(10, 10)).astype(np.float32)
    scales = (np.geomspace(0.25, 16, 64)[rng.permutation(64)]).astype(np.float32)
    some = np.geomspace(0.5, 8, 10)[rng.permutation(10)].astype(np.float32)
    return [
        Case("the worked example", (("Linear", WEIGHT, np.array([1.0, 2.0], np.float32)), _hand_scales())),
        Case("as many outputs as inputs", (("Linear", square, bias[:10]), some)),
        Case("trained weights", (("Linear", w, bias), scales)),
        Case("a layer without bias", (("Linear", w[:20], None), scales)),
        Case("scales of 1 change nothing", (("Linear", square, bias[:10]), np.ones(10, np.float32))),
        Case("powers of two", (("Linear", square[:3], bias[:3]), 2.0 ** np.arange(-4, 6, dtype=np.float32))),
        Case("one input channel", (("Linear", square[:, :1].copy(), bias[:10]), np.array([4.0], np.float32))),
    ]


def _hand_scales() -> np.ndarray:
    return np.array([4.0, 1.0, 4.0], dtype=np.float32)  # of the worked example


def _read_smoothed(value: Any) -> dict:
    import torch

    _require_unchanged(value)
    if not isinstance(value.module, torch.nn.Module):
        came = "several values" if isinstance(value.module, (tuple, list)) else describe(value.module)
        raise Wrong(f"it returned {came}; expected one nn.Module, such as an nn.Sequential")
    if isinstance(value.module, torch.nn.Linear):
        raise Wrong("it returned an nn.Linear; expected a module that divides the input first and holds such a layer")
    layers = [module for module in value.module.modules() if type(module) is torch.nn.Linear]
    if len(layers) != 1:
        raise Wrong(f"the module should hold one nn.Linear, to be quantized later, but it holds {len(layers)}")
    return {"y": _floats(value.y, "its output")} | _parameters(layers[0])


def _judge_smoothed(answer: dict, case: Case) -> None:
    spec, scales = case.args
    _, weight, bias = spec
    _judge_close(answer["weight"], weight.astype(np.float64) * scales, "weight", "weight times the column's scale")
    wanted = np.zeros(0) if bias is None else bias.astype(np.float64)
    if answer["bias"].shape != wanted.shape:
        raise Wrong("the layer had no bias, but now has one" if bias is None else "the layer's bias is gone")
    if bias is not None:
        _judge_close(answer["bias"], wanted, "bias", "the bias as it was")
    _judge_close(answer["y"], _expected_output(spec), "output", "what the layer gave before")


def _smoothing(
    weight: Callable = lambda weight, scales: weight * scales,
    divide: Callable = lambda scales: scales,
    bias: Callable = lambda layer, scales: None,
    layer: Callable = copy.deepcopy,
) -> Callable:
    """A smoothing of a layer in which one step can be replaced by a wrong one."""

    def smooth_linear(linear, scales):
        import torch

        from labutils.outliers import Divide

        made = layer(linear)
        made.weight = torch.nn.Parameter(weight(linear.weight.detach(), scales))
        with torch.no_grad():
            bias(made, scales)
        return torch.nn.Sequential(Divide(divide(scales)), made)

    return smooth_linear


def _new_layer(linear: Any) -> Any:
    import torch

    return torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)


def _layer_without_bias(linear: Any) -> Any:
    import torch

    return torch.nn.Linear(linear.in_features, linear.out_features, bias=False)


def _scale_bias(layer: Any, scales: Any) -> None:
    if layer.bias is not None:
        layer.bias.mul_(scales)


def _undivided(linear, scales):
    return _smoothing()(linear, scales)[1]


def _as_a_tuple(linear, scales):
    return tuple(_smoothing()(linear, scales))


SMOOTH_LINEAR = (
    Misconception(
        "multiplied on the wrong side",
        _smoothing(weight=lambda weight, scales: weight / scales, divide=lambda scales: 1 / scales),
        "The outputs are right, but the outliers grew: this multiplies the input and divides the weight. The size is "
        "to leave the activations.",
    ),
    Misconception(
        "the weight is divided, too",
        _smoothing(weight=lambda weight, scales: weight / scales),
        "Input and weight are both divided, so the outputs are not what they were. What one side loses the other must "
        "gain.",
    ),
    Misconception(
        "the input is multiplied, too",
        _smoothing(divide=lambda scales: 1 / scales),
        "Input and weight are both multiplied, so the outputs are not what they were. What one side gains the other "
        "must lose.",
    ),
    Misconception(
        "the input is not divided",
        _undivided,
        "The weight has the scales in it, but nothing takes them out of the input. Put the division before the layer.",
    ),
    Misconception(
        "the weight is left as it was",
        _smoothing(weight=lambda weight, scales: weight.clone()),
        "The input is divided, but the weight does not make up for it: multiply its columns.",
    ),
    Misconception(
        "rows of the weight instead of columns",
        _smoothing(weight=lambda weight, scales: weight * scales[:, None]),
        "weight is (out_features, in_features): an input channel is a column. Along the last axis the scales line up "
        "by themselves.",
    ),
    Misconception(
        "the bias is scaled, too",
        _smoothing(bias=_scale_bias),
        "The bias is added after the product, and the product did not change. Leave it as it is.",
    ),
    Misconception(
        "the bias is left at random",
        _smoothing(layer=_new_layer),
        "A new nn.Linear starts with random numbers in its weight *and* in its bias. Copy both.",
    ),
    Misconception(
        "the bias is lost",
        _smoothing(layer=_layer_without_bias),
        "The new layer has no bias, the old one has. Copy it as it is.",
    ),
    Misconception(
        "the float layer is changed",
        _smoothing(layer=lambda linear: linear),
        "The layer that was given is part of a model that is still needed, to compare with. Make a copy, or a new "
        "layer.",
    ),
    Misconception(
        "two values instead of a module",
        _as_a_tuple,
        "What divides and what multiplies are to be one module, that can stand where the layer stood: nn.Sequential "
        "runs one after the other.",
    ),
)


# --- split_outliers ---------------------------------------------------------------------------------------------------


def _spiked(shape: tuple[int, ...], channels: dict[int, float], seed: int) -> np.ndarray:
    """Gaussian activations below 4, and in a few channels one value that stands out."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(size=shape), -3.9, 3.9).astype(np.float32)
    for channel, value in channels.items():
        where = (*(int(rng.integers(length)) for length in shape[:-1]), channel)
        x[where] = value
    return x


def _split_cases() -> list[Case]:
    images, _ = data.digits("test")
    pixels = np.moveaxis(data.digits_network().activations(images[:3])["block1.pointwise"], 1, -1).copy()
    steady = _spiked((12, 8), {}, 5)
    steady[:, 3] = -7 + 0.1 * np.arange(12)  # an outlier in most tokens
    return [
        Case("the worked example", (np.array([[0.5, -9.0, 1.0], [2.0, 3.0, -1.0]], np.float32),), {"threshold": 6.0}),
        Case("(tokens, channels), two outlier channels", (_spiked((30, 16), {4: 21.0, 11: -17.0}, 0),)),
        Case("as many tokens as channels", (_spiked((14, 14), {2: 30.0, 9: 8.0}, 1),)),
        Case("(batch, tokens, channels)", (_spiked((3, 7, 12), {0: -12.0, 5: 40.0}, 2),), {"threshold": 5.0}),
        Case("only negative outliers", (_spiked((20, 10), {3: -25.0}, 3),), {"threshold": 6.0}),
        Case("a channel that is loud everywhere", (steady,), {"threshold": 6.0}),
        Case("real activations, (images, height, width, channels)", (pixels,), {"threshold": 3.3}),
        Case("no outliers", (_spiked((9, 10), {}, 6),), {"threshold": 6.0}),
        Case("a small threshold, every channel an outlier", (_spiked((9, 10), {}, 7),), {"threshold": 1e-3}),
        Case("one token, one axis", (_spiked((20,), {6: 9.0, 7: -8.0}, 8),), {"threshold": 6.0}),
    ]


def _read_split(value: Any) -> dict:
    _require_unchanged(value)
    regular, outliers = parts(value, ("regular", "outliers"))
    return {"regular": _floats(regular, "regular"), "outliers": _floats(outliers, "outliers")}


def _judge_split(answer: dict, case: Case) -> None:
    x, threshold = case.args[0].astype(np.float64), case.kwargs.get("threshold", 6.0)
    for name, part in answer.items():
        if part.shape != x.shape:
            raise Wrong(f"{name} should have the shape of x, {x.shape}, but has {part.shape}")
    peaks = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
    outlier = peaks > threshold
    for name, part, wanted in (
        ("outliers", answer["outliers"], np.where(outlier, x, 0)),
        ("regular", answer["regular"], np.where(outlier, 0, x)),
    ):
        wrong = ~np.isclose(part, wanted, rtol=1e-6, atol=0)
        if wrong.any():
            where = np.unravel_index(np.argmax(wrong), wrong.shape)
            channel = int(where[-1])
            side = "above" if outlier[channel] else "not above"
            raise Wrong(
                f"channel {channel} reaches {peaks[channel]:.4g}, {side} the threshold {threshold:g}: "
                f"{name}[{_place(where)}] should be {wanted[where]:.4g}, but it is {part[where]:.4g}"
            )


def _over_tokens(x: Any, reduce: str = "amax") -> Any:
    """One number for each channel."""
    return getattr(x.reshape(-1, x.shape[-1]), reduce)(0)


def _splitting(
    outlier: Callable = lambda x, threshold: _over_tokens(x.abs()) > threshold,
    regular: Callable = lambda x, outlier: x.masked_fill(outlier, 0.0),
    outliers: Callable = lambda x, outlier: x.masked_fill(~outlier, 0.0),
    order: Callable = lambda regular, outliers: (regular, outliers),
) -> Callable:
    """A split in which one step can be replaced by a wrong one."""

    def split_outliers(x, threshold=6.0):
        mask = outlier(x, threshold)
        return order(regular(x, mask), outliers(x, mask))

    return split_outliers


def _split_in_place(x, threshold=6.0):
    mask = _over_tokens(x.abs()) > threshold
    outliers = x.masked_fill(~mask, 0.0)
    x[..., mask] = 0
    return x, outliers


def _excess(x, threshold=6.0):
    regular = x.clamp(-threshold, threshold)
    return regular, x - regular


SPLIT_OUTLIERS = (
    Misconception(
        "single values instead of channels",
        _splitting(outlier=lambda x, threshold: x.abs() > threshold),
        "Only the values above the threshold were taken out. A matrix product can leave out a column, but no single "
        "value: one outlier takes its whole channel along.",
    ),
    Misconception(
        "only what is beyond the threshold",
        _excess,
        "This cuts the outliers off at the threshold and keeps the rest of them apart. Whole channels are to be moved, "
        "as they are.",
    ),
    Misconception(
        "tokens instead of channels",
        _splitting(outlier=lambda x, threshold: (x.abs() > threshold).any(dim=-1, keepdim=True).expand(x.shape)),
        "The last axis holds the channels, and it was reduced: whole tokens were taken out. Reduce all axes but the "
        "last.",
    ),
    Misconception(
        "every sequence for itself",
        _splitting(
            outlier=lambda x, threshold: (
                (x.abs().amax(1, keepdim=True) > threshold).expand(x.shape)
                if x.ndim > 2
                else _over_tokens(x.abs()) > threshold
            )
        ),
        "A channel is an outlier in some sequences here, and not in others. The weight has one column for it: reduce "
        "all axes but the last.",
    ),
    Misconception(
        "every position for itself",
        _splitting(
            outlier=lambda x, threshold: (
                (x.abs().amax(0, keepdim=True) > threshold).expand(x.shape) if x.ndim > 1 else x.abs() > threshold
            )
        ),
        "That is right for (tokens, channels). With a batch in front, axis 0 is the batch: reduce all axes but the "
        "last.",
    ),
    Misconception(
        "the signed maximum",
        _splitting(outlier=lambda x, threshold: _over_tokens(x) > threshold),
        "An outlier may be negative: compare magnitudes with the threshold.",
    ),
    Misconception(
        "the mean for the maximum",
        _splitting(outlier=lambda x, threshold: _over_tokens(x.abs(), "mean") > threshold),
        "One large value in one token is enough: it alone sets the scale. Take the maximum of the magnitudes.",
    ),
    Misconception(
        "the threshold in standard deviations",
        _splitting(outlier=lambda x, threshold: _over_tokens(x.abs()) > threshold * x.std()),
        "The threshold is a magnitude, in the units of x.",
    ),
    Misconception(
        "6 at every threshold",
        _splitting(outlier=lambda x, threshold: _over_tokens(x.abs()) > 6.0),
        "6.0 is the default. Use `threshold`.",
    ),
    Misconception(
        "outliers in both parts",
        _splitting(regular=lambda x, outlier: x.clone()),
        "The two parts must add up to x, but the outlier channels are in both, and would be counted twice. Set them to "
        "zero in `regular`.",
    ),
    Misconception(
        "regular channels in both parts",
        _splitting(outliers=lambda x, outlier: x.clone()),
        "The two parts must add up to x, but `outliers` holds all of it. Set the regular channels to zero there.",
    ),
    Misconception(
        "outliers in neither part",
        _splitting(outliers=lambda x, outlier: x.masked_fill(x == x, 0.0)),
        "The two parts must add up to x, but the outlier channels are gone.",
    ),
    Misconception(
        "the parts exchanged",
        _splitting(order=lambda regular, outliers: (outliers, regular)),
        "The parts are right, in the wrong order: regular first.",
    ),
    Misconception(
        "channels removed instead of set to zero",
        _splitting(
            regular=lambda x, outlier: x[..., ~outlier],
            outliers=lambda x, outlier: x[..., outlier],
        ),
        "That is what a fast kernel does, with the weight's columns chosen alike. Here both parts keep the shape of x, "
        "with zeros, so that they add up.",
    ),
    Misconception(
        "the input is changed",
        _split_in_place,
        "Writing zeros into x changes the activations of whoever called. Work on a copy, or make a new tensor.",
    ),
)


# --- fold_division (stretch) ------------------------------------------------------------------------------------------


def _fold_cases() -> list[Case]:
    rng = np.random.default_rng(88)
    gain = rng.uniform(0.3, 2, 12).astype(np.float32)
    bias = rng.normal(size=12).astype(np.float32)
    scales = np.geomspace(0.25, 16, 12)[rng.permutation(12)].astype(np.float32)
    square = rng.normal(size=(12, 12)).astype(np.float32)
    return [
        Case("a LayerNorm", (("LayerNorm", gain, bias), scales)),
        Case("a linear layer, as many outputs as inputs", (("Linear", square, bias), scales)),
        Case("a linear layer, more outputs than inputs", (("Linear", square[:, :5].copy(), bias), scales)),
        Case("a linear layer without bias", (("Linear", square[:, :7].copy(), None), scales)),
        Case("an RMSNorm, which has no bias", (("RMSNorm", gain, None), scales)),
        Case("trained weights", (("Linear", trained_weights()[:12], bias), scales)),
        Case("scales of 1 change nothing", (("LayerNorm", gain, bias), np.ones(12, np.float32))),
    ]


def _run_fold(submission: Callable, spec: tuple, scales: np.ndarray) -> Any:
    value = _on_module(submission, spec, scales)
    if isinstance(value, _Bundle) and type(value.module) is not type(_module(spec)):
        return _Bundle(describe(value.module), spec[0])
    return value


def _read_folded(value: Any) -> dict:
    _require_unchanged(value)
    if isinstance(value.module, str):
        raise Wrong(f"it returned {value.module}; expected an nn.{value.y}, as it was given")
    return {"y": _floats(value.y, "its output")} | _parameters(value.module)


def _judge_folded(answer: dict, case: Case) -> None:
    spec, scales = case.args
    wanted = _expected_output(spec) / scales
    # Each channel in units of its own: a small one must not hide behind a large one.
    unit = np.abs(wanted).max(axis=0)
    if answer["y"].shape == wanted.shape:
        _judge_close(answer["y"] / unit, wanted / unit, "output", "the output before, divided by the channel's scale,")
    _judge_close(answer["y"], wanted, "output", "the output before, divided by the channel's scale,")


def _folding(
    weight: Callable = lambda weight, scales: weight.div_(scales[:, None] if weight.ndim == 2 else scales),
    bias: Callable = lambda bias, scales: bias.div_(scales),
    make: Callable = copy.deepcopy,
) -> Callable:
    """A folding in which one step can be replaced by a wrong one."""

    def fold_division(before, scales):
        import torch

        made = make(before)
        with torch.no_grad():
            weight(made.weight, scales)
            if getattr(made, "bias", None) is not None:
                bias(made.bias, scales)
        return made

    return fold_division


def _with_default_eps(before: Any) -> Any:
    made = copy.deepcopy(before)
    if hasattr(made, "eps"):
        made.eps = 1e-5
    return made


def _divide_behind(before, scales):
    import torch

    from labutils.outliers import Divide

    return torch.nn.Sequential(before, Divide(scales))


FOLD_DIVISION = (
    Misconception(
        "the bias is not divided",
        _folding(bias=lambda bias, scales: bias),
        "The whole output is to be divided: (x w + b) / s. The bias is a part of it.",
    ),
    Misconception(
        "multiplied instead of divided",
        _folding(
            weight=lambda weight, scales: weight.mul_(scales[:, None] if weight.ndim == 2 else scales),
            bias=lambda bias, scales: bias.mul_(scales),
        ),
        "The next layer's weight was multiplied, so what enters it must be divided.",
    ),
    Misconception(
        "columns of the weight instead of rows",
        _folding(weight=lambda weight, scales: weight.div_(scales)),
        "These scales belong to the *outputs* of this layer, and an output is a row of its weight. A vector lines up "
        "with the last axis unless you give it another shape.",
    ),
    Misconception(
        "only the bias is divided",
        _folding(weight=lambda weight, scales: weight),
        "The whole output is to be divided: (x w + b) / s. The weight is the larger part of it.",
    ),
    Misconception(
        "the norm's eps is lost",
        _folding(make=_with_default_eps),
        "A new norm has eps = 1e-5 unless it is told otherwise. Copy the module, with all that belongs to it.",
    ),
    Misconception(
        "the module is changed",
        _folding(make=lambda before: before),
        "The module that was given is part of a model that is still needed, to compare with. Work on a copy.",
    ),
    Misconception(
        "a division behind the module",
        _divide_behind,
        "That is right, but still an operation at each call. Put the scales into the weight and the bias: then the "
        "division is free.",
    ),
)

EXERCISES = (
    Exercise(
        name="smooth_scales",
        lab=LAB,
        points=3,
        reference=answers.smooth_scales,
        cases=_scale_cases,
        read=read_scales,
        judge=_judge_scales,
        misconceptions=SMOOTH_SCALES,
        run=_on_tensors,
    ),
    Exercise(
        name="smooth_linear",
        lab=LAB,
        points=3,
        reference=answers.smooth_linear,
        cases=_layer_cases,
        read=_read_smoothed,
        judge=_judge_smoothed,
        misconceptions=SMOOTH_LINEAR,
        run=_on_module,
    ),
    Exercise(
        name="split_outliers",
        lab=LAB,
        points=2,
        reference=answers.split_outliers,
        cases=_split_cases,
        read=_read_split,
        judge=_judge_split,
        misconceptions=SPLIT_OUTLIERS,
        run=_on_tensors,
    ),
    Exercise(
        name="fold_division",
        lab=LAB,
        points=2,
        reference=answers.fold_division,
        cases=_fold_cases,
        read=_read_folded,
        judge=_judge_folded,
        misconceptions=FOLD_DIVISION,
        stretch=True,
        run=_run_fold,
    ),
)
