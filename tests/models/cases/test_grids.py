"""Weights on other grids than integers: right in a model, or refused with a name."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from labutils.arrays.affine import dequantize, fake_quantize, quantize
from labutils.arrays.block_formats import FORMATS, MXFP4, NVFP4
from labutils.arrays.grids import E4M3, E5M2, E8M0, NF4, Codebook
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import gptq_quantize, quantize_model
from labutils.models.awq import clip_search
from labutils.models.hessian import output_loss
from labutils.models.layers import PackedLinear, QuantizedLinear
from labutils.models.outliers import StaticInt8Linear
from labutils.models.saved_form import scheme_numbers, scheme_of
from tests.models.examples import inputs, layer, model
from tests.models.problems import problem

GRIDS = {name: scheme for name, scheme in FORMATS.items() if scheme.scale_grid or scheme.code_dtype == "uint8"}


@pytest.mark.parametrize("scheme", GRIDS.values(), ids=GRIDS)
def test_a_model_on_another_grid_is_one_with_fake_quantized_weights(scheme):
    quantized = quantize_model(linear := layer(), scheme)
    assert type(quantized) is QuantizedLinear
    assert torch.equal(quantized.weight, fake_quantize(linear.weight, scheme))
    x = inputs(5, 64)
    assert torch.equal(quantized(x), nn.functional.linear(x, quantized.weight, quantized.bias))


@pytest.mark.parametrize(
    "scheme", [MXFP4, Scheme(grid=NF4), Scheme(4, granularity=PerGroup(32), scale_grid=E8M0)], ids=str
)
def test_packed_layers_hold_integers_with_scales_of_their_own(scheme):
    with pytest.raises(
        ValueError, match="a packed weight holds integers and scales in bfloat16, got (E2M1|NF4|4 bits)"
    ):
        PackedLinear.from_float(layer(), scheme)


def test_integer_kernels_multiply_integers():
    with pytest.raises(ValueError, match="must be symmetric integers of 2 to 8 bits.*E4M3"):
        StaticInt8Linear(layer(), torch.ones(64), Scheme(grid=E4M3, granularity=PerAxis(0)))


def test_codes_of_one_grid_do_not_load_as_those_of_another():
    """E4M3 and E5M2 have the same tensors, and so has 8-bit E4M3 as unsigned integers without their zero point."""
    states = {}
    for grid in (E4M3, E5M2, NF4):
        states[grid] = quantize_model(model(), Scheme(grid=grid, granularity=PerAxis(0)))
    for grid, other in ((E4M3, E5M2), (E5M2, NF4), (NF4, E4M3)):
        with pytest.raises(RuntimeError, match=f"saved with {grid!r}, PerAxis.axis=0., but has {other!r}"):
            states[other].load_state_dict(states[grid].state_dict())
    with pytest.raises(RuntimeError, match="scheme"):
        quantize_model(model(), Scheme(8, granularity=PerAxis(0))).load_state_dict(states[E4M3].state_dict())


@pytest.mark.parametrize("grid", [E4M3, E5M2, NF4, MXFP4.grid], ids=repr)
def test_the_saved_numbers_say_which_grid(grid):
    scheme = Scheme(grid=grid, granularity=PerGroup(16))
    assert scheme_of(scheme_numbers(scheme)) == scheme


def test_a_codebook_of_ones_own_works_in_a_model_and_says_that_it_cannot_be_saved():
    scheme = Scheme(grid=Codebook((-1, 0, 0.5, 1)), granularity=PerAxis(0))
    quantized = quantize_model(linear := layer(), scheme)
    assert torch.equal(quantized.weight, fake_quantize(linear.weight, scheme))
    with pytest.raises(ValueError, match=r"codes of Codebook\(.*cannot be saved or exported"):
        quantized.state_dict()


@pytest.mark.parametrize("scheme", [MXFP4, NVFP4, Scheme(grid=NF4, granularity=PerGroup(16))], ids=str)
@pytest.mark.parametrize("activation_order", [False, True], ids=["in order", "by activation"])
def test_gptq_loses_less_than_rounding_to_nearest_on_every_grid(scheme, activation_order):
    weight, hessian = problem(64, 48, 500)
    chosen = gptq_quantize(weight, hessian, scheme, 0.01, activation_order)
    loss = output_loss(weight, dequantize(chosen), hessian)
    assert loss < 0.7 * output_loss(weight, dequantize(quantize(weight, scheme)), hessian)


def test_clips_of_groups_do_not_go_with_a_scale_of_the_tensor():
    weight, hessian = problem(8, 32, 100)
    with pytest.raises(ValueError, match="one scale of the tensor"):
        clip_search(weight, hessian, NVFP4)
    scale, _ = clip_search(weight, hessian, replace(MXFP4, granularity=PerGroup(16)))
    assert torch.equal(torch.frexp(scale)[0], torch.full_like(scale, 0.5)), "still powers of two"
