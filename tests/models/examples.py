"""The small models, inputs and conversions that the tests of this room share."""

import pytest
import torch
from torch import nn

from labutils.arrays.block_formats import FP8, MXFP4
from labutils.arrays.grids import NF4, FloatGrid
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models.layers import Int8Linear, PackedLinear, repack


def repacked(scheme):
    def convert(layer):
        return repack(PackedLinear(layer, scheme))

    convert.num_bits = scheme.num_bits
    return convert


CHANNELS = Scheme(8, granularity=PerAxis(0))
GROUPS = Scheme(4, granularity=PerGroup(32))
CONVERTS = {
    "8 bits per channel": CHANNELS,
    "8 bits per tensor, asymmetric": Scheme(8, symmetric=False),
    "12 bits": Scheme(12, granularity=PerAxis(0)),
    "4 bits in groups": GROUPS,
    "4 bits in groups, asymmetric": Scheme(4, symmetric=False, granularity=PerGroup(32)),
    "3 bits per channel": Scheme(3, granularity=PerAxis(0)),
    "8 bits packed": lambda layer: PackedLinear(layer, Scheme(8, symmetric=False, granularity=PerGroup(16))),
    "3 bits per channel, repacked": repacked(Scheme(3, granularity=PerAxis(0))),
    "4 bits in groups, asymmetric, repacked": repacked(Scheme(4, symmetric=False, granularity=PerGroup(24))),
    "W8A8": Int8Linear,
    "W8A8, repacked": lambda layer: repack(Int8Linear(layer)),
    "MXFP4": MXFP4,
    "FP8": FP8,
    "NF4 in groups": Scheme(grid=NF4, granularity=PerGroup(32)),
}


def relative_noise(convert):
    """What rounding to the nearest adds at most, relative to the weights: 2^(1-b) of b bits.

    A float with a mantissa of m bits is off by half of its last place, 2^-(m+1), and MX's scale saturates some more.
    """
    grid = getattr(convert, "grid", None)
    bits = grid.mantissa_bits + 2 if isinstance(grid, FloatGrid) else getattr(convert, "num_bits", 8)
    return 2.0 ** (1 - bits)


every_convert = pytest.mark.parametrize("convert", CONVERTS.values(), ids=CONVERTS)


def model(seed=0):
    """Two layers of 64 inputs, one of them nested, one of 48 outputs without a bias."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 48, bias=False), nn.Linear(48, 10)))


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(in_features=64, out_features=48, bias=True, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(in_features, out_features, bias=bias).to(dtype)


def encoder_layer(width=64):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(width, 2, width, batch_first=True).eval()


def relative_error(found, expected):
    return float((found - expected).float().norm() / expected.float().norm())
