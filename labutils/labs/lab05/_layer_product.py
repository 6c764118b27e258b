"""What a quantized linear layer computes: x by a weight on the grid of 8-bit codes, plus the bias."""

from __future__ import annotations

import numpy as np

from labutils.course.exercise import Wrong
from labutils.course.reading import describe, distinct, place
from labutils.labs.lab05._layer_subject import Expected, Subject, as_float64, dtype_name


def output(subject: Subject) -> dict:
    import torch

    y = subject.layer(subject.x)
    return {"y": as_float64(y), "dtype": dtype_name(y)} if isinstance(y, torch.Tensor) else {"forward": describe(y)}


def has_shape_and_dtype(seen: dict, expected: Expected) -> None:
    if "forward" in seen:
        raise Wrong("forward returned no tensor")  # `read` has said what it returned
    shape = (*expected.x.shape[:-1], len(expected.weight))
    if seen["y"].shape != shape:
        raise Wrong(
            f"for x of shape {expected.x.shape} the result should have shape {shape}, but it has {seen['y'].shape}"
        )
    if seen["dtype"] != expected.dtype:
        raise Wrong(f"for x of {expected.dtype} the result should be {expected.dtype}, but it is {seen['dtype']}")


def effective_weight(subject: Subject) -> dict:
    """The weight that the layer multiplies with: its answers to unit vectors, the bias taken off."""
    import torch

    answers = as_float64(subject.layer(torch.eye(subject.linear.in_features, dtype=subject.x.dtype)))
    at_zero = as_float64(subject.layer(torch.zeros(1, subject.linear.in_features, dtype=subject.x.dtype)))[0]
    bias = 0 if subject.linear.bias is None else as_float64(subject.before["bias"])
    return {"at_zero": at_zero, "weight": (answers - bias).T}


def is_on_the_grid(seen: dict, expected: Expected) -> None:
    found, scale = seen["weight"], expected.scale
    if not np.isfinite(found).all():
        raise Wrong("the result is not finite: is there a scale that is 0?")
    off = np.abs(seen["at_zero"] - expected.bias)
    if (off > expected.scale[:, 0] / 2 + 2 * expected.eps * np.abs(expected.bias)).any():
        worst = int(off.argmax())
        wanted, came = distinct(expected.bias[worst], seen["at_zero"][worst])
        raise Wrong(f"for an x of zeros the result is the bias: output {worst} should be {wanted}, but it is {came}")
    require_half_a_step(found, expected, expected.eps)
    _require_multiples(found, scale, slack_of(expected, expected.eps))


def slack_of(expected: Expected, eps: float) -> np.ndarray:
    """What a weight may be off because the bias is added to it, and the sum rounded."""
    return 2 * eps * (np.abs(expected.weight) + np.abs(expected.bias)[:, None])


def require_half_a_step(found: np.ndarray, expected: Expected, eps: float, when: str = "") -> None:
    """`found` is `expected.weight` to half a step of its row, and what a float with this `eps` loses."""
    weight, scale, slack = expected.weight, expected.scale, slack_of(expected, eps)
    off = np.abs(found - weight) - slack - 2**-15 * scale
    worst = np.unravel_index(np.argmax(off - scale / 2), off.shape)
    if off[worst] > scale[worst[0], 0] / 2:
        raise Wrong(
            f"{when}weight[{place(worst)}] = {weight[worst]:.6g} comes back as {found[worst]:.6g}; with 8 bits and a "
            f"scale for each row, {scale[worst[0], 0]:.4g} here, at most half of that is lost"
        )


def _require_multiples(found: np.ndarray, scale: np.ndarray, slack: np.ndarray) -> None:
    scale = np.where(scale > 0, scale, 1)
    between = np.abs(found - np.round(found / scale) * scale) - slack - 2**-10 * scale
    if (between > 0).any():
        row = int(np.argwhere(between > 0)[0, 0])
        raise Wrong(
            f"row {row} is not multiplied as codes times one scale: max|row| / 127 = {scale[row, 0]:.6g} is the step"
        )


def nothing(subject: Subject) -> dict:
    return {}


def is_linear(seen: dict, expected: Expected) -> None:
    require_product(seen["y"], "the result", seen["weight"], expected, expected.eps)


def require_product(y: np.ndarray, name: str, weight: np.ndarray, expected: Expected, eps: float) -> None:
    """y = x @ weight.T + bias, up to what a float with this `eps` loses in such a sum."""
    wanted = expected.x @ weight.T + expected.bias
    size = np.abs(expected.x) @ np.abs(weight).T + np.abs(expected.bias)
    over = np.abs(y - wanted) - 4 * eps * size * (1 + expected.x.shape[-1] ** 0.5)
    if over.size and not (over <= 0).all():
        worst = np.unravel_index(np.argmax(np.nan_to_num(over, nan=np.inf)), over.shape)
        text, found = distinct(wanted[worst], y[worst], 7)
        raise Wrong(
            f"{name} [{place(worst)}] should be {text}, x by your own quantized weight plus the bias, but it is {found}"
        )


STEPS = (
    (output, has_shape_and_dtype),
    (effective_weight, is_on_the_grid),
    (nothing, is_linear),
)
