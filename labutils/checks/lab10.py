"""Lab 10: fake quantization with a gradient, a step of training, conversion, and the gradient of a scale."""

from __future__ import annotations

import math
from collections.abc import Callable

import array_api_compat
import numpy as np

from labutils import answers
from labutils.checks.contract import float32_noise, trained_weights
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_array, as_number, describe
from labutils.scheme import Scheme

LAB = "10_training"
HAND = np.array([-0.26, 0.04, 0.11, 0.9], dtype=np.float32)  # the lesson's example: scale 0.1, 3 bits

# Cases hold NumPy arrays, which the engine can copy and compare, and `run` makes torch tensors of them. Torch is
# imported when a check runs: the exercises can be listed where it is not installed.


def _tensors(*arrays: np.ndarray) -> list:
    import torch

    return [torch.tensor(np.array(array, order="C")) for array in arrays]


def _limits(num_bits: int) -> tuple[int, int]:
    scheme = Scheme(num_bits)
    return scheme.quant_min, scheme.quant_max


def _upstream(shape: tuple[int, ...]) -> np.ndarray:
    """What the loss asks of each element: gradients of both signs, none of them 0 or 1."""
    return (np.linspace(0.4, 2.5, math.prod(shape)) * (-1) ** np.arange(math.prod(shape))).reshape(shape).astype("f4")


def _masks(v: np.ndarray, num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the gradient must pass, and where it may: from the last code half a step outwards any share of it is right.

    The paper's mask ends at the last code, torch's half a step beyond, and torch's `minimum` halves it at equality.
    """
    low, high = _limits(num_bits)
    near = 1e-3 + float32_noise(high)  # steps: nearer to the last code, float32 decides on which side a value lies
    return (v >= low + near) & (v <= high - near), (v >= low - 0.5 - near) & (v <= high + 0.5 + near)


def _place(where: tuple) -> str:
    return ", ".join(str(int(i)) for i in where)


# --- fake_quantize_ste ------------------------------------------------------------------------------------------------


def _ste_cases() -> list[Case]:
    rng = np.random.default_rng(10)
    w = trained_weights()
    rows = np.abs(w).max(axis=1, keepdims=True)
    columns = (rng.normal(size=(12, 12)) * np.geomspace(0.1, 10, 12)).astype(np.float32)
    conv = rng.normal(size=(6, 2, 3, 3)).astype(np.float32)
    f4 = np.float32
    return [
        Case("the worked example", (HAND, f4(0.1), 3)),
        Case("trained weights at 8 bits, nothing clamped", (w[:40], f4(np.abs(w).max() / 127), 8)),
        Case("trained weights at 2 bits, most of the grid clamped", (w[:40], f4(np.abs(w).max() / 4), 2)),
        Case("a scale for each row", (w[:20], (rows[:20] / 5).astype(f4), 4)),
        Case("a scale for each column of a square matrix", (columns, np.geomspace(0.02, 2, 12).astype(f4)[None], 4)),
        Case("convolution weights", (conv, rng.uniform(0.2, 0.6, (6, 1, 1, 1)).astype(f4), 3)),
        Case("beyond the lowest code", (-np.abs(w[:4]) - f4(0.2), f4(0.05), 3)),
        Case("beyond the highest code", (np.abs(w[:4]) + f4(0.2), f4(0.05), 3)),
        Case("on the lowest code and on the highest", (np.linspace(-9, 8, 35, dtype=f4), f4(1), 4)),
        Case("a scale far from 1", (w[:4] * f4(1000), f4(np.abs(w[:4]).max() * 1000 / 6), 4)),
        Case("16 bits", (w[:4], f4(np.abs(w[:4]).max() / 32767), 16)),
        Case("one value", (np.array(0.3, f4), f4(0.25), 2)),
    ]


def _forward_and_backward(submission: Callable, x: np.ndarray, scale: np.ndarray, num_bits: int) -> tuple:
    """What comes out, and the gradient that reaches x when the loss asks `_upstream` of the output."""
    import torch

    x, scale = _tensors(x, scale)
    x.requires_grad_()
    y = submission(x, scale, num_bits)
    if isinstance(y, torch.Tensor) and y.requires_grad and y.shape == x.shape:
        y.backward(torch.from_numpy(_upstream(tuple(x.shape))))
    return y, x.grad


def _read_ste(value: tuple) -> dict:
    y, grad = value
    if y is None or not array_api_compat.is_torch_array(y):
        raise Wrong(f"the result should be a torch tensor, but it is {describe(y)}")
    y = as_array(y, "the result")
    # Where shapes differ no gradient was asked for, and the judge says what is wrong with the shape.
    return {"y": y, "grad": np.full(y.shape, np.nan, np.float32) if grad is None else as_array(grad, "the gradient")}


def _judge_ste(answer: dict, case: Case) -> None:
    x, scale, num_bits = case.args
    y, grad = answer["y"], answer["grad"]
    low, high = _limits(num_bits)
    if y.shape != x.shape:
        raise Wrong(f"the result should have the shape of x, {x.shape}, but has {y.shape}")
    if y.dtype != np.float32:
        raise Wrong(f"the result should be float32 like x, but its dtype is {y.dtype}")
    scale = np.broadcast_to(scale.astype(np.float64), x.shape)
    v = x / scale
    codes = y / scale
    noise = 4 * float32_noise(high) + 2.0**-22 * np.abs(v)  # x + (x_hat - x) loses a little more than x_hat
    off = np.abs(codes - np.round(codes)) - noise
    worst = np.unravel_index(np.argmax(off), off.shape)
    if not off[worst] <= 0:
        raise Wrong(
            f"the result at [{_place(worst)}] is {y[worst]:.6g}, which is {codes[worst]:.4g} times its scale "
            f"{scale[worst]:.4g}: it should be a whole number of steps"
        )
    if codes.min() < low - 0.5 or codes.max() > high + 0.5:
        raise Wrong(
            f"{num_bits}-bit codes lie in [{low}, {high}], but the result reaches from {codes.min():.4g} to "
            f"{codes.max():.4g} steps"
        )
    lost = np.abs(np.clip(v, low, high) - codes) - 0.5 - noise
    worst = np.unravel_index(np.argmax(lost), lost.shape)
    if lost[worst] > 0:
        raise Wrong(
            f"x[{_place(worst)}] = {x[worst]:.6g} is {v[worst]:.4g} steps of scale, but the result there is "
            f"{round(float(codes[worst]))} steps"
        )
    if np.isnan(grad).all():
        raise Wrong("no gradient reaches x: the result must depend on x in a way that `backward` can follow")
    if grad.shape != x.shape:
        raise Wrong(f"the gradient should have the shape of x, {x.shape}, but has {grad.shape}")
    upstream = _upstream(x.shape)
    must, may = _masks(v, num_bits)
    share = grad / upstream
    wrong = ~np.where(must, np.abs(share - 1) <= 1e-4, (np.abs(share) <= 1e-4) | (may & (0 < share) & (share < 1.0001)))
    if wrong.any():
        where = np.unravel_index(np.argmax(wrong), wrong.shape)
        inside = "inside the grid, so the gradient passes" if must[where] else "beyond the last code: no gradient"
        wanted = upstream[where] if must[where] else 0
        raise Wrong(
            f"x[{_place(where)}] = {x[where]:.4g} is {v[where]:.4g} steps, {inside}; {upstream[where]:.4g} comes from "
            f"above, {wanted:.4g} should reach x, and {grad[where]:.4g} does"
        )


def _straight(
    to_codes: str = "round",
    limits: Callable = _limits,
    within: Callable = lambda x, scale, v, low, high: (v >= low) & (v <= high),
    back: Callable = lambda grad, scale, mask: grad * mask,
    scale_of: Callable = lambda x, scale, num_bits: scale,
    out: Callable = lambda q, scale: q * scale,
) -> Callable:
    """A fake quantizer with a gradient, in which one step can be replaced by a wrong one."""

    def fake_quantize(x, scale, num_bits=8):
        import torch

        low, high = limits(num_bits)
        scale = scale_of(x.detach(), scale, num_bits)

        class Straight(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                v = x / scale
                ctx.save_for_backward(within(x, scale, v, low, high))
                return out(getattr(torch, to_codes)(v).clamp(low, high), scale)

            @staticmethod
            def backward(ctx, grad):
                (mask,) = ctx.saved_tensors
                return back(grad, scale, mask)

        return Straight.apply(x)

    return fake_quantize


def _everywhere(x, scale, v, low, high):
    return v == v


def _plain(x, scale, num_bits=8):
    """No estimator: torch differentiates `round`, whose derivative is 0."""
    import torch

    low, high = _limits(num_bits)
    return torch.round(x / scale).clamp(low, high) * scale


def _cut_off(x, scale, num_bits=8):
    return _plain(x.detach(), scale, num_bits)


NO_BRAKE = (
    "Beyond the last code `clamp` is flat: moving x there changes nothing, and clamp's own derivative, 0, is the "
    "truth. Only the derivative of `round` is replaced."
)

FAKE_QUANTIZE_STE = (
    Misconception(
        "the gradient of round",
        _plain,
        "Torch knows the derivative of `round`: it is 0 wherever it exists, so nothing can be learned. Going back, "
        "treat `round` as if it were not there.",
    ),
    Misconception(
        "the graph is cut",
        _cut_off,
        "Under `detach` or `no_grad` torch does not see that the result depends on x. Detach only what should have no "
        "gradient, or write the gradient yourself in an `autograd.Function`.",
    ),
    Misconception("gradient outside the clip", _straight(within=_everywhere), NO_BRAKE),
    Misconception(
        "gradient only outside the clip",
        _straight(within=lambda x, scale, v, low, high: (v < low) | (v > high)),
        "The mask is upside down: inside the grid the gradient passes, beyond its ends it stops.",
    ),
    Misconception(
        "gradient stops at the upper end only",
        _straight(within=lambda x, scale, v, low, high: v <= high),
        "The clamp has two ends. Below the lowest code it is flat too.",
    ),
    Misconception(
        "gradient stops at the lower end only",
        _straight(within=lambda x, scale, v, low, high: v >= low),
        "The clamp has two ends. Above the highest code it is flat too.",
    ),
    Misconception(
        "no gradient at the first and the last code",
        _straight(within=lambda x, scale, v, low, high: (v.round() > low) & (v.round() < high)),
        "What rounds to the first or the last code lies inside the grid too. If you round first and clamp then: since "
        "torch 2.14 `clamp` lets no gradient pass at its very bound. Clamp first.",
    ),
    Misconception(
        "gradient times scale",
        _straight(back=lambda grad, scale, mask: grad * mask * scale),
        "x is divided by the scale and the code multiplied by it: going back, the two cancel. If you wrote an "
        "`autograd.Function` for the whole, its gradient inside the grid is just what comes from above.",
    ),
    Misconception(
        "gradient divided by scale",
        _straight(back=lambda grad, scale, mask: grad * mask / scale),
        "x is divided by the scale and the code multiplied by it: going back, the two cancel. The second is missing.",
    ),
    Misconception(
        "what comes from above is ignored",
        _straight(back=lambda grad, scale, mask: mask.to(grad.dtype)),
        "The mask is the derivative of this step alone. By the chain rule it is multiplied with the gradient that "
        "comes from above.",
    ),
    Misconception(
        "the gradient is clamped instead of masked",
        _straight(back=lambda grad, scale, mask: grad.clamp(-1, 1)),
        "It is x that was clamped, not the gradient. Pass the gradient as it is where x lies in the grid, and 0 "
        "elsewhere.",
    ),
    Misconception(
        "the limits of codes applied to x",
        _straight(within=lambda x, scale, v, low, high: (x >= low) & (x <= high)),
        "The lowest and the highest code are limits for x / scale. Compare like with like.",
    ),
    Misconception(
        "returns the codes",
        _straight(out=lambda q, scale: q),
        "Fake quantization comes back to the values that the codes stand for: the network goes on in floats.",
    ),
    Misconception(
        "no clamp",
        _straight(limits=lambda bits: (-(2**30), 2**30)),
        "Codes beyond the last one do not exist, however far x lies outside. Clamp to [-2^(b-1), 2^(b-1) - 1].",
    ),
    Misconception(
        "the lowest code is missing",
        _straight(limits=lambda bits: (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)),
        "b bits have 2^b codes, and the lowest is -2^(b-1). An absmax scale never reaches it (lab 01), but this scale"
        " is given, and x may lie there.",
    ),
    Misconception(
        "127 at every bit width",
        _straight(limits=lambda bits: (-128, 127)),
        "-128 and 127 are the ends of the grid at 8 bits only. Compute them from num_bits.",
    ),
    Misconception(
        "floor instead of round",
        _straight(to_codes="floor"),
        "`floor` always goes down, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "truncation instead of round",
        _straight(to_codes="trunc"),
        "Cutting the fraction off is not rounding: 1.9 becomes 1. Go to the nearest integer.",
    ),
    Misconception(
        "a scale of its own",
        _straight(scale_of=lambda x, scale, num_bits: x.abs().max() / (2 ** (num_bits - 1) - 1)),
        "The scale is given. If it follows x around, the grid moves with every step of training, and conversion must "
        "guess which one was meant.",
    ),
)

# --- qat_step ---------------------------------------------------------------------------------------------------------


def _step_cases() -> list[Case]:
    rng = np.random.default_rng(11)
    f4 = np.float32

    def case(name: str, n: int, c: int, k: int, num_bits: int, reach: float = 1.0, rate: float = 0.05) -> Case:
        """`reach`: how far the weights go, as a fraction of the grid."""
        w = rng.normal(size=(k, c)).astype(f4)
        scale = (np.abs(w).max(axis=1, keepdims=True) / (2 ** (num_bits - 1) - 1) / reach).astype(f4)
        x = rng.normal(size=(n, c)).astype(f4)
        target = (x @ rng.normal(size=(c, k))).astype(f4)
        return Case(name, (w, x, target, scale, num_bits, rate))

    hand = np.array([[0.24, 1.26]], f4), np.array([[1, 2]], f4), np.array([[2]], f4), f4(0.5), 4, 0.1
    return [
        Case("the worked example", hand),
        case("4 bits, a scale for each neuron", 32, 10, 5, 4),
        case("2 bits, half of the weights beyond the grid", 32, 12, 6, 2, reach=3.0),
        case("8 bits", 16, 8, 3, 8),
        case("steps much smaller than the grid's", 64, 6, 4, 3, rate=1e-3),
        case("one input, one neuron", 1, 1, 1, 4),
        case("a square layer", 20, 7, 7, 3, reach=1.5),
    ]


def _step_run(submission: Callable, w, x, target, scale, num_bits: int, learning_rate: float) -> tuple:
    tensors = _tensors(w, x, target, scale)
    new = submission(*tensors, num_bits, learning_rate)
    return new, tensors[0].detach().numpy().tobytes() != np.ascontiguousarray(w).tobytes()


def _read_step(value: tuple) -> dict:
    new, changed = value
    if changed:
        raise Wrong("it changed the weights that it was given: return new ones, and leave w as it is")
    return {"w": as_array(new, "the result")}


def _steps_of(w, x, target, scale, num_bits: int, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights after a step with the gradient everywhere, and where it must pass and where it may."""
    w, x, target, scale = (np.asarray(array, np.float64) for array in (w, x, target, scale))
    v = w / scale
    w_hat = np.clip(np.round(v), *_limits(num_bits)) * scale
    gradient = 2 * (x @ w_hat.T - target).T @ x / target.size
    return w - rate * gradient, *_masks(v, num_bits)


def _judge_step(answer: dict, case: Case) -> None:
    w, new = case.args[0], answer["w"]
    if new.shape != w.shape:
        raise Wrong(f"the new weights should have the shape of w, {w.shape}, but have {new.shape}")
    if new.dtype != np.float32:
        raise Wrong(f"the new weights should be float32, but their dtype is {new.dtype}")
    moved, must, may = _steps_of(*case.args)
    tolerance = 1e-4 * np.abs(moved - w) + 2e-6 * np.maximum(np.abs(w), np.abs(moved - w).max())
    between = (np.minimum(w, moved) - tolerance <= new) & (new <= np.maximum(w, moved) + tolerance)
    wrong = ~np.where(must, np.abs(new - moved) <= tolerance, (np.abs(new - w) <= tolerance) | (may & between))
    if wrong.any():
        where = np.unravel_index(np.argmax(wrong), wrong.shape)
        wanted = moved[where] if must[where] else w[where]
        beyond = "" if must[where] else " lies beyond the grid and"
        raise Wrong(
            f"w[{_place(where)}] = {w[where]:.6g}{beyond} should be {wanted:.6g} after the step, but it is "
            f"{new[where]:.6g}"
        )


def _stepping(
    at: Callable = lambda w, w_hat: w_hat,
    start: Callable = lambda w, w_hat: w,
    mask: Callable = lambda v, low, high: (v >= low) & (v <= high),
    mean: Callable = lambda error, target: 2 * error / target.numel(),
    finish: Callable = lambda new, gradient, quantize: new,
    direction: float = -1,
    rate: Callable = lambda learning_rate, scale: learning_rate,
) -> Callable:
    """A step of training in which one part can be replaced by a wrong one."""

    def step(w, x, target, scale, num_bits, learning_rate):
        import torch

        low, high = _limits(num_bits)

        def quantize(w):
            return torch.round(w / scale).clamp(low, high) * scale

        w_hat = quantize(w)
        gradient = mean(x @ at(w, w_hat).T - target, target).T @ x * mask(w / scale, low, high)
        return finish(start(w, w_hat) + direction * rate(learning_rate, scale) * gradient, gradient, quantize)

    return step


def _no_mask(v, low, high):
    return v == v


def _in_place_step(w, x, target, scale, num_bits, learning_rate):
    new = answers.qat_step(w, x, target, scale, num_bits, learning_rate)
    w.copy_(new)
    return w


def _nobody_asked(w, x, target, scale, num_bits, learning_rate):
    loss = ((x @ answers.fake_quantize_ste(w, scale, num_bits).T - target) ** 2).mean()
    loss.backward()
    return w - learning_rate * w.grad


QAT_STEP = (
    Misconception(
        "the quantized weights are updated",
        _stepping(start=lambda w, w_hat: w_hat),
        "A step is usually far smaller than the grid's. Taken from the quantized weights it is rounded away the next "
        "time, and nothing ever adds up. Move the float weights; they remember.",
    ),
    Misconception(
        "returns quantized weights",
        _stepping(finish=lambda new, gradient, quantize: quantize(new)),
        "The float weights are what training keeps. Rounding them after the step throws away every step smaller than "
        "half of the grid's. They are quantized again in the next forward pass.",
    ),
    Misconception(
        "quantizes after the step only",
        _stepping(at=lambda w, w_hat: w, mask=_no_mask, finish=lambda new, gradient, quantize: quantize(new)),
        "The loss never saw a quantized weight: this is float training, rounded at the end. Compute the loss with the "
        "fake-quantized weights, and give the float ones back.",
    ),
    Misconception(
        "the loss of the float weights",
        _stepping(at=lambda w, w_hat: w, mask=_no_mask),
        "The gradient was taken at the float weights, so training does not know what rounding does to the loss. Use "
        "the fake-quantized weights in the forward pass.",
    ),
    Misconception(
        "the loss of the float weights",
        _stepping(at=lambda w, w_hat: w),
        "The gradient was taken at the float weights, so training does not know what rounding does to the loss. Use "
        "the fake-quantized weights in the forward pass.",
    ),
    Misconception(
        "nothing moves",
        lambda w, x, target, scale, num_bits, learning_rate: w.clone(),
        "No gradient came back. If you wrote `round` without your estimator, its derivative is 0.",
    ),
    Misconception("weights beyond the grid move too", _stepping(mask=_no_mask), NO_BRAKE),
    Misconception(
        "uphill",
        _stepping(direction=1),
        "The gradient points to where the loss grows. Subtract it.",
    ),
    Misconception(
        "the sum instead of the mean",
        _stepping(mean=lambda error, target: 2 * error),
        "The loss is the mean of the squared errors over all elements of target, not their sum.",
    ),
    Misconception(
        "the mean over rows only",
        _stepping(mean=lambda error, target: 2 * error / len(target)),
        "The loss is the mean over all N * K elements of target, samples and neurons.",
    ),
    Misconception(
        "the 2 of the square is missing",
        _stepping(mean=lambda error, target: error / target.numel()),
        "The derivative of a square is twice the error.",
    ),
    Misconception(
        "no learning rate",
        _stepping(rate=lambda learning_rate, scale: 1.0),
        "The step is the gradient times the learning rate.",
    ),
    Misconception(
        "gradient times scale",
        _stepping(rate=lambda learning_rate, scale: learning_rate * scale),
        "Straight through means that the weight gets the gradient of the fake-quantized weight as it is: divided by "
        "the scale and multiplied again, it cancels.",
    ),
    Misconception(
        "returns the gradient",
        _stepping(finish=lambda new, gradient, quantize: gradient),
        "The gradient says where to go. Return the weights after the step.",
    ),
    Misconception(
        "no gradient is asked for",
        _nobody_asked,
        "`w` is a plain tensor, for which torch keeps no gradient. Make a copy of it that requires one, and compute "
        "the loss from that copy.",
    ),
    Misconception(
        "the weights are changed in place",
        _in_place_step,
        "`w -= ...` and `w.copy_` write into the caller's tensor. Make a new one.",
    ),
)

# --- convert_weight ---------------------------------------------------------------------------------------------------


def _convert_cases() -> list[Case]:
    rng = np.random.default_rng(12)
    w = trained_weights()
    f4 = np.float32
    rows = np.abs(w).max(axis=1, keepdims=True)
    square = (rng.normal(size=(12, 12)) * np.geomspace(0.1, 10, 12)[:, None]).astype(f4)
    conv = rng.normal(size=(6, 2, 3, 3)).astype(f4)
    return [
        Case("the worked example", (HAND, f4(0.1), 3)),
        Case("weights that left the grid in training", (w[:20], (rows[:20] / 3).astype(f4), 2)),
        Case("weights that no longer fill the grid", (w[:20], (rows[:20] / 4).astype(f4), 4)),
        Case("8 bits, beyond the grid", (w[:20], (rows[:20] / 200).astype(f4), 8)),
        Case("a square matrix, a scale for each row", (square, np.geomspace(0.05, 5, 12).astype(f4)[:, None], 3)),
        Case("convolution weights", (conv, rng.uniform(0.2, 0.6, (6, 1, 1, 1)).astype(f4), 3)),
        Case("all weights zero", (np.zeros((2, 5), f4), np.array([[0.1], [0.2]], f4), 2)),
        Case("12 bits", (w[:4], f4(np.abs(w[:4]).max() / 2000), 12)),
    ]


def _read_codes(value: object) -> dict:
    return {"q": as_array(value, "the result")}


def _judge_converted(answer: dict, case: Case) -> None:
    w, scale, num_bits = case.args
    q, wanted = answer["q"], Scheme(num_bits)
    if q.shape != w.shape:
        raise Wrong(f"the codes should have the shape of w, {w.shape}, but have {q.shape}")
    if q.dtype.kind != "i":
        raise Wrong(f"the codes should be signed integers ({wanted.code_dtype}), but their dtype is {q.dtype}")
    if q.dtype.name != wanted.code_dtype:
        raise Wrong(f"{num_bits}-bit codes belong into {wanted.code_dtype}, but the result has dtype {q.dtype}")
    if q.min() < wanted.quant_min or q.max() > wanted.quant_max:
        raise Wrong(
            f"{num_bits}-bit codes lie in [{wanted.quant_min}, {wanted.quant_max}], but the result reaches from "
            f"{q.min()} to {q.max()}"
        )
    scale = np.broadcast_to(scale.astype(np.float64), w.shape)
    v = np.clip(w / scale, wanted.quant_min, wanted.quant_max)
    off = np.abs(v - q)
    worst = np.unravel_index(np.argmax(off), off.shape)
    if off[worst] > 0.5 + float32_noise(wanted.quant_max):
        raise Wrong(
            f"w[{_place(worst)}] = {w[worst]:.6g} was trained on a scale of {scale[worst]:.6g}, {v[worst]:.4g} steps "
            f"of it within the grid, but its code is {q[worst]}"
        )


def _converting(
    to_codes: str = "round",
    scale_of: Callable = lambda w, scale, num_bits: scale,
    divide: Callable = lambda w, scale: w / scale,
    clamp: Callable = lambda q, low, high: q.clamp(low, high),
    cast: Callable | None = None,
    finish: Callable = lambda q, scale: q,
) -> Callable:
    """A conversion in which one step can be replaced by a wrong one."""

    def convert(w, scale, num_bits=8):
        import torch

        low, high = _limits(num_bits)
        scale = scale_of(w, scale, num_bits)
        q = clamp(getattr(torch, to_codes)(divide(w, scale)), low, high)
        kind = getattr(torch, Scheme(num_bits).code_dtype)
        q = cast(q) if cast else q.to(torch.int64).to(kind)
        return finish(q, scale)

    return convert


def _absmax(w, scale, num_bits):
    reach = w.abs().amax(dim=tuple(range(1, w.ndim)), keepdim=True)
    return reach.clamp(min=1e-12) / (2 ** (num_bits - 1) - 1)


CONVERT_WEIGHT = (
    Misconception(
        "a new scale from the trained weights",
        _converting(scale_of=_absmax),
        "In training the weights moved, the grid did not: its ends are no longer max|w|. The network learned to work "
        "on the scale that it was trained with, and on no other.",
    ),
    Misconception(
        "a new scale from the trained weights",
        _converting(scale_of=lambda w, scale, num_bits: w.abs().max().clamp(min=1e-12) / (2 ** (num_bits - 1) - 1)),
        "In training the weights moved, the grid did not: its ends are no longer max|w|. The network learned to work "
        "on the scale that it was trained with, and on no other.",
    ),
    Misconception(
        "the scale loses its axes",
        _converting(divide=lambda w, scale: w / scale.squeeze() if w.shape[0] == w.shape[-1] else w / scale),
        "A scale of shape (K, 1) belongs to the rows. Squeezed to (K,) it lies along the last axis, and divides "
        "columns where the matrix is square.",
    ),
    Misconception(
        "no clamp",
        _converting(clamp=lambda q, low, high: q),
        "Training may have pushed weights beyond the last code, where fake quantization clamped them. Clamp before you "
        "cast, or large codes wrap around.",
    ),
    Misconception(
        "truncation instead of round",
        _converting(to_codes="trunc"),
        "A cast cuts the fraction off. Training rounded to the nearest: round before you cast.",
    ),
    Misconception(
        "floor instead of round",
        _converting(to_codes="floor"),
        "`floor` always goes down. Training rounded to the nearest.",
    ),
    Misconception(
        "codes left as floats",
        _converting(cast=lambda q: q),
        "The values are whole numbers, but still stored as floats. Cast them to int8, or int16 above 8 bits.",
    ),
    Misconception(
        "codes wider than they need to be",
        _converting(cast=lambda q: q.int()),
        "int32 takes 4 bytes a code. int8 holds codes of up to 8 bits, int16 of up to 16.",
    ),
    Misconception(
        "int8 at every bit width",
        _converting(cast=lambda q: q.long().char()),
        "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits.",
    ),
    Misconception(
        "returns the fake-quantized weights",
        _converting(finish=lambda q, scale: q * scale),
        "These are still floats. What is stored, and multiplied by the integer kernel, are the codes.",
    ),
    Misconception(
        "multiplies by the scale",
        _converting(divide=lambda w, scale: w * scale),
        "How many steps fit into w? Divide by the length of one.",
    ),
    Misconception(
        "offset codes",
        lambda w, scale, num_bits=8: answers.convert_weight(w, scale, num_bits).int() + 2 ** (num_bits - 1),
        "Codes from 0 on, with 2^(b-1) for zero, are how some files store them. Here codes are signed.",
    ),
)

# --- lsq_gradient -----------------------------------------------------------------------------------------------------


def _lsq_cases() -> list[Case]:
    rng = np.random.default_rng(13)
    w = trained_weights()
    f4 = np.float32

    def case(name: str, x: np.ndarray, reach: float, num_bits: int) -> Case:
        """The grid ends at `reach` times max|x|. Values in the half step beyond its ends, where libraries differ, are
        moved out of it."""
        low, high = _limits(num_bits)
        scale = f4(np.abs(x).max() * reach / high)
        v = x.astype(np.float64) / scale
        v = np.where((v > high - 0.02) & (v < high + 0.6), high + 0.7, v)
        v = np.where((v < low + 0.02) & (v > low - 0.6), low - 0.7, v)
        x = (v * scale).astype(f4)
        return Case(name, (x, scale, rng.normal(0.3, 1, x.shape).astype(f4), num_bits))

    hand = np.array([0.14, -0.26, 0.9], f4), f4(0.1), np.ones(3, f4), 3
    return [
        Case("the worked example", hand),
        case("trained weights, nothing clamped", w[:8], 1.3, 4),
        case("trained weights, a fifth of the grid", w[:20], 0.2, 3),
        case("2 bits", w[20:30], 0.3, 2),
        case("only negative values", -np.abs(w[30:34]), 0.4, 3),
        case("convolution weights", rng.normal(size=(6, 2, 3, 3)).astype(f4), 0.5, 4),
        case("8 bits", w[:4], 0.6, 8),
        Case("one value", (np.array([0.33], f4), f4(0.25), np.array([-2.0], f4), 4)),
    ]


def _lsq_run(submission: Callable, x, scale, grad, num_bits: int) -> object:
    return submission(*_tensors(x, scale, grad), num_bits)


def _read_number(value: object) -> dict:
    return {"gradient": as_number(value, "the result")}


def _lsq(v: np.ndarray, num_bits: int) -> np.ndarray:
    """What each element contributes, before the gradient from above and the scaling."""
    low, high = _limits(num_bits)
    return np.where(v <= low, low, np.where(v >= high, high, np.round(v) - v))


def _judge_lsq(answer: dict, case: Case) -> None:
    x, scale, grad, num_bits = case.args
    each = grad.astype(np.float64) * _lsq(x.astype(np.float64) / float(scale), num_bits)
    factor = 1 / math.sqrt(x.size * Scheme(num_bits).quant_max)
    expected, got = each.sum() * factor, answer["gradient"]
    # float32 leaves v with an error of 2^-23 |v|, and the sum may cancel: compare with what was summed.
    tolerance = factor * np.sum(np.abs(each) + np.abs(grad) * Scheme(num_bits).quant_max * 2.0**-10) * 2e-4
    if not abs(got - expected) <= tolerance:
        raise Wrong(f"the gradient should be {expected:.6g}, but it is {got:.6g}")


def _stepped(
    inside: Callable = lambda v: v.round() - v,
    below: Callable = lambda v, low: low,
    above: Callable = lambda v, high: high,
    upstream: Callable = lambda grad: grad,
    factor: Callable = lambda n, high: 1 / math.sqrt(n * high),
    total: str = "sum",
    times: Callable = lambda scale: 1.0,
) -> Callable:
    """LSQ's gradient, in which one part can be replaced by a wrong one."""

    def gradient(x, scale, grad, num_bits=8):
        import torch

        low, high = _limits(num_bits)
        v = x / scale
        each = torch.where(v <= low, torch.as_tensor(below(v, low), dtype=v.dtype), inside(v))
        each = torch.where(v >= high, torch.as_tensor(above(v, high), dtype=v.dtype), each)
        return getattr(upstream(grad) * each, total)() * factor(x.numel(), high) * times(scale)

    return gradient


LSQ_GRADIENT = (
    Misconception(
        "the factor 1 / sqrt(N * quant_max) is missing",
        _stepped(factor=lambda n, high: 1),
        "This is the gradient itself. LSQ then divides by sqrt(N * quant_max), so that a scale does not run away from "
        "the weights, of which there are many to each scale.",
    ),
    Misconception(
        "the factor without quant_max",
        _stepped(factor=lambda n, high: 1 / math.sqrt(n)),
        "Under the root stands N times the last code: the more codes, the larger each element's share.",
    ),
    Misconception(
        "the factor without N",
        _stepped(factor=lambda n, high: 1 / math.sqrt(high)),
        "Under the root stands the last code times N, the number of elements that share the scale.",
    ),
    Misconception(
        "the factor without its root",
        _stepped(factor=lambda n, high: 1 / (n * high)),
        "The sum over N elements grows like the root of N, so it is divided by a root.",
    ),
    Misconception(
        "the number of levels for quant_max",
        _stepped(factor=lambda n, high: 1 / math.sqrt(n * (2 * high + 1))),
        "Under the root stands the last positive code, 2^(b-1) - 1, not the number of levels.",
    ),
    Misconception(
        "the mean instead of the sum",
        _stepped(total="mean"),
        "The scale is shared, so every element adds its part: a sum. The factor takes care of its size.",
    ),
    Misconception(
        "round is not differentiated",
        _stepped(inside=lambda v: v.round()),
        "This takes the code for a constant, but a larger scale also makes v = x / scale smaller. Straight through "
        "`round`, that gives a second term, -v.",
    ),
    Misconception(
        "the sign is turned",
        _stepped(inside=lambda v: v - v.round()),
        "It is the code minus v. Where rounding went up, a larger scale moves the result further up.",
    ),
    Misconception(
        "-v alone",
        _stepped(inside=lambda v: -v),
        "scale * round(x / scale) is a product. You have differentiated the second factor; the first gives the code.",
    ),
    Misconception(
        "clamped elements are left out",
        _stepped(below=lambda v, low: 0, above=lambda v, high: 0),
        "A clamped element comes out as the last code times scale: it feels the scale more than all others. Only to x"
        " it passes no gradient.",
    ),
    Misconception(
        "the formula of the inside everywhere",
        _stepped(below=lambda v, low: v.round() - v, above=lambda v, high: v.round() - v),
        "Beyond the grid the result is the last code times scale, whatever v is: its derivative is the last code.",
    ),
    Misconception(
        "the clamped code minus v",
        _stepped(below=lambda v, low: low - v, above=lambda v, high: high - v),
        "Beyond the grid the result is the last code times scale, and v does not appear: its derivative is the last "
        "code.",
    ),
    Misconception(
        "the lowest code is positive",
        _stepped(below=lambda v, low: -low),
        "Below the grid the result is the lowest code times scale, and that code is negative.",
    ),
    Misconception(
        "the highest code at both ends",
        _stepped(below=lambda v, low: -low - 1),
        "Below the grid the result is the lowest code times scale: -2^(b-1), a negative number.",
    ),
    Misconception(
        "the lowest code is missing",
        _stepped(below=lambda v, low: low + 1),
        "b bits have 2^b codes, and the lowest is -2^(b-1), one further from 0 than the highest.",
    ),
    Misconception(
        "what comes from above is ignored",
        _stepped(upstream=lambda grad: 1),
        "Each element's share is multiplied by the gradient that comes to it from above, and then summed.",
    ),
    Misconception(
        "gradient times scale",
        _stepped(times=lambda scale: scale),
        "The gradient to the scale is in codes, not in units of x: no scale is left in it.",
    ),
    Misconception(
        "gradient divided by scale",
        _stepped(times=lambda scale: 1 / scale),
        "The derivative of x / scale has an x / scale^2, but it is multiplied by scale again.",
    ),
)

EXERCISES = (
    Exercise(
        name="fake_quantize_ste",
        lab=LAB,
        points=3,
        reference=answers.fake_quantize_ste,
        cases=_ste_cases,
        read=_read_ste,
        judge=_judge_ste,
        misconceptions=FAKE_QUANTIZE_STE,
        run=_forward_and_backward,
    ),
    Exercise(
        name="qat_step",
        lab=LAB,
        points=2,
        reference=answers.qat_step,
        cases=_step_cases,
        read=_read_step,
        judge=_judge_step,
        misconceptions=QAT_STEP,
        run=_step_run,
    ),
    Exercise(
        name="convert_weight",
        lab=LAB,
        points=1,
        reference=answers.convert_weight,
        cases=_convert_cases,
        read=_read_codes,
        judge=_judge_converted,
        misconceptions=CONVERT_WEIGHT,
        run=lambda submission, w, scale, num_bits: submission(*_tensors(w, scale), num_bits),
    ),
    Exercise(
        name="lsq_gradient",
        lab=LAB,
        points=2,
        reference=answers.lsq_gradient,
        cases=_lsq_cases,
        read=_read_number,
        judge=_judge_lsq,
        misconceptions=LSQ_GRADIENT,
        stretch=True,
        run=_lsq_run,
    ),
)
