"""GPTQ's codes are those of Optimal Brain Surgeon done slowly; the outputs lose less than by rounding to nearest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.affine import choose_qparams, dequantize, quantize
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.models.gptq import gptq_linear, gptq_quantize, inverse_factor
from labutils.models.hessian import output_loss
from labutils.models.layers import PackedLinear, QuantizedLinear
from tests.arrays.bad_inputs import refuses, table
from tests.models.examples import layer
from tests.models.problems import correlated, problem

GRANULARITIES = [PerTensor(), PerAxis(0), PerAxis(1), PerGroup(4), PerGroup(7), PerGroup(20), PerGroup(64)]
schemes = st.builds(Scheme, st.sampled_from([2, 3, 4, 8]), st.booleans(), st.sampled_from(GRANULARITIES))
seeds = st.integers(0, 10_000)


def damped(hessian, damping):
    return hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)


def slow_gptq(weight, hessian, scheme, damping, activation_order):
    """Optimal Brain Surgeon, in float64: for each column, the Hessian of the columns that are free is inverted anew."""
    weight, hessian, length = weight.clone(), damped(hessian, damping), weight.shape[1]
    order = sorted(range(length), key=lambda j: -hessian[j, j]) if activation_order else list(range(length))
    in_groups = isinstance(scheme.granularity, PerGroup)
    size = min(scheme.granularity.group_size, length) if in_groups else length
    codes = torch.empty(weight.shape, dtype=torch.int64)
    scale, zero_point = choose_qparams(weight, scheme)
    for done, j in enumerate(order):
        if in_groups and not activation_order and j % size == 0:
            found = choose_qparams(weight[:, j : j + size], scheme)
            scale[:, j // size] = found[0][:, 0]
            if not scheme.symmetric:
                zero_point[:, j // size] = found[1][:, 0]
        s, z = (of_column(p, scheme.granularity, j, size) for p in (scale, zero_point))
        codes[:, j] = (torch.round(weight[:, j] / s) + z).clamp(scheme.quant_min, scheme.quant_max)
        free = order[done:]
        inverse = torch.linalg.inv(hessian[free][:, free])
        error = weight[:, j] - s * (codes[:, j] - z)
        weight[:, free] -= torch.outer(error / inverse[0, 0], inverse[0])
    return codes, scale, zero_point


def of_column(values, granularity, j, size):
    """The scale (or zero point) of every weight in column j."""
    if not isinstance(values, torch.Tensor) or granularity in (PerTensor(), PerAxis(0)):
        return values
    return values[j] if granularity == PerAxis(1) else values[:, j // size]


@given(seeds, schemes, st.booleans(), st.sampled_from([0.001, 0.01, 0.1]), st.integers(1, 30))
def test_codes_are_those_of_optimal_brain_surgeon(seed, scheme, activation_order, damping, block_size):
    weight, hessian = problem(seed=seed)
    found = gptq_quantize(weight, hessian, scheme, damping, activation_order, block_size)
    codes, scale, zero_point = slow_gptq(weight, hessian, scheme, damping, activation_order)
    assert torch.equal(found.codes.long(), codes)
    torch.testing.assert_close(found.scale, scale)
    if not scheme.symmetric:
        assert torch.equal(found.zero_point, zero_point)


@given(seeds, schemes, st.booleans(), st.integers(2, 300))
def test_blocks_change_no_code(seed, scheme, activation_order, block_size):
    weight, hessian = problem(8, 70, seed=seed)
    plain, blocked = (gptq_quantize(weight, hessian, scheme, 0.01, activation_order, size) for size in (1, block_size))
    assert torch.equal(plain.codes, blocked.codes)
    torch.testing.assert_close(plain.scale, blocked.scale)


def test_in_float32_blocks_change_only_what_lies_at_a_tie():
    weight, hessian = problem(64, 384, 1000, dtype=torch.float32)
    scheme = Scheme(4, granularity=PerGroup(32))
    plain, blocked = (gptq_quantize(weight, hessian, scheme, block_size=size) for size in (1, 128))
    assert (plain.codes != blocked.codes).float().mean() < 0.02  # one code at a tie may change those that follow
    losses = [output_loss(weight, dequantize(found), hessian) for found in (plain, blocked)]
    assert losses[0] == pytest.approx(losses[1], rel=0.005)


@given(seeds, schemes, st.booleans())
def test_uncorrelated_inputs_are_rounded_to_nearest(seed, scheme, activation_order):
    weight, hessian = problem(seed=seed)
    expected = quantize(weight, scheme)
    for diagonal in (torch.ones(20), torch.zeros(20), hessian.diagonal()):
        found = gptq_quantize(weight, torch.diag(diagonal.double()), scheme, activation_order=activation_order)
        assert torch.equal(found.codes, expected.codes)
        assert torch.equal(found.scale, expected.scale)


@given(seeds, schemes, st.booleans(), st.sampled_from([0.001, 0.01, 0.1]))
def test_the_loss_is_the_sum_of_squares_of_the_errors_that_were_passed_on(seed, scheme, activation_order, damping):
    """In rounding w_j to q, with the others free to make up for it, the loss grows by (w_j - q)^2 / [H_F^-1]_jj."""
    weight, hessian = problem(seed=seed)
    found = gptq_quantize(weight, hessian, scheme, damping, activation_order)
    order = torch.argsort(hessian.diagonal(), descending=True) if activation_order else torch.arange(20)
    factor = inverse_factor(hessian[order][:, order], damping)
    errors = torch.linalg.solve_triangular(factor, (weight - dequantize(found))[:, order], upper=True, left=False)
    loss = 2 * output_loss(weight, dequantize(found), damped(hessian, damping))
    assert float((errors**2).sum()) == pytest.approx(loss, rel=1e-6)


@given(seeds, st.sampled_from([4, 8]), st.booleans())
def test_where_nothing_is_clamped_the_loss_is_bounded_by_half_a_step_in_every_column(seed, num_bits, activation_order):
    weight, hessian = problem(seed=seed)
    scheme = Scheme(num_bits, granularity=PerAxis(0))
    found = gptq_quantize(weight, hessian, scheme, 0.01, activation_order, round_scale=lambda scale: 4 * scale)
    assert found.codes.abs().max() < scheme.quant_max  # scales so wide that no update leads out of the grid
    order = torch.argsort(hessian.diagonal(), descending=True) if activation_order else torch.arange(20)
    shares = inverse_factor(hessian[order][:, order], 0.01).diagonal() ** -2  # what of H_jj no other input explains
    bound = float((found.scale / 2).square().sum() * shares.sum())
    assert 2 * output_loss(weight, dequantize(found), damped(hessian, 0.01)) <= bound
    assert shares.sum() < 0.5 * damped(hessian, 0.01).diagonal().sum()  # H_jj: the same bound for rounding to nearest


@given(seeds, st.sampled_from([3, 4, 8]), st.booleans(), st.sampled_from(GRANULARITIES), st.booleans())
def test_with_correlated_inputs_the_outputs_lose_less_than_by_rounding_to_nearest(
    seed, num_bits, symmetric, granularity, activation_order
):
    """No theorem for a single row, whose codes may be clamped or unlucky; summed over 64 rows it holds every time."""
    scheme = Scheme(num_bits, symmetric, granularity)
    weight, hessian = problem(64, 48, 500, seed)
    nearest, chosen = quantize(weight, scheme), gptq_quantize(weight, hessian, scheme, 0.01, activation_order)
    losses = [output_loss(weight, dequantize(found), hessian) for found in (nearest, chosen)]
    assert losses[1] < 0.5 * losses[0]


@given(seeds, schemes, st.booleans())
def test_scales_that_were_chosen_beforehand_are_kept(seed, scheme, activation_order):
    weight, hessian = problem(seed=seed)
    scale, zero_point = choose_qparams(weight, scheme)
    given = (0.75 * scale, zero_point)
    found = gptq_quantize(weight, hessian, scheme, activation_order=activation_order, qparams=given)
    assert torch.equal(found.scale, given[0])
    alone = gptq_quantize(weight, torch.eye(20).double(), scheme, activation_order=activation_order, qparams=given)
    assert torch.equal(alone.codes, quantize(weight, scheme, given).codes)  # nothing can make up for anything


def test_a_channel_that_was_always_0_is_rounded_to_nearest_and_moves_nothing():
    x = correlated(200, 20)
    x[:, [3, 11]] = 0
    weight, hessian, scheme = problem()[0], 2 * x.t() @ x, Scheme(4, granularity=PerAxis(0))
    kept = [j for j in range(20) if j not in (3, 11)]
    for damping in (0.0, 0.01):
        found = gptq_quantize(weight, hessian, scheme, damping)
        assert torch.equal(found.codes[:, [3, 11]], quantize(weight, scheme).codes[:, [3, 11]])
        changed = weight.clone()
        changed[:, [3, 11]] *= 0.5
        assert torch.equal(gptq_quantize(changed, hessian, scheme, damping).codes[:, kept], found.codes[:, kept])


def test_fewer_rows_than_columns_need_damping():
    weight, hessian = problem(8, 40, rows=10)
    refuses(
        ValueError,
        ("cannot be inverted with damping 0", "raise the damping"),
        gptq_quantize,
        weight,
        hessian,
        damping=0,
    )
    found = gptq_quantize(weight, hessian, Scheme(4, granularity=PerGroup(8)))
    nearest = quantize(weight, Scheme(4, granularity=PerGroup(8)))
    assert output_loss(weight, dequantize(found), hessian) < 0.5 * output_loss(weight, dequantize(nearest), hessian)


@given(seeds, st.floats(1e-6, 1e6))
def test_a_factor_on_the_hessian_changes_nothing(seed, factor):
    weight, hessian = problem(seed=seed)
    assert torch.equal(gptq_quantize(weight, hessian).codes, gptq_quantize(weight, factor * hessian).codes)


@pytest.mark.parametrize("scheme", [Scheme(12), Scheme(16, symmetric=False), Scheme(9, False, PerGroup(5))], ids=str)
def test_many_bits(scheme):
    weight, hessian = problem()
    found = gptq_quantize(weight, hessian, scheme, activation_order=True)
    assert found.codes.dtype == quantize(weight, scheme).codes.dtype
    assert (dequantize(found) - weight).abs().max() < 20 * found.scale.max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    weight, hessian = problem()
    before = weight.to(dtype)
    found = gptq_quantize(before, hessian.float())
    assert dequantize(found).dtype == found.dtype == dtype
    assert found.codes.is_contiguous() and found.codes.dtype == torch.int8
    assert found.scale.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(before, weight.to(dtype))


@pytest.mark.parametrize(
    "scheme", [Scheme(8, granularity=PerAxis(0)), Scheme(8, False), Scheme(10, False, PerGroup(16))]
)
def test_a_layer_of_bytes_holds_the_chosen_codes(scheme):
    linear, hessian = layer(), problem(inputs=64, dtype=torch.float32)[1]
    made, chosen = gptq_linear(linear, hessian, scheme), gptq_quantize(linear.weight, hessian, scheme)
    assert isinstance(made, QuantizedLinear)
    assert torch.equal(made.weight, dequantize(chosen))
    assert torch.equal(made.bias, linear.bias)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", [PerAxis(0), PerGroup(32), PerGroup(24)])
def test_a_packed_layer_holds_codes_that_were_chosen_with_its_own_scales(granularity, symmetric):
    scheme = Scheme(4, symmetric, granularity)
    linear, hessian = layer(), problem(inputs=64, dtype=torch.float32)[1]
    chosen = gptq_quantize(linear.weight, hessian, scheme, round_scale=PackedLinear.held_scale)
    made = gptq_linear(linear, hessian, scheme)
    assert torch.equal(made.weight, dequantize(chosen))
    assert torch.equal(chosen.scale, chosen.scale.bfloat16().float())


W, H = problem()
BAD = {
    "scheme a number": ({"scheme": 4}, TypeError, ("scheme must be a Scheme", "4")),
    "damping negative": ({"damping": -0.1}, ValueError, ("damping must be at least 0, got -0.1",)),
    "damping NaN": ({"damping": float("nan")}, ValueError, ("damping must be finite",)),
    "damping a string": ({"damping": "1"}, TypeError, ("damping must be a number",)),
    "order a number": ({"activation_order": 1}, TypeError, ("activation_order must be True or False",)),
    "block of nothing": ({"block_size": 0}, ValueError, ("block_size must be at least 1, got 0",)),
    "block of 1.5": ({"block_size": 1.5}, TypeError, ("block_size must be a whole number",)),
    "an axis that is not there": ({"scheme": Scheme(4, granularity=PerAxis(2))}, ValueError, ("axis 2 is not there",)),
    "scales of another shape": ({"qparams": (torch.ones(3), 0)}, ValueError, ("scale must have shape", "(3,)")),
    "no weight": ({"weight": None}, TypeError, ("weight must be a torch tensor",)),
    "another Hessian": ({"hessian": H[:3, :3]}, ValueError, ("hessian must have shape (20, 20)",)),
    "not a Hessian": ({"hessian": 1 - torch.eye(20)}, ValueError, ("cannot be inverted",)),
}


@pytest.mark.parametrize(("changed", "kind", "words"), **table(BAD))
def test_what_cannot_be_quantized_is_refused(changed, kind, words):
    refuses(kind, words, gptq_quantize, **({"weight": W, "hessian": H} | changed))
