"""Each check returns its argument in one form, or says what came and what was expected."""

import numpy as np
import pytest

from labutils.arrays.inputs import (
    bit_width,
    code_array,
    positive_number,
    real_array,
    real_number,
    require_finite,
    require_one_library,
    true_or_false,
    whole_number,
    working_dtype,
)
from tests.arrays.bad_inputs import (
    BAD_CODES,
    BAD_NUMBERS,
    BAD_WIDTHS,
    NOT_WHOLE,
    REFUSED,
    TENSORS,
    refuses,
    table,
    torch,
)

pytestmark = pytest.mark.filterwarnings("error")
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


# --- numbers ---


def test_the_checks_return_plain_python_numbers():
    assert type(whole_number(np.uint16(7), "n")) is int
    assert type(bit_width(np.int32(7))) is int
    assert type(real_number(7, "n")) is type(real_number(np.float16(7), "n")) is float
    assert type(positive_number(np.float32(7), "n")) is float


@pytest.mark.parametrize("value", **table(NOT_WHOLE))
def test_what_is_no_whole_number_is_refused_by_its_name(value):
    refuses(TypeError, ("width must be a whole number, got", repr(value)), whole_number, value, "width")


@pytest.mark.parametrize("value", [0, -1, np.int8(-3), -(10**30)], ids=repr)
def test_a_whole_number_may_have_a_least_value(value):
    assert whole_number(value, "width") == value
    refuses(ValueError, (f"width must be at least 1, got {value}",), whole_number, value, "width", least=1)
    assert whole_number(value, "width", least=int(value)) == value


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, bit_width, num_bits)


def test_every_whole_number_from_2_to_16_is_a_bit_width():
    for kind in (int, np.int64, np.uint8, np.array):
        assert [bit_width(kind(bits)) for bits in range(2, 17)] == list(range(2, 17))


@pytest.mark.parametrize("num_bits", [1, 9, 16])
def test_a_narrower_limit_says_what_it_is_for(num_bits):
    words = (f"num_bits must be between 2 and 8 to be packed, got {num_bits}",)
    refuses(ValueError, words, bit_width, num_bits, 8, "to be packed")
    assert bit_width(8, 8, "to be packed") == 8


@pytest.mark.parametrize("value, kind, words", **table(BAD_NUMBERS))
def test_what_is_no_positive_number_is_refused(value, kind, words):
    refuses(kind, words, positive_number, value, "the number")
    if not words[0].startswith("must be positive"):
        refuses(kind, ("height ", *words), real_number, value, "height")


@pytest.mark.parametrize("value", [1, 0.5, np.float16(0.5), np.array(0.5), 1e-38, 1e38], ids=repr)
def test_every_positive_number_is_taken(value):
    assert positive_number(value, "n") == real_number(value, "n") == float(value)
    assert real_number(-value, "n") == -float(value)


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.True_, np.array(True)], ids=repr)
def test_only_true_and_false_are_flags(value):
    refuses(TypeError, ("shown must be True or False, got", repr(value)), true_or_false, value, "shown")
    assert true_or_false(True, "shown") is True and true_or_false(False, "shown") is False


# --- arrays ---

VALUES_MATTER = {row for row, (_, _, words) in REFUSED.items() if "must be finite" in words}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_array_of_finite_floats_is_refused(row):
    x, kind, words = REFUSED[row]
    if row in VALUES_MATTER:
        xp, checked = real_array(x)
        assert checked is x  # it looks at the type, and leaves the values to require_finite
        refuses(kind, ("w must be finite", *words), require_finite, xp, x, "w")
    else:
        refuses(kind, ("w ", *words) if "masked" not in words else words, real_array, x, "w")


@needs_torch
@pytest.mark.parametrize("make, kind, words", **table(TENSORS))
def test_what_is_no_tensor_of_finite_floats_is_refused(make, kind, words):
    refuses(kind, words, lambda x: require_finite(*real_array(x)), make())


def test_an_array_is_returned_with_its_namespace_and_not_copied():
    x = np.ones((2, 3), np.float16)
    xp, same = real_array(x)
    assert same is x and xp.sum(same) == 6
    assert real_array(np.float32(0.5))[1].shape == ()


@needs_torch
def test_a_tensor_leaves_its_gradient_behind():
    x = torch.ones(3, requires_grad=True)
    xp, same = real_array(x)
    assert not same.requires_grad and same.data_ptr() == x.data_ptr()
    assert float(xp.sum(same)) == 3


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), code_array, codes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_finite_arrays_give_their_ends(dtype):
    x = np.array([[0.5, -2], [1, np.finfo(dtype).max]], dtype)
    assert require_finite(np, x) == (-2, float(np.finfo(dtype).max))


@needs_torch
def test_finite_tensors_give_their_ends():
    xp, x = real_array(torch.tensor([0.5, -2.0, 1.0]).bfloat16())
    assert require_finite(xp, x) == (-2, 1)
    assert all(type(end) is float for end in require_finite(xp, x))


@needs_torch
def test_arrays_of_two_libraries_are_named():
    x, scale, zero_point = np.zeros(2), torch.ones(1), np.zeros(2, int)
    words = ("x and scale must come from one library, got numpy.ndarray and torch.Tensor",)
    refuses(TypeError, words, require_one_library, x=x, scale=scale)
    refuses(TypeError, ("x and zero_point and scale",), require_one_library, x=x, zero_point=zero_point, scale=scale)
    require_one_library(x=x, zero_point=zero_point)
    require_one_library(scale=scale, x=torch.zeros(2))


def test_the_widest_float_but_16_bits_is_computed_in():
    arrays = {name: np.zeros(1, name) for name in ("float16", "float32", "float64")}
    assert working_dtype(np, arrays["float16"]) is working_dtype(np, arrays["float32"]) is np.float32
    assert working_dtype(np, arrays["float64"]) is np.float64
    assert working_dtype(np, arrays["float16"], arrays["float64"]) is np.float64


@needs_torch
def test_bfloat16_is_computed_with_in_float32():
    assert working_dtype(torch, torch.zeros(1).bfloat16()) is torch.float32
    assert working_dtype(torch, torch.zeros(1).bfloat16(), torch.zeros(1).double()) is torch.float64
