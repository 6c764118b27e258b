"""x is about scale * (q - zero_point): how near, with which codes, and for which arrays.

u, half of a dtype's eps, is the most that one rounding to that dtype loses, relative to the result.
"""

import math
import warnings
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays import affine, layout
from labutils.arrays.affine import QuantizedArray, choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme

FLOATS = ("float16", "float32", "float64")
SCHEMES = {
    "per tensor": Scheme(8),
    "per tensor with a zero point": Scheme(8, symmetric=False),
    "per channel at 4 bits": Scheme(4, granularity=PerAxis(0)),
    "per column with a zero point": Scheme(5, symmetric=False, granularity=PerAxis(-1)),
    "groups of 3 at 4 bits": Scheme(4, granularity=PerGroup(3)),
    "groups of 3 with a zero point at 16 bits": Scheme(16, symmetric=False, granularity=PerGroup(3)),
}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
both_kinds = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])


# --- inputs ---


def magnitudes(least, most, width=32):
    """Zeros and values of either sign with least <= |x| <= most."""
    values = st.floats(least, most, width=width)
    return st.one_of(st.just(0.0), values, values.map(lambda x: -x))


@st.composite
def cases(draw, dtypes=FLOATS, elements=None, bits=(2, 16), clips=(1.0,), kinds=(True, False)):
    """An array of up to four axes and a scheme that fits it.

    By default the elements are any finite floats, from subnormal to the largest; groups may be longer than a row.
    """
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
    ordinary = magnitudes(2.0**-8, 8.0, width=16)
    anything = st.one_of(ordinary, hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False))
    x = draw(hnp.arrays(dtype, shape, elements=anything if elements is None else elements))
    choices = [st.just(PerTensor())]
    if shape:
        choices += [st.integers(-len(shape), len(shape) - 1).map(PerAxis), st.integers(1, 7).map(PerGroup)]
    granularity = draw(st.one_of(choices))
    return x, Scheme(draw(st.integers(*bits)), draw(st.sampled_from(kinds)), granularity, draw(st.sampled_from(clips)))


def scale_index(index, granularity):
    """Which scale the element at `index` uses, straight from the definitions of the granularities."""
    if isinstance(granularity, PerTensor):
        return ()
    if isinstance(granularity, PerAxis):
        return (index[granularity.axis],)
    return (*index[:-1], index[-1] // granularity.group_size)


def scale_shape(shape, granularity):
    if isinstance(granularity, PerTensor):
        return ()
    if isinstance(granularity, PerAxis):
        return (shape[granularity.axis],)
    return (*shape[:-1], math.ceil(shape[-1] / granularity.group_size))


def spread(per_slice, shape, granularity):
    """Scales or zero points, repeated so that each element has its own."""
    spread = np.empty(shape, per_slice.dtype)
    for index in np.ndindex(shape):
        spread[index] = per_slice[scale_index(index, granularity)]
    return spread


def slices(x, granularity):
    """The elements that share each scale, by the index of the scale."""
    found = {}
    for index in np.ndindex(x.shape):
        found.setdefault(scale_index(index, granularity), []).append(x[index])
    return {index: np.array(elements) for index, elements in found.items()}


def zero_points(quantized):
    return np.zeros(quantized.scale.shape, int) if quantized.scheme.symmetric else quantized.zero_point


def same_bits(a, b):
    """Equal in dtype, shape and every bit: 0.0 and -0.0 are told apart."""
    a, b = np.asarray(a), np.asarray(b)
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def identical(a, b):
    """Two QuantizedArrays that agree in every bit."""
    return all(same_bits(getattr(a, name), getattr(b, name)) for name in ("codes", "scale", "zero_point"))


def rounding(scales, x, num_bits):
    """What floats lose beside scale / 2.

    A dozen roundings in the working dtype, each of at most the whole range, 2^b steps: of the range, scale, quotient
    and product, and the two eps at which the largest float saturates. Then one to the dtype of x, whose smallest
    number is the least that it can tell apart.
    """
    work, own = np.finfo(scales.dtype), np.finfo(x.dtype)
    range_lost = 12 * float(work.eps) / 2 * 2.0**num_bits * scales.astype(float)
    return range_lost + float(own.eps) / 2 * np.abs(x.astype(float)) + float(own.smallest_subnormal)


# --- codes and errors ---


@given(cases(clips=(1.0, 0.6)))
def test_codes_and_scales_have_the_values_shapes_and_dtypes_that_the_scheme_says(case):
    x, scheme = case
    codes = quantize(x, scheme).codes
    assert codes.dtype == scheme.code_dtype
    assert codes.shape == x.shape
    assert scheme.quant_min <= codes.min() <= codes.max() <= scheme.quant_max
    scale, zero_point = choose_qparams(x, scheme)
    assert scale.shape == scale_shape(x.shape, scheme.granularity)
    assert scale.dtype == (np.float64 if x.dtype == np.float64 else np.float32)
    assert np.all((scale > 0) & np.isfinite(scale))
    if scheme.symmetric:
        assert type(zero_point) is int and zero_point == 0
    else:
        assert zero_point.shape == scale.shape and zero_point.dtype == np.int32
        assert scheme.quant_min <= zero_point.min() <= zero_point.max() <= scheme.quant_max


@given(cases())
def test_nothing_is_further_off_than_half_a_step_and_zero_is_exact(case):
    x, scheme = case
    quantized = quantize(x, scheme)
    reconstructed = dequantize(quantized)
    scales = spread(quantized.scale, x.shape, scheme.granularity)
    assert (reconstructed.dtype, reconstructed.shape) == (x.dtype, x.shape)
    error = np.abs(x.astype(float) - reconstructed.astype(float))
    assert np.all(error <= scales / 2 + rounding(scales, x, scheme.num_bits))
    x.flat[:: max(1, x.size // 3)] = 0
    quantized = quantize(x, scheme)
    zeros = spread(zero_points(quantized), x.shape, scheme.granularity)
    assert np.all(quantized.codes[x == 0] == zeros[x == 0])
    assert np.all(dequantize(quantized)[x == 0] == 0)


@given(cases(dtypes=("float32",)))
def test_nothing_in_bfloat16_is_further_off_than_half_a_step(case):
    torch = pytest.importorskip("torch")
    x, scheme = torch.from_numpy(case[0]).to(torch.bfloat16), case[1]
    assume(bool(torch.isfinite(x).all()))  # the largest float32 are beyond the largest bfloat16
    quantized = quantize(x, scheme)
    reconstructed = dequantize(quantized)
    assert (reconstructed.dtype, quantized.scale.dtype) == (torch.bfloat16, torch.float32)
    exact, scales = x.double().numpy(), spread(quantized.scale.numpy(), case[0].shape, scheme.granularity)
    own = torch.finfo(torch.bfloat16)
    allowed = rounding(scales, exact, scheme.num_bits) + own.eps / 2 * np.abs(exact) + own.smallest_normal * own.eps
    assert np.all(np.abs(exact - reconstructed.double().numpy()) <= scales / 2 + allowed)


@given(cases(), st.data())
def test_a_slice_of_zeros_has_scale_one_and_code_zero(case, data):
    x, scheme = case
    index = data.draw(st.sampled_from(sorted(slices(x, scheme.granularity))))
    members = [i for i in np.ndindex(x.shape) if scale_index(i, scheme.granularity) == index]
    for i in members:
        x[i] = 0
    quantized = quantize(x, scheme)
    assert quantized.scale[index] == 1
    assert zero_points(quantized)[index] == 0
    assert all(quantized.codes[i] == 0 for i in members)


@given(cases(clips=(1.0, 0.6, 0.01)))
def test_every_number_is_what_exact_arithmetic_says(case):
    """The specification in fractions, slow and obvious; float rounding may show in no other way than is stated."""
    x, scheme = case
    quantized = quantize(x, scheme)
    reconstructed, zeros = dequantize(quantized), zero_points(quantized)
    work, own = np.finfo(quantized.scale.dtype), np.finfo(x.dtype)
    u, tiny = Fraction(float(work.eps)) / 2, Fraction(float(work.smallest_subnormal))
    u_own, tiny_own = Fraction(float(own.eps)) / 2, Fraction(float(own.smallest_subnormal))
    largest = Fraction(float(own.max))

    for index, elements in slices(x, scheme.granularity).items():
        exact = [Fraction(float(element)) for element in elements]
        low, high = Fraction(scheme.clip) * min(0, *exact), Fraction(scheme.clip) * max(0, *exact)
        reach = max(high, -low) if scheme.symmetric else high - low
        scale, zero_point = Fraction(float(quantized.scale[index])), int(zeros[index])
        # Three roundings: of the clipped range, of its division, of a difference; 3 steps below the normal numbers.
        ideal = reach / scheme.quant_max if reach else Fraction(1)
        assert abs(scale - ideal) <= 4 * u * ideal + 3 * tiny
        offset = -low / scale
        assert scheme.symmetric or abs(zero_point - offset) <= Fraction(1, 2) + 2 * u * offset

    for index in np.ndindex(x.shape):
        own_scale = scale_index(index, scheme.granularity)
        scale, zero_point = Fraction(float(quantized.scale[own_scale])), int(zeros[own_scale])
        steps = Fraction(float(x[index])) / scale

        def on_grid(code, zero_point=zero_point):
            return min(max(code + zero_point, scheme.quant_min), scheme.quant_max)

        code = int(quantized.codes[index])
        from_tie = abs(steps - math.floor(steps) - Fraction(1, 2))
        if 0 < from_tie <= abs(steps) * u:  # the quotient, rounded to a float, may have become the tie, or cross it
            assert code in (on_grid(math.floor(steps)), on_grid(math.ceil(steps)))
        else:
            assert code == on_grid(round(steps))  # a Fraction rounds half to even

        value = min(max(scale * (code - zero_point), -largest), largest)
        lost = abs(Fraction(float(reconstructed[index])) - value)
        assert lost <= (6 * u + u_own) * abs(value) + tiny_own  # 4 u: where the largest float saturates


@pytest.mark.parametrize(
    "num_bits, symmetric, codes, scale, zero_point",
    [
        (8, True, [-50, 25, 127], 0.02, 0),
        (3, True, [-1, 1, 3], 2.54 / 3, 0),
        (2, True, [0, 0, 1], 2.54, 0),
        (8, False, [0, 108, 255], 3.54 / 255, 72),
        (2, False, [0, 1, 3], 1.18, 1),
    ],
    ids=["8 bits", "3 bits", "2 bits", "8 bits with a zero point", "2 bits with a zero point"],
)
def test_by_hand(num_bits, symmetric, codes, scale, zero_point):
    quantized = quantize(np.array([-1.0, 0.5, 2.54]), Scheme(num_bits, symmetric))
    assert quantized.codes.tolist() == codes
    assert quantized.scale == pytest.approx(scale, rel=1e-15)
    assert quantized.zero_point == zero_point


@both_kinds
def test_ties_go_to_the_even_code(symmetric):
    scheme = Scheme(4, symmetric)
    ties = np.arange(-3, 4) + 0.5
    quantized = quantize(ties, scheme, (np.float64(1), 0 if symmetric else np.array(8)))
    assert (quantized.codes.astype(int) - (0 if symmetric else 8)).tolist() == [-2, -2, 0, 0, 2, 2, 4]


# --- what must not matter ---


@given(cases(dtypes=("float32", "float64"), elements=magnitudes(2.0**-60, 2.0**60)))
def test_a_reconstruction_quantizes_to_the_same_codes(case):
    x, scheme = case
    once = quantize(x, scheme)
    if not scheme.symmetric:  # a tie at both ends may leave the outermost step unused: then the range shrinks by it
        for index, codes in slices(once.codes, scheme.granularity).items():
            used = {*codes.tolist(), int(once.zero_point[index])}
            assume(used >= {scheme.quant_min, scheme.quant_max} or once.scale[index] == 1)
    # The second scale is within 4 roundings of the first: 4 * 2^-24 * 2^16 steps is far less than half a step.
    assert np.array_equal(quantize(dequantize(once), scheme).codes, once.codes)


@given(cases(dtypes=("float16",), elements=magnitudes(0.0625, 8.0, width=16), bits=(2, 8), kinds=(True,)))
def test_a_float16_reconstruction_quantizes_to_the_same_codes_up_to_8_bits(case):
    x, scheme = case  # value and scale are each off by 2^-11: 127 * 2^-10 is 0.12 steps, at 11 bits it would be one
    once = quantize(x, scheme)
    assert np.array_equal(quantize(dequantize(once), scheme).codes, once.codes)


@given(cases(dtypes=("float32", "float64")))  # the 11 bits of float16 do not hold a 16-bit code
def test_with_a_scale_of_its_own_a_reconstruction_is_a_fixed_point(case):
    x, scheme = case
    assume(np.max(np.abs(x)) < np.finfo(x.dtype).max / 2)  # at the end, the outermost code saturates half a step short
    qparams = choose_qparams(x, scheme)
    once = fake_quantize(x, scheme, qparams)
    assert same_bits(fake_quantize(once, scheme, qparams), once)


@given(cases(dtypes=("float32", "float64"), elements=magnitudes(2.0**-20, 2.0**20)), st.integers(-60, 60))
def test_a_power_of_two_changes_the_scale_and_no_code(case, exponent):
    x, scheme = case
    assume(all(np.any(elements) for elements in slices(x, scheme.granularity).values()))  # zeros have scale 1
    plain, scaled = quantize(x, scheme), quantize(x * x.dtype.type(2.0**exponent), scheme)
    assert np.array_equal(plain.codes, scaled.codes)
    assert np.array_equal(plain.scale * plain.scale.dtype.type(2.0**exponent), scaled.scale)


@pytest.mark.parametrize("factor", [1e-9, 1e-25, 1e25], ids=lambda factor: f"times {factor:g}")
@every_scheme
def test_the_size_of_the_values_does_not_matter_to_the_sqnr(scheme, factor):
    w = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    sqnr = [
        10 * np.log10(np.mean(x.astype(float) ** 2) / np.mean((x.astype(float) - fake_quantize(x, scheme)) ** 2))
        for x in (w, w * np.float32(factor))
    ]
    # Scaling rounds every value by 2^-24 of itself: hardly any code moves, and then between two equally near ones.
    assert sqnr[0] == pytest.approx(sqnr[1], abs=0.01)


LAYOUTS = {
    "every second column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "Fortran order": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "unaligned": lambda x: np.frombuffer(b"-" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
}


@pytest.mark.parametrize("rearranged", LAYOUTS.values(), ids=LAYOUTS.keys())
@every_scheme
def test_the_order_in_memory_does_not_matter(scheme, rearranged):
    x = np.random.default_rng(1).normal(size=(4, 3, 8)).astype(np.float32)
    other = rearranged(x)
    assert np.array_equal(other, x)
    assert identical(quantize(other, scheme), quantize(x, scheme))
    assert same_bits(fake_quantize(other, scheme), fake_quantize(x, scheme))


@every_scheme
def test_one_row_seen_many_times_quantizes_as_its_copies(scheme):
    row = np.random.default_rng(1).normal(size=8).astype(np.float32)
    view = np.broadcast_to(row, (4, 8))
    assert view.strides[0] == 0
    assert identical(quantize(view, scheme), quantize(view.copy(), scheme))


@pytest.mark.parametrize(
    "rearranged",
    [
        lambda x: x.T.contiguous().T,
        lambda x: x.repeat_interleave(2, -1)[..., ::2],
        lambda x: x.clone().requires_grad_(),
    ],
    ids=["transposed", "every second column", "with a gradient"],
)
@every_scheme
def test_the_order_in_memory_does_not_matter_to_tensors(scheme, rearranged):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32))
    assert identical(quantize(rearranged(x), scheme), quantize(x, scheme))
    assert same_bits(fake_quantize(rearranged(x), scheme), fake_quantize(x, scheme))


@given(cases(clips=(1.0, 0.6)))
def test_the_parts_give_what_the_whole_gives_and_leave_their_inputs_as_they_were(case):
    x, scheme = case
    before = x.copy()
    quantized = quantize(x, scheme)
    zeros = spread(zero_points(quantized), x.shape, scheme.granularity)
    assert np.all(quantized.codes[x == 0] == zeros[x == 0])  # whatever the clip
    held = [np.array(array) for array in (quantized.codes, quantized.scale, quantized.zero_point)]
    assert identical(quantize(x, scheme, choose_qparams(x, scheme)), quantized)
    assert same_bits(dequantize(quantized), fake_quantize(x, scheme))
    assert same_bits(x, before)
    assert all(map(same_bits, (quantized.codes, quantized.scale, quantized.zero_point), held))


@given(cases(clips=(1.0, 0.6)), st.sampled_from([1, 3, 7]))
def test_neither_the_library_nor_the_size_of_the_tiles_changes_a_bit(case, tile_size):
    torch = pytest.importorskip("torch")
    x, scheme = case
    whole, whole_back = quantize(x, scheme), fake_quantize(x, scheme)
    tensor = torch.from_numpy(x)
    assert identical(quantize(tensor, scheme), whole)
    assert same_bits(fake_quantize(tensor, scheme), whole_back)
    with mock.patch.object(layout, "TILE", tile_size):
        assert identical(quantize(x, scheme), whole)
        assert same_bits(fake_quantize(x, scheme), whole_back)


@every_scheme
def test_an_array_of_many_tiles_is_quantized_as_an_accelerator_does_it_all_at_once(scheme):
    x = np.random.default_rng(2).normal(size=(7, 3, 5001)).astype(np.float32)  # no multiple of anything
    assert x.size > layout.TILE
    quantized, reconstructed = quantize(x, scheme), fake_quantize(x, scheme)
    with mock.patch.object(affine, "_on_cpu", lambda x: False):
        assert identical(quantize(x, scheme), quantized)
        assert same_bits(fake_quantize(x, scheme), reconstructed)


# --- the ends of the float formats ---

LIMITS = [np.finfo(dtype) for dtype in FLOATS]
ENDS = {
    "the largest": lambda f: [f.max, -f.max, f.max / 2, 0],
    "the largest, positive only": lambda f: [f.max, f.max / 3],
    "the largest, negative only": lambda f: [-f.max, -f.max / 3],
    "the smallest normal": lambda f: [f.smallest_normal, -f.smallest_normal / 2, 0],
    "subnormal": lambda f: [3 * f.smallest_subnormal, -40 * f.smallest_subnormal, 0],
    "the smallest": lambda f: [f.smallest_subnormal, 0],
    "both ends": lambda f: [f.max, f.smallest_subnormal, -f.max],
}


@pytest.mark.parametrize("limits", LIMITS, ids=FLOATS)
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS.keys())
@pytest.mark.parametrize("num_bits", [2, 4, 8, 16], ids=lambda b: f"{b} bits")
@both_kinds
def test_the_ends_of_a_float_format_are_right_and_raise_no_warning(limits, ends, num_bits, symmetric):
    x = np.array(ends(limits), dtype=limits.dtype)
    scheme = Scheme(num_bits, symmetric)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized = quantize(x, scheme)
        reconstructed = dequantize(quantized)
    assert np.all(np.isfinite(reconstructed))
    scales = np.broadcast_to(quantized.scale, x.shape)
    error = np.abs(x.astype(np.longdouble) - reconstructed)
    assert np.all(error <= scales / 2 + rounding(scales, x, num_bits))
    assert np.all(reconstructed[x == 0] == 0)


@pytest.mark.parametrize("dtype", FLOATS)
@both_kinds
def test_the_ends_of_a_float_format_are_right_in_torch(dtype, symmetric):
    torch = pytest.importorskip("torch")
    for ends in ENDS.values():
        x = np.array(ends(np.finfo(dtype)), dtype=dtype)
        assert identical(quantize(torch.from_numpy(x), Scheme(8, symmetric)), quantize(x, Scheme(8, symmetric)))
        assert same_bits(
            fake_quantize(torch.from_numpy(x), Scheme(8, symmetric)), fake_quantize(x, Scheme(8, symmetric))
        )


def test_a_large_scale_does_not_disturb_the_slices_beside_it():
    # 65504 is the largest float16 and 65535 the largest code: what saturates in one row must not in the next.
    x = np.array([[0, 0], [0, 0.6], [0, 65504]], np.float16)
    scheme = Scheme(16, symmetric=False, granularity=PerAxis(0))
    assert np.array_equal(fake_quantize(x, scheme), x)
    assert np.array_equal(fake_quantize(x, scheme)[1], fake_quantize(x[1], Scheme(16, symmetric=False)))


# --- the range ---


@given(cases(dtypes=("float32", "float64"), elements=magnitudes(2.0**-20, 2.0**20), clips=(0.5, 0.25)))
def test_clipping_shrinks_the_scale_and_saturates_what_lies_beyond(case):
    x, scheme = case
    quantized, full = quantize(x, scheme), quantize(x, Scheme(scheme.num_bits, scheme.symmetric, scheme.granularity))
    codes, wide = slices(quantized.codes, scheme.granularity), full.scale != 1
    assert np.array_equal(quantized.scale[wide], full.scale[wide] * scheme.clip)  # 1/2 and 1/4 are exact
    for index, elements in slices(x, scheme.granularity).items():
        if not np.any(elements):
            continue
        top, bottom = codes[index][elements.argmax()], codes[index][elements.argmin()]
        if elements.max() > 0 and (not scheme.symmetric or elements.max() >= -elements.min()):
            assert top == scheme.quant_max
        if elements.min() < 0 and (not scheme.symmetric or -elements.min() >= elements.max()):
            assert bottom == scheme.quant_min


@given(cases(dtypes=("float32", "float64"), elements=magnitudes(2.0**-20, 2.0**20), clips=(0.9, 0.5, 0.1)))
def test_what_lies_within_the_clipped_range_keeps_half_a_step(case):
    x, scheme = case
    quantized = quantize(x, scheme)
    scales = spread(quantized.scale, x.shape, scheme.granularity)
    zeros = spread(zero_points(quantized), x.shape, scheme.granularity).astype(float)
    error = np.abs(x.astype(float) - dequantize(quantized))
    within = ((scheme.quant_min - zeros) * scales <= x) & (x <= (scheme.quant_max - zeros) * scales)
    assert np.all((error <= scales / 2 + rounding(scales, x, scheme.num_bits))[within])


def test_a_clip_so_small_that_the_range_vanishes_still_saturates():
    codes = quantize(np.array([-1, 0, 1], np.float32), Scheme(8, clip=1e-300)).codes
    assert codes.tolist() == [-128, 0, 127]


# --- scales given by the caller ---


@every_scheme
def test_a_static_scale_serves_other_data_and_saturates_beyond_its_range(scheme):
    rng = np.random.default_rng(3)
    calibration, x = rng.normal(size=(4, 6)).astype(np.float32), 100 * rng.normal(size=(4, 6)).astype(np.float32)
    scale, zero_point = choose_qparams(calibration, scheme)
    quantized = quantize(x, scheme, (scale, zero_point))
    assert same_bits(quantized.scale, scale) and same_bits(quantized.zero_point, zero_point)
    scales = spread(scale, x.shape, scheme.granularity)
    zeros = spread(zero_points(quantized), x.shape, scheme.granularity)
    steps = np.rint(x / scales) + zeros
    assert np.array_equal(quantized.codes, np.clip(steps, scheme.quant_min, scheme.quant_max))
    assert np.any(steps > scheme.quant_max) and np.any(steps < scheme.quant_min)


def test_a_scale_stored_in_float16_is_computed_with_in_float32():
    x = np.linspace(-1, 1, 999, dtype=np.float32)
    scale = np.float16(1 / 127)
    expected = quantize(x, Scheme(), (np.float32(scale), 0))
    assert identical(quantize(x, Scheme(), (scale, 0)), expected)


def test_a_quotient_beyond_the_largest_float_saturates_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codes = quantize(np.array([1e38, -1e38, 0], np.float32), Scheme(4), (np.float32(1e-38), 0)).codes
    assert codes.tolist() == [7, -8, 0]


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
BAD_SCALES = {
    "zero": (np.float32(0), ValueError, "positive and finite everywhere, got values from 0.0"),
    "negative": (np.float32(-0.1), ValueError, "positive and finite everywhere, got values from -0.1"),
    "NaN": (np.float32("nan"), ValueError, "positive and finite everywhere, got values from nan"),
    "Inf": (np.float32("inf"), ValueError, "positive and finite everywhere, got values from inf"),
    "one too many": (np.ones(1, np.float32), ValueError, r"scale must have shape \(\), got \(1,\)"),
    "one a row": (np.ones(3, np.float32), ValueError, r"scale must have shape \(\), got \(3,\)"),
    "none": (np.ones(0, np.float32), ValueError, "scale must not be empty"),
    "a Python float": (0.1, TypeError, "scale must be a NumPy array or a torch tensor, got float"),
    "nothing": (None, TypeError, "scale must be a NumPy array or a torch tensor, got NoneType"),
    "integers": (np.array(1), TypeError, "scale must hold floats .* got dtype int64"),
}


@pytest.mark.parametrize("scale, kind, words", BAD_SCALES.values(), ids=BAD_SCALES.keys())
def test_a_scale_that_is_none_is_refused(scale, kind, words):
    with pytest.raises(kind, match=words):
        quantize(X, Scheme(), (scale, 0))
    with pytest.raises(kind, match=words):
        fake_quantize(X, Scheme(), (scale, 0))


@pytest.mark.parametrize("bad", [0, -1, np.nan, np.inf], ids=repr)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "middle", "last"])
def test_one_bad_scale_among_good_ones_is_refused(bad, place):
    scales = np.ones(3, np.float32)
    scales[place] = bad
    with pytest.raises(ValueError, match="positive and finite everywhere"):
        quantize(X, Scheme(granularity=PerAxis(0)), (scales, 0))


BAD_ZERO_POINTS = {
    "a Python int": (0, TypeError, "zero_point must be a NumPy array or a torch tensor, got int"),
    "a float": (np.array(3.5), TypeError, "zero_point must hold integer codes, got dtype float64"),
    "below the codes": (np.array(-1), ValueError, "zero_point must be a code, 0 to 255, got -1 to -1"),
    "above the codes": (np.array(256), ValueError, "zero_point must be a code, 0 to 255, got 256 to 256"),
    "one a row": (np.array([1, 2, 3]), ValueError, r"zero_point must have shape \(\), got \(3,\)"),
}


@pytest.mark.parametrize("zero_point, kind, words", BAD_ZERO_POINTS.values(), ids=BAD_ZERO_POINTS.keys())
def test_a_zero_point_that_is_none_is_refused(zero_point, kind, words):
    with pytest.raises(kind, match=words):
        quantize(X, Scheme(symmetric=False), (np.float32(0.1), zero_point))


@pytest.mark.parametrize("zero_point", [3, np.array(0), None], ids=repr)
def test_a_symmetric_scheme_has_no_zero_point_but_0(zero_point):
    with pytest.raises(ValueError, match="zero_point of a symmetric scheme must be the int 0"):
        quantize(X, Scheme(), (np.float32(0.1), zero_point))


def test_parameters_and_data_come_from_one_library():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="scale and x must come from one library"):
        quantize(X, Scheme(), (torch.tensor(0.1), 0))
    with pytest.raises(TypeError, match="zero_point and x must come from one library"):
        quantize(X, Scheme(symmetric=False), (np.float32(0.1), torch.tensor(3)))


# --- bytes ---


@pytest.mark.parametrize(
    "scheme, codes, scales, zeros",
    [
        (Scheme(8), 640, 4, 0),
        (Scheme(4), 640, 4, 0),
        (Scheme(9), 1280, 4, 0),
        (Scheme(8, symmetric=False), 640, 4, 4),
        (Scheme(8, granularity=PerAxis(0)), 640, 10 * 4, 0),
        (Scheme(8, symmetric=False, granularity=PerAxis(1)), 640, 64 * 4, 64 * 4),
        (Scheme(4, granularity=PerGroup(48)), 640, 10 * 2 * 4, 0),
        (Scheme(16, symmetric=False, granularity=PerGroup(48)), 1280, 10 * 2 * 4, 10 * 2 * 4),
    ],
    ids=lambda value: repr(value).removeprefix("Scheme") if isinstance(value, Scheme) else str(value),
)
def test_bytes_are_those_of_codes_scales_and_zero_points(scheme, codes, scales, zeros):
    x = np.ones((10, 64), np.float32)
    assert quantize(x, scheme).nbytes == codes + scales + zeros
    torch = pytest.importorskip("torch")
    assert quantize(torch.from_numpy(x), scheme).nbytes == codes + scales + zeros


# --- against torch ---


def near_a_tie(x, scales):
    """Where two float32 ways to x / scale may round to different codes: x * (1 / scale) is off by two roundings,
    x / scale by one, so they part only within 3 * 2^-24 of |x / scale| of a tie."""
    steps = x.astype(float) / scales
    return np.abs(steps - np.floor(steps) - 0.5) <= 3 * 2.0**-24 * np.abs(steps)


def assert_equal_but_for_ties(ours, theirs, x, scales, num_bits):
    differ = ours != theirs
    assert not np.any(differ & ~near_a_tie(x, scales))
    # A step holds one tie, and |x / scale| < 2^b: so few values lie that near one, give or take chance.
    expected = 2 * 3 * 2.0**-24 * 2**num_bits * x.size
    assert np.count_nonzero(differ) <= expected + 5 * math.sqrt(expected) + 1


@pytest.mark.parametrize("num_bits", [2, 3, 4, 8, 12], ids=lambda b: f"{b} bits")
@both_kinds
def test_per_tensor_as_torch_does_it(num_bits, symmetric):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(4).normal(0.3, 1, size=50_000).astype(np.float32)
    scheme = Scheme(num_bits, symmetric, clip=0.8)
    scale, zero_point = choose_qparams(x, scheme)
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), float(scale), int(zero_point), scheme.quant_min, scheme.quant_max
    ).numpy()
    assert_equal_but_for_ties(fake_quantize(x, scheme), theirs, x, scale, num_bits)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("num_bits", [3, 4, 8], ids=lambda b: f"{b} bits")
@both_kinds
def test_per_channel_as_torch_does_it(num_bits, symmetric, axis):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x = (rng.normal(0.3, 1, size=(16, 20, 24)) * rng.lognormal(size=(16, 20, 24))).astype(np.float32)
    scheme = Scheme(num_bits, symmetric, PerAxis(axis))
    scale, zero_point = choose_qparams(x, scheme)
    zeros = torch.zeros(x.shape[axis], dtype=torch.int32) if symmetric else torch.from_numpy(zero_point)
    theirs = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(x), torch.from_numpy(scale), zeros, axis, scheme.quant_min, scheme.quant_max
    ).numpy()
    scales = spread(scale, x.shape, scheme.granularity)
    assert_equal_but_for_ties(fake_quantize(x, scheme), theirs, x, scales, num_bits)


@both_kinds
def test_the_codes_are_those_of_a_quantized_tensor(symmetric):
    torch = pytest.importorskip("torch")
    if not hasattr(torch, "quantize_per_tensor"):
        pytest.skip("this torch has no quantized tensors")
    x = np.random.default_rng(6).normal(0.3, 1, size=50_000).astype(np.float32)
    scheme = Scheme(8, symmetric)
    quantized = quantize(x, scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still the definition of qint8
        theirs = torch.quantize_per_tensor(
            torch.from_numpy(x),
            float(quantized.scale),
            int(quantized.zero_point),
            torch.qint8 if symmetric else torch.quint8,
        ).int_repr()
    assert_equal_but_for_ties(quantized.codes, theirs.numpy(), x, quantized.scale, 8)


def test_a_quantized_array_says_how_it_was_made():
    x = np.ones((2, 3), np.float16)
    quantized = quantize(x, Scheme(4))
    assert isinstance(quantized, QuantizedArray)
    assert (quantized.scheme, quantized.dtype) == (Scheme(4), np.float16)
