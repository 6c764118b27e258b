"""quantize_model: mistakes as people make them, and right answers as people write them."""

import copy
import functools

import pytest

from labutils.labs.check import examine
from tests.labs.right_answers import passes

pytest.importorskip("torch")

from torch import nn


def test_in_place_by_recursion_is_recognised():
    def quantize_model(model, convert, skip=()):
        for name, module in model.named_children():
            if isinstance(module, nn.Linear):
                setattr(model, name, convert(module))
            else:
                quantize_model(module, convert)
        return model

    assert examine(quantize_model).diagnosis == "quantizes the model in place"


def test_no_mode_and_no_skip_is_recognised():
    def quantize_model(model, convert, skip=()):
        model = copy.deepcopy(model)

        def walk(parent):
            for name, module in parent.named_children():
                if isinstance(module, nn.Linear):
                    parent.add_module(name, convert(module))
                walk(module)

        walk(model)
        return model

    assert examine(quantize_model).diagnosis == "new layers are in training mode"


def test_top_level_only_is_recognised():
    def quantize_model(model, convert, skip=()):
        quantized = copy.deepcopy(model)
        for name, module in quantized.named_children():
            if isinstance(module, nn.Linear) and name not in skip:
                setattr(quantized, name, convert(module).eval())
        return quantized

    assert examine(quantize_model).diagnosis == "misses nested modules"


# --- right answers ---


def by_path(model, convert, skip=()):
    quantized, made = copy.deepcopy(model), {}
    for name, layer in list(quantized.named_modules(remove_duplicate=False)):
        if isinstance(layer, nn.Linear) and name not in skip:
            if layer not in made:
                made[layer] = convert(layer).train(layer.training)
            parent, _, last = name.rpartition(".")
            setattr(quantized.get_submodule(parent), last, made[layer])
    return quantized


def recursively(model, convert, skip=()):
    made = {}

    def walk(module, path):
        for name, child in module._modules.items():
            full = f"{path}.{name}" if path else name
            if isinstance(child, nn.Linear):
                if full not in skip:
                    made.setdefault(id(child), convert(child))
                    module._modules[name] = made[id(child)]
            else:
                walk(child, full)

    result = copy.deepcopy(model)
    walk(result, "")
    return result.train(model.training)


def by_memo(model, convert, skip=()):
    """deepcopy asks its memo before it copies: what is found there takes the place of the layer."""
    memo = {
        id(layer): convert(layer).train(layer.training)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name not in set(skip)
    }
    return copy.deepcopy(model, memo)


def by_replacing_values(model, convert, skip=()):
    """Converts first, then looks for every place that holds a converted layer."""
    result = copy.deepcopy(model)
    new = {}
    for name, module in result.named_modules():
        if type(module) is nn.Linear and name not in skip:
            new[module] = convert(module)
            new[module].training = module.training
    for parent in list(result.modules()):
        for key, child in list(parent._modules.items()):
            if child in new:
                parent.add_module(key, new[child])
    return result


def with_getattr(model, convert, skip=()):
    names = [n for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, nn.Linear)]
    result, cache = copy.deepcopy(model), {}
    originals = {name: result.get_submodule(name) for name in names if name not in list(skip)}
    for name, layer in originals.items():
        *path, last = name.split(".")
        parent = functools.reduce(getattr, path, result)
        cache[id(layer)] = cache.get(id(layer)) or convert(layer)
        setattr(parent, last, cache[id(layer)])
    return result.train() if model.training else result.eval()


RIGHT = [by_path, recursively, by_memo, by_replacing_values, with_getattr]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("quantize_model", answer)
