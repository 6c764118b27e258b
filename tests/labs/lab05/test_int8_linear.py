"""int8_linear is quantized_matmul of its rows, however it is written."""

import numpy as np
import pytest

from labutils.labs.answers import int8_linear, quantize_per_token, quantized_matmul
from tests.labs.right_answers import passes

torch = pytest.importorskip("torch")

from labutils.models.kernels import int_matmul


@pytest.mark.parametrize("shape", [(6, 20), (20,), (2, 3, 20), (0, 20), (2, 0, 20)], ids=str)
def test_the_integer_layer_is_quantized_matmul_of_its_rows(shape):
    rng = np.random.default_rng(3)
    x = rng.normal(size=shape).astype(np.float32)
    w_q = rng.integers(-127, 128, (5, 20), np.int8)
    w_scale, bias = rng.uniform(0.01, 0.1, 5).astype(np.float32), rng.normal(size=5).astype(np.float32)
    found = int8_linear(*map(torch.from_numpy, (x, w_q, w_scale, bias))).numpy()
    assert found.shape == (*shape[:-1], 5)
    if found.size:
        q, scales = quantize_per_token(x.reshape(-1, 20))
        assert np.allclose(found.reshape(-1, 5), quantized_matmul(q, scales, w_q.T, w_scale) + bias, rtol=1e-5)


def test_a_row_of_zeros_gives_the_bias():
    bias = torch.tensor([1.0, -2.0])
    w_q, w_scale = torch.ones(2, 4, dtype=torch.int8), torch.ones(2)
    assert torch.equal(int8_linear(torch.zeros(3, 4), w_q, w_scale, bias), bias.expand(3, 2))


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (torch.ones(2, 4, dtype=torch.int8), TypeError, "x must hold floats, got dtype torch.int8"),
        (torch.ones(2, 3), ValueError, r"got shapes \(2, 3\), \(2, 4\)"),
        (torch.tensor(1.0), ValueError, "expected x"),
        (torch.tensor([[1.0, float("nan"), 0, 0]]), ValueError, "NaN or Inf"),
    ],
    ids=["codes", "another length", "a number", "NaN"],
)
def test_what_is_no_row_of_floats_is_refused(x, kind, message):
    with pytest.raises(kind, match=message):
        int8_linear(x, torch.ones(2, 4, dtype=torch.int8), torch.ones(2))


# --- right answers ---


def rows_and_int_matmul(x, w_q, w_scale, bias=None):
    rows = x.reshape(-1, x.shape[-1])
    scale = rows.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    sums = int_matmul((rows / scale).round().to(torch.int8), w_q.t())
    y = sums * scale * w_scale
    y = y.reshape(*x.shape[:-1], len(w_q))
    return y if bias is None else y + bias


def in_int32(x, w_q, w_scale, bias=None):
    scale = x.abs().max(dim=-1, keepdim=True).values / 127
    scale = scale.masked_fill(scale == 0, 1)
    q = torch.clamp(torch.round(x / scale), -127, 127).to(torch.int32)
    y = (q @ w_q.t().to(torch.int32)).float() * scale * w_scale
    return y if bias is None else y.add(bias)


def with_the_labs_matmul(x, w_q, w_scale, bias=None):
    rows = x.numpy().reshape(-1, x.shape[-1])
    if not len(rows):
        return torch.zeros(*x.shape[:-1], len(w_q))
    q, scale = quantize_per_token(rows)
    y = quantized_matmul(q, scale, w_q.numpy().T, w_scale.numpy()).reshape(*x.shape[:-1], len(w_q))
    return torch.from_numpy(y) if bias is None else torch.from_numpy(y) + bias


def row_by_row(x, w_q, w_scale, bias=None):
    y = torch.zeros(*x.shape[:-1], len(w_q))
    out = y.view(-1, len(w_q))
    for i, row in enumerate(x.reshape(-1, x.shape[-1])):
        scale = float(row.abs().max()) / 127 or 1.0
        q = torch.round(row / scale).long()
        out[i] = (w_q.long() @ q) * w_scale * scale
    return y if bias is None else y + bias


def floats_of_codes_in_float64(x, w_q, w_scale, bias=None):
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    sums = (x / scale).round().double() @ w_q.double().T
    y = (sums * scale * w_scale).float()
    return y if bias is None else y + bias


RIGHT = [rows_and_int_matmul, in_int32, with_the_labs_matmul, row_by_row, floats_of_codes_in_float64]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("int8_linear", answer)
