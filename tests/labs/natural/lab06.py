"""Lab 06: whole models."""

import copy
import itertools

import numpy as np
from torch import nn

from tests.labs.natural import mistake


@mistake("quantize_model", "nested|in place")
def only_children(model, convert, skip=()):
    for name, child in model.named_children():
        if isinstance(child, nn.Linear) and name not in skip:
            setattr(model, name, convert(child))
    return model


@mistake("quantize_model", "training mode|eval|mode")
def mode_forgotten(model, convert, skip=()):
    quantized, made = copy.deepcopy(model), {}
    for name, module in list(quantized.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.Linear) and name not in skip:
            path, _, last = name.rpartition(".")
            made[module] = made.get(module) or convert(module)
            setattr(quantized.get_submodule(path), last, made[module])
    return quantized


@mistake("quantize_model", "returns None")
def nothing_returned(model, convert, skip=()):
    copy.deepcopy(model)


@mistake("quantize_model")
def dict_of_layers(model, convert, skip=()):
    return {name: convert(m) for name, m in model.named_modules() if isinstance(m, nn.Linear)}


@mistake("quantize_model")
def skips_the_last_layer_too(model, convert, skip=()):
    quantized = copy.deepcopy(model)
    names = [name for name, m in quantized.named_modules() if isinstance(m, nn.Linear)][:-1]
    for name in names:
        if name not in skip:
            path, _, last = name.rpartition(".")
            old = quantized.get_submodule(name)
            setattr(quantized.get_submodule(path), last, convert(old).train(old.training))
    return quantized


@mistake("model_bytes", "buffer")
def parameters_only(model):
    return sum(p.nbytes for p in model.parameters())


@mistake("model_bytes", "4 bytes|float32|four")
def four_bytes_each(model):
    return 4 * sum(t.numel() for t in (*model.parameters(), *model.buffers()))


@mistake("model_bytes", "file|buffer|twice|state")
def of_the_state_dict(model):
    return sum(t.nbytes for t in model.state_dict().values())


@mistake("model_bytes", "elements|count")
def number_of_elements(model):
    return sum(t.numel() for t in (*model.parameters(), *model.buffers()))


@mistake("model_bytes", "kilobytes or megabytes")
def megabytes_of_2_to_the_20(model):
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers())) / 2**20


@mistake("compare_predictions", "disagree|upside|differ")
def share_that_differs(logits, quantized_logits, labels):
    a, b = logits.argmax(1), quantized_logits.argmax(1)
    return {
        "accuracy": (a == labels).float().mean().item(),
        "quantized_accuracy": (b == labels).float().mean().item(),
        "agreement": (a != b).float().mean().item(),
    }


@mistake("compare_predictions", "percent")
def percentages(logits, quantized_logits, labels):
    a, b = logits.argmax(1), quantized_logits.argmax(1)
    return {
        "accuracy": 100 * (a == labels).float().mean().item(),
        "quantized_accuracy": 100 * (b == labels).float().mean().item(),
        "agreement": 100 * (a == b).float().mean().item(),
    }


@mistake("compare_predictions", "float and quantized swapped")
def accuracies_exchanged(logits, quantized_logits, labels):
    a, b = logits.argmax(1), quantized_logits.argmax(1)
    return {
        "accuracy": (b == labels).float().mean().item(),
        "quantized_accuracy": (a == labels).float().mean().item(),
        "agreement": (a == b).float().mean().item(),
    }


@mistake("compare_predictions")
def share_of_wrong_answers(logits, quantized_logits, labels):
    a, b = logits.argmax(1), quantized_logits.argmax(1)
    return {
        "accuracy": (a != labels).float().mean().item(),
        "quantized_accuracy": (b != labels).float().mean().item(),
        "agreement": (a == b).float().mean().item(),
    }


@mistake("compare_predictions", "right|both")
def agreement_with_the_labels(logits, quantized_logits, labels):
    a, b = logits.argmax(1), quantized_logits.argmax(1)
    return {
        "accuracy": (a == labels).float().mean().item(),
        "quantized_accuracy": (b == labels).float().mean().item(),
        "agreement": ((a == labels) & (b == labels)).float().mean().item(),
    }


def quantized_only(model, convert, name):
    quantized = copy.deepcopy(model)
    path, _, last = name.rpartition(".")
    setattr(quantized.get_submodule(path), last, convert(quantized.get_submodule(name)))
    return quantized


@mistake("layer_sensitivity", "score instead")
def scores_themselves(model, score, convert):
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return {name: score(quantized_only(model, convert, name)) for name in names}


@mistake("layer_sensitivity", "sign|upside")
def now_minus_before(model, score, convert):
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return {name: score(quantized_only(model, convert, name)) - score(model) for name in names}


@mistake("layer_sensitivity")
def halved(model, score, convert):
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return {name: (score(model) - score(quantized_only(model, convert, name))) / 2 for name in names}


@mistake("layer_sensitivity", "relative")
def in_percent(model, score, convert):
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    best = score(model)
    return {name: 100 * (best - score(quantized_only(model, convert, name))) / best for name in names}


@mistake("layer_sensitivity")
def ranks(model, score, convert):
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    falls = {name: score(model) - score(quantized_only(model, convert, name)) for name in names}
    return {name: i for i, name in enumerate(sorted(falls, key=falls.get))}


def fewest(sensitivity, num_weights):
    return dict.fromkeys(num_weights, min(sensitivity))


@mistake("allocate_bits", "gain|largest|greedy|most sensitive|first")
def greedy_by_gain(sensitivity, budget, num_weights):
    widths, bits, total = sorted(sensitivity), fewest(sensitivity, num_weights), sum(num_weights.values())
    if widths[0] > budget:
        raise ValueError("no")
    while True:
        gains = {}
        for name, now in bits.items():
            for wide in widths:
                spent = sum(num_weights[n] * (wide if n == name else bits[n]) for n in bits) / total
                if wide > now and spent <= budget:
                    gains[name, wide] = sensitivity[now][name] - sensitivity[wide][name]
        if not gains or max(gains.values()) <= 0:
            return bits
        name, wide = max(gains, key=gains.get)
        bits[name] = wide


@mistake("allocate_bits", "the fewest bits everywhere")
def budget_as_a_sum_of_bits(sensitivity, budget, num_weights):
    best, least = fewest(sensitivity, num_weights), float("inf")
    if min(sensitivity) > budget:
        raise ValueError("no")
    for choice in itertools.product(sorted(sensitivity), repeat=len(num_weights)):
        bits = dict(zip(num_weights, choice))
        lost = sum(sensitivity[b][n] for n, b in bits.items())
        if sum(choice) <= budget and lost < least:
            best, least = bits, lost
    return best


@mistake("allocate_bits", "average over layers")
def mean_over_layers(sensitivity, budget, num_weights):
    best, least = None, float("inf")
    for choice in itertools.product(sorted(sensitivity), repeat=len(num_weights)):
        bits = dict(zip(num_weights, choice))
        lost = sum(sensitivity[b][n] for n, b in bits.items())
        if np.mean(choice) <= budget and lost < least:
            best, least = bits, lost
    if best is None:
        raise ValueError("no")
    return best


@mistake("allocate_bits", "the least sensitive layers get the bits")
def maximizes(sensitivity, budget, num_weights):
    best, most = None, -float("inf")
    total = sum(num_weights.values())
    for choice in itertools.product(sorted(sensitivity), repeat=len(num_weights)):
        bits = dict(zip(num_weights, choice))
        lost = sum(sensitivity[b][n] for n, b in bits.items())
        if sum(num_weights[n] * b for n, b in bits.items()) <= budget * total and lost > most:
            best, most = bits, lost
    if best is None:
        raise ValueError("no")
    return best


@mistake("allocate_bits", "passed over|cannot be met")
def no_error_for_an_impossible_budget(sensitivity, budget, num_weights):
    best, least = {}, float("inf")
    total = sum(num_weights.values())
    for choice in itertools.product(sorted(sensitivity), repeat=len(num_weights)):
        bits = dict(zip(num_weights, choice))
        lost = sum(sensitivity[b][n] for n, b in bits.items())
        if sum(num_weights[n] * b for n, b in bits.items()) <= budget * total * (1 + 1e-9) and lost < least:
            best, least = bits, lost
    return best
