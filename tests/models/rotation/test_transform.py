"""Rotating factor by factor is multiplying by the matrix; lengths stay, outliers spread."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labutils.models.rotation import Rotation, hadamard, rotate
from tests.arrays.bad_inputs import refuses, table

SIZES = [1, 2, 8, 12, 20, 36, 48, 128, 384, 576]


def inputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", SIZES)
def test_it_equals_the_product_with_the_matrix(n):
    x = inputs(3, 5, n)
    torch.testing.assert_close(rotate(x), x @ hadamard(n), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotate(x.double()), x.double() @ hadamard(n).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n, blocks", [(576, False), (12, False), (10, True), (92, True)])
def test_signs_are_those_of_the_seed_and_leave_it_orthogonal(n, blocks):
    x, rotation = inputs(4, n), Rotation(n, seed=3, blocks=blocks)
    matrix = rotation.matrix
    torch.testing.assert_close(rotation(x), x @ matrix, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n), rtol=0, atol=1e-5)
    signs = (matrix @ hadamard(n, blocks).T).round()
    assert torch.equal(signs, torch.diag(rotation.signs.float()))
    assert set(rotation.signs.tolist()) == {-1, 1}
    assert torch.equal(rotate(x, seed=3, blocks=blocks), rotation(x))
    torch.testing.assert_close(rotation.undo(x), x @ matrix.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotation.undo(rotation(x)), x, rtol=1e-5, atol=1e-5)
    assert not torch.equal(rotate(x, seed=4, blocks=blocks), rotation(x))


@given(st.sampled_from(SIZES), st.sampled_from([None, 0, 7]), st.integers(0, 99))
def test_lengths_and_dot_products_stay(n, seed, example):
    a, b = inputs(2, 6, n, seed=example).double()
    torch.testing.assert_close((rotate(a, seed) * rotate(b, seed)).sum(-1), (a * b).sum(-1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rotate(a, seed).norm(dim=-1), a.norm(dim=-1), rtol=1e-9, atol=1e-9)


def test_an_outlier_channel_is_spread_over_all():
    x = inputs(64, 384)
    x[:, 7] *= 100
    peaks, rotated = x.abs().amax(0), rotate(x).abs().amax(0)
    assert peaks.max() / peaks.median() > 50
    assert rotated.max() / rotated.median() < 2


def test_channels_of_one_sign_meet_again_in_one_channel_unless_signs_are_random():
    x = inputs(64, 256).abs()
    assert rotate(x).abs().max() > 2 * rotate(x, seed=0).abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays_and_16_bits_are_computed_in_32(dtype):
    x = inputs(4, 36).to(dtype)
    assert rotate(x).dtype == dtype
    assert torch.equal(rotate(x), rotate(x.to(torch.promote_types(dtype, torch.float32))).to(dtype))


def test_it_survives_casts_copies_and_saving():
    rotation, x = Rotation(576, seed=5), inputs(2, 576)
    expected = rotation(x)
    assert torch.equal(copy.deepcopy(rotation).half().double()(x), expected)
    assert list(rotation.state_dict()) == ["signs"]
    other = Rotation(576, seed=6)
    other.load_state_dict(rotation.state_dict())
    assert torch.equal(other(x), expected)


def test_shapes_empty_batches_and_gradients():
    assert rotate(torch.ones(12)).shape == (12,)
    assert rotate(torch.ones(0, 12)).shape == (0, 12)
    x = inputs(5, 12).requires_grad_()
    (rotate(x) * torch.arange(12)).sum().backward()
    torch.testing.assert_close(x.grad[0], hadamard(12) @ torch.arange(12.0), rtol=1e-5, atol=1e-5)
    strided = inputs(12, 6).T
    torch.testing.assert_close(rotate(strided), strided @ hadamard(12), rtol=1e-5, atol=1e-5)


def test_it_says_which_matrix_is_used():
    assert repr(Rotation(576)) == "Rotation(576 = 36 x 16)"
    assert repr(Rotation(1536, seed=2)) == "Rotation(1536 = 12 x 16 x 8, random signs)"
    assert repr(Rotation(92, blocks=True)) == "Rotation(92 = 23 blocks of 4)"
    assert repr(Rotation(1)) == "Rotation(1 = 1)"


BAD = {
    "a list": ([1.0], TypeError, ("x must be a tensor", "got list")),
    "no axis": (torch.tensor(1.0), TypeError, ("at least one axis, got shape ()",)),
    "integers": (
        torch.ones(4, dtype=torch.int64),
        TypeError,
        ("x must be a float tensor, got a tensor of torch.int64",),
    ),
    "5 channels": (torch.ones(2, 5), ValueError, ("order 5", "nearest are 4 and 8")),
}


@pytest.mark.parametrize("x, kind, words", **table(BAD))
def test_what_cannot_be_rotated_is_refused(x, kind, words):
    refuses(kind, words, rotate, x)


def test_other_widths_and_seeds_are_refused():
    refuses(ValueError, ("x must have shape (..., 8), got (2, 4)",), Rotation(8), torch.ones(2, 4))
    refuses(TypeError, ("seed must be a whole number",), Rotation, 8, seed=0.5)
    refuses(ValueError, ("seed must be at least 0",), Rotation, 8, seed=-1)
