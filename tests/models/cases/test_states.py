"""What was saved under one scheme does not load into another, and all bytes count."""

import copy
import io

import pytest
import torch
from torch import nn

from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import PackedLinear, QuantizedLinear, outliers, training
from labutils.models.conversion import quantize_model
from labutils.models.footprint import model_bytes
from tests.models.examples import GROUPS, inputs, layer, model

# --- checkpoints of another scheme ---


def integers(num_bits):
    return training.convert(training.prepare(model(), inputs(9, 64), num_bits))


def static(num_bits):
    return outliers.StaticInt8Linear(layer(), torch.tensor(3.0), Scheme(num_bits, granularity=PerAxis(0)))


OTHERS = {
    "groups": (
        lambda size: PackedLinear(layer(), Scheme(4, granularity=PerGroup(size))), (40, 33),
        "saved with 4 bits, PerGroup.group_size=40., but has 4 bits, PerGroup.group_size=33. here",
    ),
    "bits in one byte": (
        lambda bits: PackedLinear(layer(1, 8), Scheme(bits, granularity=PerGroup(1))), (5, 6),
        "saved with 5 bits, PerGroup.group_size=1., but has 6 bits",
    ),
    "rows and columns": (
        lambda axis: QuantizedLinear(layer(64, 64), Scheme(8, granularity=PerAxis(axis))), (0, 1), "0.scheme|scheme",
    ),
    "groups of codes": (
        lambda size: QuantizedLinear(layer(), Scheme(8, granularity=PerGroup(size))), (40, 33), "group_size=40.*=33",
    ),
    "static": (static, (4, 8), "saved with 4 bits, PerAxis.axis=0., but has 8 bits"),
    "integers": (integers, (2, 8), "0.bits: it was saved with 2-bit weights and 8-bit activations, but has 8-bit"),
    "prepared": (lambda bits: training.prepare(model(), inputs(9, 64), bits), (2, 8), "0.bits: it was saved with 2"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "forms", "says"), OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_does_not_load_into_another_scheme(make, forms, says):
    saved, other = (make(form) for form in forms)
    for state, into in ((saved.state_dict(), other), (other.state_dict(), saved)):
        before = copy.deepcopy(into.state_dict())
        with pytest.raises(RuntimeError, match=says if into is other else None):
            into.load_state_dict(state)
        assert before.keys() == into.state_dict().keys()
    saved.load_state_dict(make(forms[0]).state_dict())


def test_a_state_goes_through_a_file():
    quantized = quantize_model(model(), GROUPS)
    buffer = io.BytesIO()
    torch.save(quantized.state_dict(), buffer)
    buffer.seek(0)
    with pytest.raises(RuntimeError, match="0.scheme: it was saved with 4 bits, PerGroup"):
        quantize_model(model(), Scheme(4, granularity=PerGroup(33))).load_state_dict(torch.load(buffer))


# --- bytes ---


def test_what_torch_has_packed_counts():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.LSTM(16, 32))
    dynamic = torch.ao.quantization.quantize_dynamic(made, {nn.Linear}, dtype=torch.qint8)
    expected = 512 * 512 + sum(p.nbytes for p in made[2].parameters())
    assert expected <= model_bytes(dynamic) <= expected + 4096


def test_tensors_that_are_plain_attributes_count():
    made = nn.Module()
    made.table, made.more = torch.zeros(100), {"a": [torch.zeros(10), torch.zeros(10)]}
    assert model_bytes(made) == 4 * 120
