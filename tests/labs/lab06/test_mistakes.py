"""Lab 06's mistakes as people make them: not copies of the tables, often two at a time."""

import copy

import pytest

pytest.importorskip("torch")

from torch import nn

from labutils.labs.check import examine


def in_place_by_recursion():
    def quantize_model(model, convert, skip=()):
        for name, module in model.named_children():
            if isinstance(module, nn.Linear):
                setattr(model, name, convert(module))
            else:
                quantize_model(module, convert)
        return model

    return quantize_model


def no_mode_and_no_skip():
    def quantize_model(model, convert, skip=()):
        model = copy.deepcopy(model)

        def walk(parent):
            for name, module in parent.named_children():
                if isinstance(module, nn.Linear):
                    parent.add_module(name, convert(module))
                walk(module)

        walk(model)
        return model

    return quantize_model


def top_level_only():
    def quantize_model(model, convert, skip=()):
        quantized = copy.deepcopy(model)
        for name, module in quantized.named_children():
            if isinstance(module, nn.Linear) and name not in skip:
                setattr(quantized, name, convert(module).eval())
        return quantized

    return quantize_model


def parameters_only():
    def model_bytes(model):
        total = 0
        for p in model.parameters():
            total += p.numel() * p.element_size()
        return total

    return model_bytes


def float32_everywhere():
    def model_bytes(model):
        return 4 * sum(t.numel() for t in (*model.parameters(), *model.buffers()))

    return model_bytes


def two_accuracies():
    def compare_predictions(logits, quantized_logits, labels):
        a = (logits.argmax(-1) == labels).float().mean()
        b = (quantized_logits.argmax(-1) == labels).float().mean()
        return {"accuracy": a, "quantized_accuracy": b, "agreement": 1 - abs(a - b)}

    return compare_predictions


def never_put_back():
    def layer_sensitivity(model, score, convert):
        best, quantized, falls = score(model), copy.deepcopy(model), {}
        for name, layer in list(quantized.named_modules()):
            if isinstance(layer, nn.Linear):
                parent, _, last = name.rpartition(".")
                setattr(quantized.get_submodule(parent), last, convert(layer))
                falls[name] = best - score(quantized)
        return falls

    return layer_sensitivity


def mean_of_bits():
    def allocate_bits(sensitivity, budget, num_weights):
        from itertools import product

        if min(sensitivity) > budget:
            raise ValueError
        names = list(num_weights)
        fitting = [bits for bits in product(sensitivity, repeat=len(names)) if sum(bits) <= budget * len(names)]
        return dict(zip(names, min(fitting, key=lambda bits: sum(sensitivity[b][n] for b, n in zip(bits, names)))))

    return allocate_bits


@pytest.mark.parametrize(
    ("written", "diagnosis"),
    [
        (in_place_by_recursion, "quantizes the model in place"),
        (no_mode_and_no_skip, "new layers are in training mode"),
        (top_level_only, "misses nested modules"),
        (parameters_only, "buffers forgotten"),
        (float32_everywhere, "four bytes for every number"),
        (two_accuracies, "agreement from the two accuracies"),
        (never_put_back, "layers are left quantized"),
        (mean_of_bits, "the average over layers"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistakes_in_other_words_are_recognised(written, diagnosis):
    report = examine(written())
    assert not report.passed
    assert report.diagnosis == diagnosis
