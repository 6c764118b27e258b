"""QuantizedLinear: a layer is told of its first mistake, whatever else is wrong; right layers pass, however written."""

import numpy as np
import pytest

from labutils import examine, or_reference
from labutils.labs.lab05 import _layer
from tests.labs.right_answers import passes

torch = pytest.importorskip("torch")

from torch import nn

from labutils.models.layers import QuantizedLinear

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
    "a row of zeros gives NaN, cast to an integer": (
        ".values / 127",
        ".values / 127; scales[scales == 0] = 1",
    ),
    "codes are computed in 16 bits": ("linear.weight.data", "linear.weight.data.float()"),
    "the weight is float32, whatever came": ("self.q * self.scales, ", "(self.q * self.scales).to(x.dtype), "),
    "the bias is float32, whatever came": ("self.bias)\n", "None if self.bias is None else self.bias.to(x.dtype))\n"),
}


def written(source):
    scope = {}
    exec(source, {"torch": torch, "nn": nn, "__name__": "student"}, scope)
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
    assert or_reference(written(STUDENT)) is QuantizedLinear
    assert "uses the reference" in capsys.readouterr().out


def test_the_weight_is_seen_through_unit_vectors():
    weight, bias = np.array([[1.27, -0.503], [0.02, 2.54]], np.float32), np.array([3.0, -4.0], np.float32)
    seen = _layer.examine(lambda linear: linear, weight, bias, np.eye(2, dtype=np.float32))
    assert np.allclose(seen["weight"], weight, atol=1e-6), "a float layer's weight is its own"
    assert "untouched" not in seen, "off the grid, so nothing further is looked at"


# --- right answers ---


def codes_of(linear):
    w = linear.weight.detach()
    w = w if w.dtype == torch.float64 else w.float()
    scale = w.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (w / scale).round().clamp(-128, 127).to(torch.int8), scale


def copied(tensor):
    return None if tensor is None else tensor.detach().clone()


class AsInTheLab(nn.Module):
    def __init__(self, q, scale, bias):
        super().__init__()
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def from_float(cls, linear):
        return cls(*codes_of(linear), copied(linear.bias))

    def forward(self, x):
        weight = (self.q * self.scale).to(x.dtype)
        return nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def memory_bytes(self):
        return sum(buffer.nbytes for buffer in self.buffers())


class BySizes(nn.Module):
    """Made empty and filled, as the seed of this exercise has it; scales of shape (N,); sizes in a list of names."""

    def __init__(self, in_features, out_features, bias=True, dtype=torch.float32):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight_quant", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer("weight_scales", torch.zeros(out_features, dtype=dtype))
        self.register_buffer("bias", torch.zeros(out_features, dtype=dtype) if bias else None)

    @staticmethod
    def from_float(linear):
        wide = torch.float64 if linear.weight.dtype == torch.float64 else torch.float32
        made = BySizes(linear.in_features, linear.out_features, linear.bias is not None, wide)
        q, scale = codes_of(linear)
        made.weight_quant.copy_(q)
        made.weight_scales.copy_(scale[:, 0])
        if linear.bias is not None:
            made.bias.copy_(linear.bias.detach())
        return made

    def forward(self, x):
        y = (x.to(self.weight_scales.dtype) @ self.weight_quant.to(self.weight_scales.dtype).T) * self.weight_scales
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def memory_bytes(self):
        total = self.weight_quant.numel() + self.weight_scales.numel() * self.weight_scales.element_size()
        return total + (0 if self.bias is None else self.bias.numel() * self.bias.element_size())

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}"


class BiasAsParameter(nn.Module):
    @classmethod
    def from_float(cls, linear):
        layer = cls()
        q, scale = codes_of(linear)
        layer.register_buffer("weight", q)
        layer.register_buffer("s", scale.squeeze(1))
        layer.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
        return layer

    def forward(self, x):
        y = torch.matmul(x, torch.mul(self.weight.to(self.s.dtype), self.s.unsqueeze(1)).to(x.dtype).T)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def memory_bytes(self):
        return sum(t.numel() * t.element_size() for t in [*self.parameters(), *self.buffers()])


class WithNoGrad(nn.Module):
    """Computed in float64 under no_grad; forward by einsum."""

    @classmethod
    @torch.no_grad()
    def from_float(cls, linear):
        layer = cls()
        w = linear.weight.double()
        scale = w.abs().max(dim=-1).values / 127
        scale[scale == 0] = 1.0
        layer.register_buffer("codes", torch.floor(w / scale[:, None] + 0.5).to(torch.int8))
        layer.register_buffer("scales", scale)
        layer.register_buffer("bias", None if linear.bias is None else linear.bias.clone())
        return layer

    def forward(self, x):
        y = torch.einsum("...k,nk->...n", x, (self.codes * self.scales[:, None]).to(x.dtype))
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def memory_bytes(self):
        return sum(value.nbytes for value in self.state_dict().values())


class Transposed(nn.Module):
    """Codes (in, out), so that forward needs no transpose."""

    @classmethod
    def from_float(cls, linear):
        layer = cls()
        q, scale = codes_of(linear)
        layer.register_buffer("q", q.T.contiguous())
        layer.register_buffer("scale", scale.T.contiguous())
        layer.register_buffer("bias", copied(linear.bias))
        return layer

    def forward(self, x):
        y = x @ (self.q * self.scale).to(x.dtype)
        if self.bias is not None:
            y = y + self.bias.to(x.dtype)
        return y

    def memory_bytes(self):
        return sum(b.element_size() * b.nelement() for _, b in self.named_buffers())


RIGHT = [AsInTheLab, BySizes, BiasAsParameter, WithNoGrad, Transposed, QuantizedLinear]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("QuantizedLinear", answer)
