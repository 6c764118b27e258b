"""layer_sensitivity: a mistake as people make it, and right answers as people write them."""

import copy

import numpy as np
import pytest

from labutils.labs.check import examine
from tests.labs.right_answers import passes

torch = pytest.importorskip("torch")

from torch import nn

from labutils.labs.answers import quantize_model


def test_never_put_back_is_recognised():
    def layer_sensitivity(model, score, convert):
        best, quantized, falls = score(model), copy.deepcopy(model), {}
        for name, layer in list(quantized.named_modules()):
            if isinstance(layer, nn.Linear):
                parent, _, last = name.rpartition(".")
                setattr(quantized.get_submodule(parent), last, convert(layer))
                falls[name] = best - score(quantized)
        return falls

    assert examine(layer_sensitivity).diagnosis == "layers are left quantized"


# --- right answers ---


def skip_all_others(model, score, convert):
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    best = score(model)
    return {
        name: best - score(quantize_model(model, convert, [other for other in names if other != name]))
        for name in names
    }


def copy_and_set(model, score, convert):
    result = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        trial = copy.deepcopy(model)
        parent, _, last = name.rpartition(".")
        setattr(trial.get_submodule(parent), last, convert(trial.get_submodule(name)))
        result[name] = score(model) - score(trial)
    return result


def swap_and_put_back(model, score, convert):
    best, falls = score(model), {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            *path, last = name.split(".")
            parent = model.get_submodule(".".join(path))
            setattr(parent, last, convert(layer).eval())
            falls[name] = torch.tensor(best - score(model))
            setattr(parent, last, layer)
    return falls


def sorted_by_fall(model, score, convert):
    falls = skip_all_others(model, score, convert)
    return dict(sorted(falls.items(), key=lambda item: item[1], reverse=True))


def weights_exchanged(model, score, convert):
    falls = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            trial = copy.deepcopy(model)
            trial.get_submodule(name).weight.data = convert(module).weight
            falls[name] = np.float64(score(model)) - np.float64(score(trial))
    return falls


RIGHT = [skip_all_others, copy_and_set, swap_and_put_back, sorted_by_fall, weights_exchanged]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("layer_sensitivity", answer)
