"""The layer that matters most comes first, and bits are spent as well as can be."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models.conversion import quantize_model
from labutils.models.sensitivity import allocate_bits, layer_sensitivity
from tests.models.examples import GROUPS, inputs, layer, relative_error


def test_the_layer_that_matters_most_comes_first():
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)).requires_grad_(False)
    original[0].weight[:, 0] *= 1000  # a column that nothing is multiplied with spoils the scales of all rows
    x = inputs(64, 32)
    x[:, 0] = 0
    expected = original(x)
    falls = layer_sensitivity(original, lambda m: -float((m(x) - expected).norm()), Scheme(4, granularity=PerAxis(0)))
    assert next(iter(falls)) == "0"
    assert list(falls.values()) == sorted(falls.values(), reverse=True)
    assert falls.keys() == {"0", "1", "2"}
    alone = quantize_model(original, Scheme(4, granularity=PerAxis(0)), skip=["1", "2"])
    assert falls["0"] == pytest.approx(float((alone(x) - expected).norm()))


def test_a_layer_in_two_places_is_measured_once():
    shared = layer(8, 8)
    float_model = nn.Sequential(shared, nn.ReLU(), shared)
    x = inputs(9, 8)
    falls = layer_sensitivity(float_model, lambda m: -relative_error(m(x), float_model(x)), GROUPS)
    assert falls.keys() == {"0"} and falls["0"] > 0


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(2, 8))
def test_bits_are_allocated_as_well_as_can_be(count, seed, budget):
    generator = np.random.default_rng(seed)
    names = [f"layer{i}" for i in range(count)]
    num_weights = {name: int(generator.integers(1, 1000)) for name in names}
    sensitivity = {bits: {name: float(generator.random() * 4.0**-bits) for name in names} for bits in (2, 4, 8)}
    chosen = allocate_bits(sensitivity, budget, num_weights)

    def loss(choice):
        return sum(sensitivity[bits][name] for name, bits in choice.items())

    def fits(choice):
        return sum(num_weights[name] * bits for name, bits in choice.items()) <= budget * sum(num_weights.values())

    every = [dict(zip(names, bits)) for bits in itertools.product((2, 4, 8), repeat=count)]
    best = min(loss(choice) for choice in every if fits(choice))
    assert fits(chosen)
    assert loss(chosen) <= best * (1 + 1e-6) + 1e-9


def test_a_budget_that_cannot_be_met_is_an_error():
    with pytest.raises(ValueError, match="a budget of 3 bits per weight cannot be met: the fewest given are 4"):
        allocate_bits({4: {"a": 0.1}, 8: {"a": 0.0}}, 3, {"a": 10})


@pytest.mark.parametrize(
    ("sensitivity", "budget", "num_weights", "error", "says"),
    [
        ({4: {"a": 0.1}}, 8, {"a": 10, "b": 10}, ValueError, "no loss of 'b'; it has a"),
        ({4: {"a": float("nan")}}, 8, {"a": 10}, ValueError, "the loss of a must be finite"),
        ({4: {"a": "low"}}, 8, {"a": 10}, TypeError, "the loss of a must be a number"),
        ({1: {"a": 0.1}}, 8, {"a": 10}, ValueError, "num_bits must be between 2 and 16"),
        ({4: {"a": 0.1}}, float("nan"), {"a": 10}, ValueError, "budget must be finite"),
        ({4: {"a": 0.1}}, None, {"a": 10}, TypeError, "budget must be a number"),
        ({4: {"a": 0.1}}, 8, {"a": 10.5}, TypeError, "must be a whole number"),
        ({4: {"a": 0.1}}, 8, {"a": -3}, ValueError, "must be at least 1"),
        ({}, 8, {"a": 10}, ValueError, "sensitivity must hold at least one bit width"),
        ({4: {}}, 8, {}, ValueError, "num_weights must name at least one layer"),
    ],
)
def test_what_cannot_be_allocated_is_refused(sensitivity, budget, num_weights, error, says):
    with pytest.raises(error, match=says):
        allocate_bits(sensitivity, budget, num_weights)
