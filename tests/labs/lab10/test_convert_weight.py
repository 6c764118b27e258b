"""convert_weight: the codes of which training saw the multiples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch")

from labutils.labs.answers import convert_weight, fake_quantize_ste
from labutils.labs.lab10._grid import limits
from labutils.labs.lab10.convert_weight import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.lab10.test_fake_quantize_ste import round_through_then_clamp
from tests.labs.right_answers import passes

scales = st.floats(0.0078125, 10, width=32)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-50, 50, width=32)
)


@given(matrices, scales, st.integers(2, 16))
def test_a_converted_weight_is_what_training_saw(w, scale, num_bits):
    w, scale = torch.from_numpy(w), torch.tensor(scale)
    q = convert_weight(w, scale, num_bits)
    assert q.dtype == (torch.int8 if num_bits <= 8 else torch.int16)
    assert torch.equal(q * scale, fake_quantize_ste(w, scale, num_bits))


BAD = {
    "Inf": ((torch.tensor([math.inf]), torch.tensor(1.0)), ValueError, ("must be finite",)),
    "a float for a scale": ((torch.ones(2), 0.5), TypeError, ("scale must be", "got float")),
    "17 bits": ((torch.ones(2), torch.tensor(1.0), 17), ValueError, ("between 2 and 16, got 17",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, convert_weight, *args)


def kind(bits):
    return torch.int8 if bits <= 8 else torch.int16


def round_clamp_cast(w, scale, num_bits=8):
    return (w / scale).round().clamp(*limits(num_bits)).to(kind(num_bits))


def clamp_round_cast(w, scale, num_bits=8):
    return torch.round(torch.clamp(w / scale, *limits(num_bits))).to(kind(num_bits))


def from_the_fake_quantized(w, scale, num_bits=8):
    return (round_through_then_clamp(w, scale, num_bits) / scale).round().to(kind(num_bits))


def division_in_place(w, scale, num_bits=8):
    return w.clone().div_(scale).round().clamp(*limits(num_bits)).to(kind(num_bits))


def codes_in_numpy(w, scale, num_bits=8):
    q = np.clip(np.rint(w.numpy() / scale.numpy()), *limits(num_bits))
    return q.astype(np.int8 if num_bits <= 8 else np.int16)


def nearest_level(w, scale, num_bits=8):
    levels = torch.arange(limits(num_bits)[0], limits(num_bits)[1] + 1)
    return levels[((w / scale).unsqueeze(-1) - levels).abs().argmin(dim=-1)].to(kind(num_bits))


def the_recipe(w, scale, num_bits=8):
    return right(w, scale, num_bits)


RIGHT = [
    round_clamp_cast, clamp_round_cast, from_the_fake_quantized, division_in_place, codes_in_numpy, nearest_level,
    the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("convert_weight", answer)
