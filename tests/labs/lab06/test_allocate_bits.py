"""allocate_bits: a mistake as people make it, and right answers as people write them."""

import functools
import itertools

import numpy as np
import pytest

from labutils.labs.check import examine
from tests.labs.right_answers import passes

pytest.importorskip("torch")

from labutils import models


def test_mean_of_bits_is_recognised():
    def allocate_bits(sensitivity, budget, num_weights):
        if min(sensitivity) > budget:
            raise ValueError
        names = list(num_weights)
        fitting = [
            bits for bits in itertools.product(sensitivity, repeat=len(names)) if sum(bits) <= budget * len(names)
        ]
        return dict(zip(names, min(fitting, key=lambda bits: sum(sensitivity[b][n] for b, n in zip(bits, names)))))

    assert examine(allocate_bits).diagnosis == "the average over layers"


# --- right answers ---


def every_choice(sensitivity, budget, num_weights):
    names = list(num_weights)
    room = budget * sum(num_weights.values())
    best, least = None, float("inf")
    for bits in itertools.product(sensitivity, repeat=len(names)):
        cost = sum(b * num_weights[n] for b, n in zip(bits, names))
        loss = sum(sensitivity[b][n] for b, n in zip(bits, names))
        if cost <= room + 1e-6 and loss < least:
            best, least = dict(zip(names, bits)), loss
    if best is None:
        raise ValueError(f"no choice fits into {budget} bits")
    return best


def numpy_average(sensitivity, budget, num_weights):
    names, sizes = list(num_weights), np.array(list(num_weights.values()))
    choices = np.array(list(itertools.product(sorted(sensitivity), repeat=len(names))))
    losses = np.array([sum(float(sensitivity[int(b)][n]) for b, n in zip(row, names)) for row in choices])
    fits = np.average(choices, axis=1, weights=sizes) <= budget + 1e-9
    if not fits.any():
        raise ValueError("too tight")
    losses[~fits] = np.inf
    return dict(zip(names, choices[np.argmin(losses)]))


def branch_and_bound(sensitivity, budget, num_weights):
    names, widths = list(num_weights), sorted(sensitivity)
    room = budget * sum(num_weights.values()) + 1e-6

    @functools.cache
    def best(i, spent):
        least_left = widths[0] * sum(num_weights[name] for name in names[i:])
        if spent + least_left > room:
            return float("inf"), ()
        if i == len(names):
            return 0.0, ()
        return min(
            (sensitivity[b][names[i]] + rest[0], (b, *rest[1]))
            for b in widths
            for rest in [best(i + 1, spent + b * num_weights[names[i]])]
        )

    loss, bits = best(0, 0)
    if loss == float("inf"):
        raise ValueError("budget too small")
    return dict(zip(names, bits))


def pareto_table(sensitivity, budget, num_weights):
    """Layer by layer, the cheapest way to every loss so far; what costs more and loses more is dropped."""
    states = [(0, 0.0, {})]
    for name, count in num_weights.items():
        grown = sorted(
            (
                (cost + b * count, loss + losses[name], {**bits, name: b})
                for cost, loss, bits in states
                for b, losses in sensitivity.items()
            ),
            key=lambda state: state[:2],
        )
        states, least = [], float("inf")
        for state in grown:
            if state[1] < least:
                states.append(state)
                least = state[1]
    fitting = [state for state in states if state[0] <= budget * sum(num_weights.values()) * (1 + 1e-9)]
    if not fitting:
        raise ValueError("cannot be met")
    return fitting[-1][2]


def linear_program(sensitivity, budget, num_weights):
    return dict(reversed(models.allocate_bits(sensitivity, budget, num_weights).items()))


RIGHT = [every_choice, numpy_average, branch_and_bound, pareto_table, linear_program]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("allocate_bits", answer)
