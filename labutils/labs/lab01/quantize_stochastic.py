"""quantize_stochastic: up or down by chance, right on average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import real_array
from labutils.arrays.scheme import Scheme
from labutils.course.comparison import same_answer
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import families
from labutils.labs.contract import (
    float32_noise,
    judge_codes,
    judge_rounding,
    judge_scale,
    read_quantized,
    trained_weights,
)
from labutils.labs.lab01 import LESSON
from labutils.labs.recipes import Symmetric


def quantize_stochastic(x: np.ndarray, num_bits: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rounds 2.3 to 3 with probability 0.3 and to 2 otherwise, so that the mean is 2.3 again.

    >>> x = np.append(np.full(100_000, 0.23), 12.7).astype(np.float32)
    >>> q, scale = quantize_stochastic(x, 8, np.random.default_rng(0))
    >>> sorted(set(q.tolist())), round(float(q[:-1].mean()), 1)
    ([2, 3, 127], 2.3)

    NumPy only. Gupta et al. 2015 (arXiv:1502.02551), section 3.1.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    scheme = Scheme(num_bits)
    _, x = real_array(x)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a NumPy array, got {type(x).__name__}")
    scale, _ = affine.choose_qparams(x, scheme)
    steps = np.floor(x.astype(scale.dtype) / scale + rng.random(x.shape, dtype=np.float64))
    return np.clip(steps, scheme.quant_min, scheme.quant_max).astype(scheme.code_dtype), scale


def cases() -> list[Case]:
    w = trained_weights()
    matrix = np.full((200, 100), 0.23, np.float32)
    matrix[0, 0] = 12.7
    repeated = np.append(np.full(20_000, 0.23), 12.7).astype(np.float32)
    return [
        Case("20000 times 2.3 steps", (repeated, 8, np.random.default_rng(3))),
        Case("20000 times -2.3 steps", (-repeated, 8, np.random.default_rng(4))),
        Case("200 rows of 100 times 2.3 steps", (matrix, 8, np.random.default_rng(9))),
        Case("trained weights at 8 bits", (w, 8, np.random.default_rng(5))),
        Case("trained weights at 4 bits", (w, 4, np.random.default_rng(6))),
        Case("trained weights at 12 bits", (w, 12, np.random.default_rng(10))),
        Case("whole steps stay where they are", (np.arange(-7, 8, dtype=np.float32), 4, np.random.default_rng(7))),
        Case("tiny values", (w * np.float32(1e-9), 8, np.random.default_rng(11))),
        Case("all zero", (np.zeros(10, dtype=np.float32), 8, np.random.default_rng(8))),
    ]


def with_use_of_rng(submission: Callable, x: np.ndarray, num_bits: int, rng: np.random.Generator) -> tuple:
    before = rng.bit_generator.state
    answer = submission(x, num_bits, rng)
    return answer, rng.bit_generator.state != before


def read(value: tuple) -> dict:
    answer, used = value
    return read_quantized(answer) | {"used": used}


def codes_and_scale(answer: dict) -> dict:
    return {name: answer[name] for name in ("q", "scale")}


def judge(answer: dict, case: Case) -> None:
    x, num_bits, _ = case.args
    q, scale = answer["q"], answer["scale"]
    judge_codes(q, x, num_bits)
    quant_max = Scheme(num_bits).quant_max
    judge_scale(scale, float(np.abs(x).max()) / quant_max, f"max|x| / {quant_max}")
    judge_rounding(q, scale, x, num_bits, most=1.0)
    # Each rounding has a variance of at most 1/4 step^2: the mean of n lies within 5 * 0.5 / sqrt(n) steps of 0.
    steps = x.astype(np.float64) / scale
    bias, bound = float(np.mean(q - steps)), 2.5 / math.sqrt(x.size)
    if abs(bias) > bound:
        raise Wrong(f"on average the codes are off by {bias:+.3f} steps; chance explains at most {bound:.3f}")
    drawn = np.abs(steps - q) > 0.5 + float32_noise(quant_max)
    fractional = np.abs(steps - np.round(steps)) > 0.1
    if fractional.sum() > 1000 and not drawn.any():
        raise Wrong("every value went to its nearest code: nothing was left to chance")
    if (shared := shared_draws(q)) and fractional.sum() > 1000:
        which = {"all": "all elements", "column": "all elements of a column", "row": "all elements of a row"}[shared]
        raise Wrong(f"{which} were rounded the same way: each code should be drawn independently of the others")
    if fractional.sum() > 1000 and not answer["used"]:
        raise Wrong("no number was drawn from `rng`: a generator made inside draws what the caller cannot choose")


def alike(one: dict, other: dict) -> bool:
    """Whether two answers are drawn from one distribution: codes occur as often, and rows or columns share draws."""
    q, p = one["q"], other["q"]
    if same_answer(one, other):
        return True
    others = [{key: value for key, value in answer.items() if key != "q"} for answer in (one, other)]
    if not same_answer(*others) or (q.shape, q.dtype) != (p.shape, p.dtype) or shared_draws(q) != shared_draws(p):
        return False
    if shared_draws(q):  # then few draws decide all codes
        return True
    low = int(min(q.min(), p.min()))
    counts = [np.bincount(codes.astype(np.int64).reshape(-1) - low, minlength=2**16).astype(float) for codes in (q, p)]
    deviation = np.sqrt(counts[0] + counts[1] + 1)  # of a difference of two counts
    return bool((np.abs(counts[0] - counts[1]) <= 5 * deviation).all())


def shared_draws(q: np.ndarray) -> str:
    """'all', 'column', 'row': which elements of equal value got one and the same draw; "" if each has its own."""
    if q.size < 100:
        return ""
    for name, axis in (("all", None), ("column", 0), ("row", -1)):
        if axis is None or q.ndim > 1:
            lines = q.reshape(1, -1) if axis is None else np.moveaxis(q, axis, -1).reshape(-1, q.shape[axis])
            most = np.array([np.bincount(line.astype(np.int64) - int(line.min())).max() for line in lines])
            if np.mean(most >= lines.shape[1] - 1) > 0.9:  # one value in each is the outlier
                return name
    return ""


@dataclass(frozen=True)
class Drawn(Symmetric):
    """The recipe whose `round` is of steps and a random generator."""

    round: Callable = lambda steps, rng: np.floor(steps + rng.random(steps.shape))

    def __call__(self, x, num_bits, rng):
        return Symmetric.__call__(self.but(round=lambda steps: self.round(steps, rng)), x, num_bits)


right = Drawn()


MISCONCEPTIONS = (
    Misconception("rounds to the nearest", right.but(round=lambda steps, rng: np.round(steps)),
        "Nothing is random yet: 2.3 always becomes 2. It should become 3 in three cases of ten."),
    Misconception("a fair coin between floor and ceil",
        right.but(round=lambda steps, rng: np.floor(steps) + (rng.random(steps.shape) < 0.5)),
        "2.3 lies nearer to 2 than to 3. The probability of going up must be the fraction, 0.3."),
    Misconception("noise is added, then the result is rounded to the nearest",
        right.but(round=lambda steps, rng: np.round(steps + rng.random(steps.shape))),
        "Noise from 0 to 1 pushes up by half a step on average. With `np.floor` in place of `round` it is unbiased."),
    Misconception("up and down are exchanged",
        right.but(round=lambda steps, rng: np.floor(steps) + (rng.random(steps.shape) >= steps - np.floor(steps))),
        "2.3 went to 3 in seven cases of ten. The probability of going up is the fraction."),
    Misconception("truncates towards zero",
        right.but(round=lambda steps, rng: np.trunc(steps + rng.random(steps.shape))),
        "`np.trunc` and casting go up for negative values. Use `np.floor`, which goes down for every sign."),
    Misconception("Gaussian noise is added, then the result is rounded",
        right.but(round=lambda steps, rng: np.round(steps + rng.normal(size=steps.shape))),
        "A normal number may be larger than 1, and then the code is not a neighbour of the value. Draw uniformly."),
    Misconception("the fraction of a negative value is negative",
        right.but(round=lambda steps, rng: np.trunc(steps) + (rng.random(steps.shape) < np.modf(steps)[0])),
        "`np.modf` gives -2.3 the fraction -0.3, which no random number is below: it always becomes -2. Take "
        "`steps - np.floor(steps)`."),
    Misconception("one draw for each column",
        right.but(round=lambda steps, rng: np.floor(steps + rng.random(steps.shape[-1:]))),
        "`rng.random(n)` broadcasts over the rows, so all of a column go the same way. Draw for each element: "
        "`rng.random(x.shape)`."),
    Misconception("draws from another generator than `rng`",
        right.but(round=lambda steps, rng: np.floor(steps + np.random.default_rng(0).random(steps.shape))),
        "A generator seeded inside gives the same numbers at each call, and one of NumPy's own cannot be repeated. "
        "Draw from the `rng` that is given."),
    Misconception("one draw for the whole tensor", right.but(round=lambda steps, rng: np.floor(steps + rng.random())),
        "All elements share one random number, so all go the same way. Draw one for each: `rng.random(x.shape)`."),
    # Not told apart by a distribution: whether the one largest value is clamped or wraps around.
    *(row for row in families.divisors(right) if "wraps around" not in row.name),
    *families.units(right),
    *families.signed_dtypes(right),
    *families.scale_floors(right),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_stochastic",
    lab=LESSON,
    place=60,
    points=2,
    reference=quantize_stochastic,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    alike=alike,
    shown=codes_and_scale,
    run=with_use_of_rng,
    stretch=True,
)
