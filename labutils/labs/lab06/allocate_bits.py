"""allocate_bits: a bit width for each layer, so that a budget is kept and the least is lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils import models
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe
from labutils.labs.lab06 import LESSON
from labutils.labs.recipes import Recipe

HAND = {2: {"first": 30, "second": 8, "head": 1}, 4: {"first": 5, "second": 1, "head": 0}}  # the lesson's losses


def allocate_bits(
    sensitivity: Mapping[int, Mapping[str, float]], budget: float, num_weights: Mapping[str, int]
) -> dict[str, int]:
    """Name -> bits: of all choices whose bits, averaged over all weights, are within `budget`, that of least loss.

    >>> sensitivity = {4: {"first": 0.03, "last": 0.2}, 8: {"first": 0.0, "last": 0.01}}
    >>> allocate_bits(sensitivity, 6, {"first": 100, "last": 100})
    {'first': 4, 'last': 8}
    >>> allocate_bits(sensitivity, 6, {"first": 100, "last": 300})
    {'first': 8, 'last': 4}

    sensitivity[num_bits][name] is what is lost where that layer alone has so many bits; losses are taken to add up.
    ValueError for a budget that even the fewest bits exceed.
    """
    return models.allocate_bits(sensitivity, budget, num_weights)


def cases() -> list[Case]:
    rng = np.random.default_rng(6)

    def random(widths: tuple, layers: int, sizes: tuple = (100, 5000)) -> tuple:
        names = [f"layer{i}" for i in range(layers)]
        worth = dict(zip(names, 10 ** rng.uniform(-2, 1, layers)))
        losses = {b: {n: float(worth[n] * 4.0 ** (2 - b) * rng.uniform(0.7, 1.4)) for n in names} for b in widths}
        return losses, {name: int(rng.integers(*sizes)) for name in names}

    def case(name: str, budget: float, widths: tuple = (4, 8), layers: int = 6, **sizes: Any) -> Case:
        losses, weights = random(widths, layers, **sizes)
        return Case(name, (losses, budget, weights))

    trap = {4: {"a": 60, "b": 50, "c": 50}, 8: {"a": 0, "b": 0, "c": 0}}
    noise = {4: {"a": 0.5, "b": -0.1, "c": 0.2}, 8: {"a": 0.1, "b": 0.3, "c": 0.0}}
    worst = {4: {"a": 5.0, "b": 4.0, "c": 4.0}, 8: {"a": 0.0, "b": 0.0, "c": 0.0}}
    return [
        Case("the worked example", (HAND, 3, {"first": 100, "second": 200, "head": 300})),
        Case("the budget met exactly", (HAND, 2.5, {"first": 100, "second": 100, "head": 200})),
        case("six layers at 4 or 8 bits", 5.5),
        case("six layers at 4 or 8 bits, a tight budget", 4.6),
        case("four layers at 2 to 8 bits", 3.7, widths=(2, 3, 4, 5, 6, 7, 8), layers=4),
        case("a large layer and small ones", 5.0, widths=(2, 4, 8), layers=5, sizes=(10, 100_000)),
        Case("two small layers are worth more than a large one", (trap, 6.5, {"a": 150, "b": 125, "c": 125})),
        Case("more bits are not better everywhere", (noise, 8, {"a": 10, "b": 20, "c": 30})),
        Case("the sum counts, not the worst layer", (worst, 5.9, {"a": 300, "b": 150, "c": 150})),
        case("a budget for the most bits everywhere", 8.0, widths=(2, 4, 8), layers=3),
        case("one layer", 4.5, widths=(2, 3, 4, 5), layers=1),
        case("a budget that cannot be met", 3.9, layers=3),
    ]


def returning_value_errors(submission: Callable, *args: Any) -> Any:
    try:
        return submission(*args)
    except ValueError as error:
        return error


def read(value: Any) -> dict:
    if isinstance(value, ValueError):
        return {"refused": True}
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict, name -> bits, but it returned {describe(value)}")
    return {"refused": False, **{str(name): as_number(bits, f"the bits of {name}") for name, bits in value.items()}}


def judge(answer: dict, case: Case) -> None:
    losses, budget, num_weights = case.args
    total = sum(num_weights.values())
    if min(losses) > budget:
        if not answer["refused"]:
            raise Wrong(f"{budget:g} bits cannot be met with {min(losses)} and more: raise a ValueError")
        return
    if answer["refused"]:
        raise Wrong(f"it raised ValueError, but {budget:g} bits can be met")
    bits = {name: value for name, value in answer.items() if name != "refused"}
    if bits.keys() != num_weights.keys():
        raise Wrong(f"the layers are {', '.join(num_weights)}, but the dict has {', '.join(bits) or 'nothing'}")
    for name, value in bits.items():
        if value not in losses:
            raise Wrong(f"`{name}` got {value:g} bits, but the choice is {', '.join(map(str, losses))}")
    spent = sum(num_weights[name] * value for name, value in bits.items()) / total
    if spent > budget * (1 + 1e-9):
        raise Wrong(f"{in_words(bits)} is {spent:.4g} bits on average over all weights, but the budget is {budget:.4g}")
    best = allocate_bits(losses, budget * (1 + 1e-9), num_weights)
    loss, least = (sum(losses[int(choice[name])][name] for name in num_weights) for choice in (bits, best))
    if loss > least + 1e-9 * max(1.0, abs(least)):
        raise Wrong(
            f"{in_words(bits)} loses {loss:.4g} in all; {in_words(best)} fits the budget too and loses {least:.4g}"
        )


def bits_in_order(answer: dict) -> dict:
    return {"bits": np.array([bits for name, bits in sorted(answer.items()) if name != "refused"])}


def in_words(bits: dict) -> str:
    return ", ".join(f"{name}: {int(value)}" for name, value in bits.items())


@dataclass(frozen=True)
class Search(Recipe):
    """Of all choices whose average fits the budget, that of the smallest loss."""

    choices: Callable = lambda widths, count: itertools.product(widths, repeat=count)
    average: Callable = lambda bits, weights: sum(b * w for b, w in zip(bits, weights)) / sum(weights)
    fits: Callable = lambda average, budget: average <= budget * (1 + 1e-9)
    loss: Callable = lambda losses, bits, weights: sum(losses)
    refuses: bool = True  # a budget that cannot be met

    def __call__(self, sensitivity, budget, num_weights):
        names, weights, widths = list(num_weights), list(num_weights.values()), sorted(sensitivity)
        choices = self.choices(widths, len(names))
        fitting = [bits for bits in choices if self.fits(self.average(bits, weights), budget)]
        if not fitting and self.refuses:
            raise ValueError("the budget cannot be met")
        if not fitting:
            return dict.fromkeys(names, widths[0])
        losses_of = {bits: [sensitivity[b][name] for b, name in zip(bits, names)] for bits in fitting}
        return dict(zip(names, min(fitting, key=lambda bits: self.loss(losses_of[bits], bits, weights))))


right = Search()


def greedy(worth: Callable, stops: bool = False) -> Callable:
    """Starts with the fewest bits, and gives each layer in turn, the most worthy first, as many as still fit."""

    def allocate(sensitivity, budget, num_weights):
        widths = sorted(sensitivity)
        if widths[0] > budget:
            raise ValueError("the budget cannot be met")
        bits = dict.fromkeys(num_weights, widths[0])
        left = (budget * (1 + 1e-9) - widths[0]) * sum(num_weights.values())
        for name in sorted(num_weights, key=lambda name: -worth(sensitivity, name, num_weights)):
            fitting = [b for b in widths if (b - bits[name]) * num_weights[name] <= left]
            if stops and fitting[-1] != widths[-1]:
                break
            left -= (fitting[-1] - bits[name]) * num_weights[name]
            bits[name] = fitting[-1]
        return bits

    return allocate


def sensitivity_of(losses, name, num_weights):
    return losses[min(losses)][name]


def gain_per_bit(losses, name, num_weights):
    return (losses[min(losses)][name] - losses[max(losses)][name]) / num_weights[name]


NOT_OPTIMAL = (
    "Serving layers one after the other is not always best: one large layer may take the room in which two others "
    "would have gained more. With so few layers, try every choice."
)

MISCONCEPTIONS = (
    Misconception("the average over layers", right.but(average=lambda bits, weights: sum(bits) / len(bits)),
        "A large layer takes more of the budget than a small one. The average is over weights: bits times number of "
        "weights, summed, over all weights."),
    Misconception("the most sensitive layers first", greedy(sensitivity_of), NOT_OPTIMAL),
    Misconception("the most sensitive layers first, until one does not fit",
        greedy(sensitivity_of, stops=True), NOT_OPTIMAL),
    Misconception("the largest gain for each bit first", greedy(gain_per_bit), NOT_OPTIMAL),
    Misconception("the least sensitive layers get the bits",
        right.but(loss=lambda losses, bits, weights: -sum(losses)),
        "The sum of losses should be as small as it can be, not as large."),
    Misconception("the worst layer instead of the sum", right.but(loss=lambda losses, bits, weights: max(losses)),
        "You kept the largest single loss small. The contract asks for the least sum over all layers."),
    Misconception("losses weighted by size",
        right.but(loss=lambda losses, bits, weights: sum(a * w for a, w in zip(losses, weights))),
        "A layer's loss is already that of the whole layer, small or large. Its number of weights counts in the "
        "budget only."),
    Misconception("one bit width for all layers",
        right.but(choices=lambda widths, count: [(b,) * count for b in widths]),
        "That is the best uniform choice. Each layer may have bits of its own."),
    Misconception("the fewest bits everywhere", right.but(loss=lambda losses, bits, weights: sum(bits)),
        "That fits any budget, and loses the most. Spend the budget where it helps."),
    Misconception("the whole budget is spent",
        right.but(loss=lambda losses, bits, weights: (-sum(b * w for b, w in zip(bits, weights)), sum(losses))),
        "A choice that uses more of the budget is not better for that. What counts is the sum of losses."),
    Misconception("the budget must not be met exactly",
        right.but(fits=lambda average, budget: average < budget * (1 - 1e-9)),
        "A choice that takes exactly the budget is within it."),
    Misconception("the budget is rounded", right.but(fits=lambda average, budget: round(average) <= math.ceil(budget)),
        "5.4 bits are more than 5.2. Compare the average with the budget as they are."),
    Misconception("the budget is ignored", right.but(fits=lambda average, budget: True),
        "Without a budget, more bits everywhere are nearly always best. Leave out the choices that cost more."),
    Misconception("a budget that cannot be met is passed over", right.but(refuses=False),
        "If not even the fewest bits everywhere fit, the caller should know: raise a ValueError."),
)  # fmt: skip

EXERCISE = Exercise(
    name="allocate_bits",
    lab=LESSON,
    place=50,
    points=3,
    reference=allocate_bits,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    shown=bits_in_order,
    stretch=True,
    run=returning_value_errors,
)
