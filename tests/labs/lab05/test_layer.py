"""A learner's layer is told of its first mistake, and recognised by it, whatever else is wrong with it."""

import numpy as np
import pytest

from labutils import examine
from labutils.labs.lab05 import _layer

torch = pytest.importorskip("torch")

STUDENT = """
class QuantizedLinear(nn.Module):
    def __init__(self, q, scales, bias):
        super().__init__()
        self.q, self.scales, self.bias = q, scales, bias

    @classmethod
    def from_float(cls, linear):
        w = linear.weight.data
        scales = w.abs().max(dim=1, keepdim=True).values / 127
        return cls((w / scales).round().to(torch.int8), scales, linear.bias)

    def forward(self, x):
        return nn.functional.linear(x, self.q * self.scales, self.bias)

    def memory_bytes(self):
        return self.q.numel() + 4 * self.scales.numel()
"""
REPAIRS = {  # in the order in which a check asks for them: what it names, and what the student then writes
    "codes or scales are plain attributes": (
        "self.q, self.scales, self.bias = q, scales, bias",
        "self.register_buffer('q', q); self.register_buffer('scales', scales); "
        "self.register_buffer('bias', None if bias is None else bias.detach())",
    ),
    "the bias is the float layer's own": ("bias.detach())", "bias.detach().clone())"),
    "memory_bytes leaves out the bias": (
        "self.q.numel() + 4 * self.scales.numel()",
        "sum(buffer.nbytes for buffer in self.buffers())",
    ),
    "codes are computed in 16 bits": ("linear.weight.data", "linear.weight.data.float()"),
    "the weight is float32, whatever came": ("self.q * self.scales, ", "(self.q * self.scales).to(x.dtype), "),
}


def written(source):
    scope = {}
    exec(source, {"torch": torch, "nn": torch.nn, "__name__": "student"}, scope)
    return scope["QuantizedLinear"]


def test_a_student_is_led_from_mistake_to_mistake_to_the_end():
    source = STUDENT
    for diagnosis, (old, new) in REPAIRS.items():
        report = examine(written(source))
        assert report.diagnosis == diagnosis, report.first_failure
        source = source.replace(old, new)
    assert examine(written(source)).passed


def test_the_methods_line_that_raised_is_named():
    report = examine(written(STUDENT.replace("dim=1, keepdim=True).values", "dim=1).values")))
    assert "(line 5 of your from_float)" in report.first_failure.detail
    assert report.diagnosis == "the scales lie along the inputs"


def test_codes_that_meet_floats_are_not_taken_for_another_mistake():
    report = examine(written(STUDENT.replace("self.q * self.scales", "self.q")))
    assert report.diagnosis == "codes meet floats"
    assert "(line 2 of your forward)" in report.first_failure.detail


def test_a_layer_that_is_begun_is_not_done_yet_and_no_crash():
    begun = STUDENT.replace("return self.q.numel() + 4 * self.scales.numel()", "raise NotImplementedError()")
    for source in (begun, STUDENT.replace("def forward", "def other")):
        repaired = source.replace(*REPAIRS["codes or scales are plain attributes"]).replace(".detach()", ".clone()")
        assert not examine(written(repaired)).passed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("return cls(", "cls("), "from_float should return the quantized layer, an nn.Module, but it returned None"),
        (("return nn.functional", "nn.functional"), "forward should return a tensor, but it returned None"),
        (("def memory_bytes", "def bytes"), "has no attribute 'memory_bytes'"),
        (("return self.q.numel()", "self.q.numel()"), "it raised"),
    ],
    ids=["no layer", "no result", "no method", "no bytes"],
)
def test_nonsense_gets_a_sentence(change, sentence):
    source = STUDENT.replace(*REPAIRS["codes or scales are plain attributes"]).replace(
        "bias.detach())", "bias.clone())"
    )
    report = examine(written(source.replace(*change)))
    assert sentence in report.first_failure.detail or sentence in str(report.cases)


def test_until_it_passes_the_courses_class_takes_its_place(capsys):
    from labutils import or_reference
    from labutils.models.layers import QuantizedLinear

    assert or_reference(written(STUDENT)) is QuantizedLinear
    assert "uses the reference" in capsys.readouterr().out


def test_the_weight_is_seen_through_unit_vectors():
    weight, bias = np.array([[1.27, -0.503], [0.02, 2.54]], np.float32), np.array([3.0, -4.0], np.float32)
    seen = _layer.examine(lambda linear: linear, weight, bias, np.eye(2, dtype=np.float32))
    assert np.allclose(seen["weight"], weight, atol=1e-6), "a float layer's weight is its own"
    assert "untouched" not in seen, "off the grid, so nothing further is looked at"
