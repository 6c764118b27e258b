"""model_bytes: codes weigh a byte and scales four, and how it may be written."""

import itertools

import numpy as np
import pytest

from labutils.labs.answers import model_bytes, quantize_model
from labutils.labs.check import examine
from tests.labs.right_answers import passes

torch = pytest.importorskip("torch")

from labutils.models import QuantizedLinear


def test_a_quantized_copy_weighs_less_and_the_model_stays():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 10))
    before = model_bytes(model)
    quantized = quantize_model(model, QuantizedLinear.from_float, skip=["1"])
    assert model_bytes(quantized) == before - 64 * 64 * 3 + 64 * 4  # codes for floats, and 64 scales
    assert model_bytes(model) == before


def test_parameters_only_is_recognised():
    def model_bytes(model):
        total = 0
        for p in model.parameters():
            total += p.numel() * p.element_size()
        return total

    assert examine(model_bytes).diagnosis == "buffers forgotten"


def test_float32_everywhere_is_recognised():
    def model_bytes(model):
        return 4 * sum(t.numel() for t in (*model.parameters(), *model.buffers()))

    assert examine(model_bytes).diagnosis == "four bytes for every number"


# --- right answers ---


def parameters_and_buffers(model):
    return sum(p.numel() * p.element_size() for p in model.parameters()) + sum(b.nbytes for b in model.buffers())


def named_loops(model):
    total = 0
    for _, parameter in model.named_parameters():
        total += parameter.nelement() * parameter.element_size()
    for _, buffer in model.named_buffers():
        total += buffer.nelement() * buffer.element_size()
    return total


def by_storage(model):
    storages = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def module_by_module(model):
    seen, total = set(), 0
    for module in model.modules():
        for tensor in [*module._parameters.values(), *module._buffers.values()]:
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                total += tensor.itemsize * tensor.numel()
    return total


def bits_over_eight(model):
    def bits(dtype):
        return torch.finfo(dtype).bits if dtype.is_floating_point else torch.iinfo(dtype).bits

    return sum(t.numel() * bits(t.dtype) for t in (*model.parameters(), *model.buffers())) / 8


def as_numpy_integer(model):
    return np.int64(sum(t.nbytes for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()))


RIGHT = [
    parameters_and_buffers, named_loops, by_storage, module_by_module, bits_over_eight, as_numpy_integer,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("model_bytes", answer)
