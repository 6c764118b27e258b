"""A relation that is found holds, whatever the arrays are; between unrelated arrays none is found."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils import examine
from labutils.course import engine
from labutils.course.exercise import Case
from labutils.course.relations.circumstances import where_it_is_right
from labutils.course.relations.constants import named_factors
from labutils.course.relations.differences import claims
from labutils.course.relations.pair import Pair
from labutils.course.report import panel, summary
from labutils.labs.catalogue import EXERCISES

seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=4, max_side=7)


def floats(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def codes(seed, shape):
    return np.random.default_rng(seed).integers(-120, 121, shape).astype(np.int16)


def found(answer, right, arguments=None, name="scales"):
    arguments = arguments or {}
    pair = Pair(name, np.asarray(answer), np.asarray(right), named_factors(arguments), arguments)
    return {claim.key: claim.sentence for claim in claims(pair)}


# Distortions of floats: name -> (the distorted array, the key of the claim).
OF_FLOATS = {
    "twice": (lambda r: 2 * r, ("times", 1.0, "2")),
    "a factor of its own": (lambda r: 1.37 * r, ("times", 1.37)),
    "negated": (lambda r: -r, "sign"),
    "shifted": (lambda r: r + 0.25, ("plus", 0.25)),
    "one minus": (lambda r: 1 - r, ("minus", 1.0)),
    "squared": (np.square, ("of", "the square of what it should be")),
    "a reciprocal": (lambda r: 1 / r, ("of", "1 / what it should be")),
    "rounded": (lambda r: np.round(10 * r) / 10, None),
    "magnitudes": (np.abs, ("of", "without its sign")),
    "another dtype": (lambda r: r.astype(np.float32), "dtype"),
    "the largest everywhere": (lambda r: np.full(r.shape, r.max()), ("reduced", "the largest")),
    "reversed": (lambda r: np.flip(r, 0), ("order", "is in reverse order along axis 0")),
    "axes exchanged": (lambda r: np.swapaxes(r, 0, -1), "order"),
    "flattened": (lambda r: r.reshape(-1), "shape"),
    "shuffled": (lambda r: np.random.default_rng(1).permutation(r.reshape(-1)).reshape(r.shape), "sorted"),
    "the last one missing": (lambda r: r[..., :-1], ("length", "last", True)),
    "NaN in one place": (lambda r: np.where(r == r.max(), np.nan, r), "nan"),
    "wrong at the end": (lambda r: np.concatenate([r[..., :-1], r[..., -1:] + 3 + r[..., :1] ** 2], axis=-1), "last"),
    "cut off": (lambda r: np.minimum(r, np.sort(r, axis=None)[-3]), ("cut", "above")),
}


@pytest.mark.parametrize("name", OF_FLOATS)
@given(seed=seeds, shape=shapes)
def test_a_distortion_of_floats_is_found(name, seed, shape):
    distort, key = OF_FLOATS[name]
    right = floats(seed, shape)
    keys = found(distort(right), right)
    if key is not None:
        assert any(k == key or (isinstance(k, tuple) and k[0] == key) for k in keys), keys


@given(seed=seeds, shape=shapes, bits=st.integers(3, 16))
def test_a_known_factor_is_named(seed, shape, bits):
    right = np.abs(floats(seed, shape))
    answer = right * (2**bits - 1) / (2 ** (bits - 1) - 1)
    sentence = found(answer, right, {"num_bits": bits})["times", 1.0, "(2^b - 1) / (2^(b-1) - 1)"]
    assert f"that is {2**bits - 1}/{2 ** (bits - 1) - 1}" in sentence


OF_CODES = {
    "wrapped at 256": (lambda r: (r + 256 * (r > 0)).astype(np.int16), ("wrapped", 8)),
    "one up": (lambda r: (r + np.arange(r.size).reshape(r.shape) % 2).astype(np.int16), ("one off", "up")),
    "shifted by 128": (lambda r: r + np.int16(128), ("plus", 128.0)),
    "unsigned": (lambda r: r.astype(np.uint8).astype(np.int16), ("wrapped", 8)),
    "wrong where negative": (
        lambda r: np.where(r < 0, 3 * r + 5, r).astype(np.int16),
        ("wrong", "for negative values"),
    ),
}


@pytest.mark.parametrize("name", OF_CODES)
@given(seed=seeds, shape=shapes)
def test_a_distortion_of_codes_is_found(name, seed, shape):
    distort, key = OF_CODES[name]
    right = codes(seed, shape)
    assert key in found(distort(right), right, name="q")


@given(seed=seeds, shape=shapes)
def test_an_argument_in_the_answer_is_found(seed, shape):
    right, x = floats(seed, shape), floats(seed + 1, shape)
    assert ("is", "x") in found(x, right, {"x": x})
    assert ("times `{}`", "x") in found(right * x, right, {"x": x})


@given(seed=seeds, shape=shapes)
def test_another_axis_is_found(seed, shape):
    x = floats(seed, shape)
    right = np.abs(x).max(axis=0) / 127
    assert ("axis", "x", (1,)) in found(np.abs(x).max(axis=1) / 127, right, {"x": x.astype(np.float32).astype(float)})


@given(seed=seeds, shape=shapes)
def test_unrelated_arrays_stand_in_no_relation(seed, shape):
    assert found(floats(seed, shape), floats(seed + 1, shape), {"x": floats(seed + 2, shape), "num_bits": 8}) == {}
    assert found(codes(seed, shape), codes(seed + 1, shape), {"num_bits": 4, "group_size": 3}, name="q") == {}


@given(value=st.floats(1e-3, 1e3), other=st.floats(1e-3, 1e3))
def test_one_number_alone_says_nothing_for_sure(value, other):
    pair = Pair("scale", np.asarray(value), np.asarray(other), named_factors({"num_bits": 8}), {})
    for claim in claims(pair):
        if claim.needs == 1 and claim.key[0] == "times":
            factor = value / other
            assert any(math.isclose(abs(factor), known, rel_tol=1e-5) for known, _ in pair.factors.values())


anything = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.float16, np.int8, np.uint8, np.int64, np.uint64]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@given(answer=anything, right=anything, x=anything, bits=st.integers(1, 16))
def test_whatever_was_answered_nothing_breaks(answer, right, x, bits):
    for claim in claims(
        Pair("q", answer, right, named_factors({"x": x, "num_bits": bits}), {"x": x, "num_bits": bits})
    ):
        assert "nan" not in claim.sentence.split(" is ")[0] and len(claim.sentence) < 300
    for claim in claims(Pair("q", right, right.copy())):
        pytest.fail(f"equal arrays were told {claim}")


# In a report.


def named(function, name):
    function.__name__ = name
    return function


def twice_the_scale(x, num_bits=8):
    q, scale = EXERCISES["quantize_symmetric"].reference(x, num_bits)
    return q, 3 * scale


def test_a_report_says_how_the_answer_differs_where_nothing_names_it():
    report = examine(named(twice_the_scale, "quantize_symmetric"))
    assert report.diagnosis is None
    assert report.relation.startswith("`scale` is 3 times too large")
    assert f"How it differs: {report.relation}" in summary(report)
    assert "How it differs:" in panel(report).html


def test_a_named_mistake_is_not_related_as_well():
    report = engine.examine(EXERCISES["quantize_symmetric"].misconceptions[0].wrong, EXERCISES["quantize_symmetric"])
    assert report.diagnosis and report.relation is None


def test_cases_are_parted_by_what_only_the_wrong_ones_have():
    def of(*sizes, num_bits=8):
        return [Case(str(n), (np.ones(n), num_bits)) for n in sizes]

    def function(x, num_bits):
        return x, num_bits

    assert where_it_is_right(of(2, 3, num_bits=4), of(2, 3, 4), function) == (
        "it is right in all cases in which num_bits is 8, and wrong in all others"
    )
    assert where_it_is_right(of(3), of(4), function) == ""
    assert where_it_is_right(of(3, 4), of(3, 4), function) == ""


# The learner's line, in an exception.


class Liar:
    """Says that it is an array, and never answers what its shape is."""

    __class__ = np.ndarray

    @property
    def shape(self):
        while True:
            pass

    def __repr__(self):
        raise SystemExit

    __str__ = __getattr__ = __repr__


class Slow(np.ndarray):
    @property
    def shape(self):
        while True:
            pass


class Odd(ValueError):
    def __str__(self):
        while True:
            pass


def with_hostile_locals(x, num_bits=8):
    liar, slow = Liar(), np.zeros(3).view(Slow)
    raise ValueError(len([liar, slow, x]))


def with_a_hostile_exception(x, num_bits=8):
    raise Odd(x)


def that_broadcasts_wrongly(x, num_bits=8):
    scales = np.ones(7)
    return x / scales, 1.0


def test_the_line_and_the_shapes_that_met_there_are_shown():
    report = examine(named(that_broadcasts_wrongly, "quantize_symmetric"))
    assert (
        "(line 3 of your function): `return x / scales, 1.0`, where x is (4,) float32 and scales is (7,) float64"
        in (report.first_failure.detail)
    )


@pytest.mark.parametrize("function", [with_hostile_locals, with_a_hostile_exception])
def test_hostile_locals_and_exceptions_do_no_harm(function):
    report = engine.examine(named(function, "quantize_symmetric"), EXERCISES["quantize_symmetric"], time_limit=0.2)
    assert not report.passed
    assert "it raised" in report.first_failure.detail and len(report.first_failure.detail) <= 400


@pytest.mark.parametrize(
    ("name", "words"),
    [("keys", "2 of 9 values of `keys`, "), ("q", "2 of 9 codes, "), ("bits", "2 of 9 numbers of bits, ")],
)
def test_a_count_has_its_plural(name, words):
    right = codes(0, (3, 3))
    wrong = right + np.array([[1, 0, 0], [0, 0, 0], [0, 3, 0]], np.int16)
    assert words in found(wrong, right, name=name)["few"]
