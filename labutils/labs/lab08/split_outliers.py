"""split outliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from labutils import data
from labutils.arrays.inputs import positive_number, real_array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import parts
from labutils.labs.lab08 import LESSON
from labutils.labs.lab08._shared import _floats, _on_tensors, _place, _require_unchanged

if TYPE_CHECKING:
    pass


Array = Any  # a numpy.ndarray or a torch.Tensor


def split_outliers(x: Array, threshold: float = 6.0) -> tuple[Array, Array]:
    """Two arrays that add up to `x`: its regular channels with zeros elsewhere, and its outlier channels likewise.

    >>> x = np.array([[0.5, -9.0, 1.0], [2.0, 3.0, -1.0]])  # (tokens, channels)
    >>> regular, outliers = split_outliers(x, threshold=6.0)
    >>> regular
    array([[ 0.5,  0. ,  1. ],
           [ 2. ,  0. , -1. ]])
    >>> outliers
    array([[ 0., -9.,  0.],
           [ 0.,  3.,  0.]])

    Channels lie along the last axis. One is an outlier if any magnitude in it is larger than `threshold`; then it goes
    as a whole, since a matrix product can leave out a column, but no single value. Dettmers et al., 2022, "LLM.int8()"
    (arXiv:2208.07339), section 3.2. TypeError or ValueError for NaN, Inf, no axis, a threshold that is not positive.
    """
    xp, x = real_array(x)
    threshold = positive_number(threshold, "threshold")
    if x.ndim == 0:
        raise ValueError("x needs at least one axis, the channels, got shape ()")
    peaks = xp.max(xp.reshape(xp.abs(x), (-1, x.shape[-1])), axis=0)
    if not bool(xp.all(xp.isfinite(peaks))):
        raise ValueError(f"x must be finite, but holds NaN or Inf (shape {tuple(x.shape)})")
    outlier, zero = peaks > threshold, xp.zeros((), dtype=x.dtype, device=array_api_compat.device(x))
    return xp.where(outlier, zero, x), xp.where(outlier, x, zero)


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


EXERCISE = Exercise(
    name="split_outliers",
    lab=LESSON,
    place=30,
    points=2,
    reference=split_outliers,
    cases=_split_cases,
    read=_read_split,
    judge=_judge_split,
    misconceptions=SPLIT_OUTLIERS,
    run=_on_tensors,
)
