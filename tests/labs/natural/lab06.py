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


# Written without a look at the tables of misconceptions.


@mistake("quantize_model")
def model_walks_while_changing(model, convert, skip=()):
    """Converts the original's layers, before the copy: convert sees layers that share tensors with the model."""
    new = copy.deepcopy(model)
    done = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, nn.Linear) and name not in skip:
            parent, _, child = name.rpartition(".")
            if layer not in done:
                done[layer] = convert(layer).train(layer.training)
            setattr(new.get_submodule(parent), child, done[layer])
    return new


@mistake("quantize_model")
def model_converts_convolutions(model, convert, skip=()):
    """hasattr(layer, 'weight') finds convolutions and norms, too."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "weight") and name not in skip:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, convert(layer).train(layer.training))
    return model


@mistake("quantize_model", "quantizes the model in place")
def model_in_place(model, convert, skip=()):
    """Forgets the copy: changes the model that was given."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name not in skip:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, convert(layer))
    return model


@mistake("quantize_model", "a copy that is not deep")
def model_shallow_copy(model, convert, skip=()):
    """copy.copy is shallow: containers are shared with the original, which changes too."""
    model = copy.copy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name not in skip:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, convert(layer).train(layer.training))
    return model


@mistake("quantize_model", "misses nested modules")
def model_top_level_only(model, convert, skip=()):
    """named_children looks at the top level only: deeper layers stay float."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Linear) and name not in skip:
            setattr(model, name, convert(layer).train(layer.training))
    return model


@mistake("model_bytes")
def bytes_shared_buffers_twice(model):
    """Parameters once, but buffers with remove_duplicate=False."""
    return sum(p.nbytes for p in model.parameters()) + sum(
        b.nbytes for _, b in model.named_buffers(remove_duplicate=False)
    )


@mistake("model_bytes")
def bytes_getsizeof(model):
    """sys.getsizeof of a tensor is the size of the Python object."""
    import sys

    return sum(sys.getsizeof(t) for t in [*model.parameters(), *model.buffers()])


@mistake("model_bytes", "buffers forgotten")
def bytes_parameters_only(model):
    """Counts parameters only, no buffers."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


@mistake("model_bytes", "four bytes for every number")
def bytes_four_each(model):
    """Four bytes for every element, whatever its dtype."""
    return sum(4 * t.numel() for t in [*model.parameters(), *model.buffers()])


@mistake("model_bytes", "only what files hold, what is shared counted twice")
def bytes_state_dict(model):
    """Sums over state_dict, which has shared tensors twice and leaves non-persistent buffers out."""
    return sum(t.nbytes for t in model.state_dict().values())


def _compared(logits, quantized_logits, labels, **instead):
    float_says, quantized_says = logits.argmax(dim=1), quantized_logits.argmax(dim=1)
    found = {
        "accuracy": (float_says == labels).float().mean().item(),
        "quantized_accuracy": (quantized_says == labels).float().mean().item(),
        "agreement": (float_says == quantized_says).float().mean().item(),
    }
    return found | instead


@mistake("compare_predictions")
def predictions_bool_mean(logits, quantized_logits, labels):
    """mean() of a bool tensor: torch raises in this line."""
    return _compared(logits, quantized_logits, labels, accuracy=(logits.argmax(1) == labels).mean().item())


@mistake("compare_predictions")
def predictions_axis_0(logits, quantized_logits, labels):
    """argmax over dim 0: the image with the largest logit for each class."""
    return _compared(logits.t(), quantized_logits.t(), labels[: logits.shape[1]])


@mistake("compare_predictions")
def predictions_max_values(logits, quantized_logits, labels):
    """max() returns (values, indices), and the values are compared."""
    a, b = logits.max(dim=1)[0], quantized_logits.max(dim=1)[0]
    return {
        "accuracy": (a == labels).float().mean().item(),
        "quantized_accuracy": (b == labels).float().mean().item(),
        "agreement": (a == b).float().mean().item(),
    }


@mistake("compare_predictions")
def predictions_rounded(logits, quantized_logits, labels):
    """Rounds to two decimals."""
    return {name: round(value, 2) for name, value in _compared(logits, quantized_logits, labels).items()}


@mistake("compare_predictions", "agreement where both are right")
def predictions_agree_when_right(logits, quantized_logits, labels):
    """Agreement counts images that both get right only."""
    both = (logits.argmax(1) == labels) & (quantized_logits.argmax(1) == labels)
    return _compared(logits, quantized_logits, labels, agreement=both.float().mean().item())


@mistake("layer_sensitivity")
def sensitivity_cumulative(model, score, convert):
    """Goes on from the model of the round before: layers pile up."""
    from labutils.labs.answers import quantize_model
    from labutils.models import linear_layers

    names = list(linear_layers(model))
    before, found = score(model), {}
    for n in names:
        model = quantize_model(model, convert, [o for o in names if o != n])
        found[n] = before - score(model)
    return found


@mistake("layer_sensitivity", "all other layers are quantized instead")
def sensitivity_all_but_one(model, score, convert):
    """Skips the layer itself: all the others are converted."""
    from labutils.labs.answers import quantize_model
    from labutils.models import linear_layers

    before = score(model)
    return {n: before - score(quantize_model(model, convert, [n])) for n in linear_layers(model)}


@mistake("layer_sensitivity", "what leaving a layer in float gains")
def sensitivity_against_all(model, score, convert):
    """Compares with the model in which everything is converted: how much leaving one layer out gains."""
    from labutils.labs.answers import quantize_model
    from labutils.models import linear_layers

    every = score(quantize_model(model, convert))
    return {n: score(quantize_model(model, convert, [n])) - every for n in linear_layers(model)}


@mistake("layer_sensitivity", "quantizes the model itself")
def sensitivity_in_place(model, score, convert):
    """Sets the converted layer in the model itself, and forgets to set the old one back."""
    from labutils.models import linear_layers

    before, found = score(model), {}
    for name, layer in list(linear_layers(model).items()):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, convert(layer))
        found[name] = before - score(model)
    return found


def _allocated(sensitivity, budget, num_weights, average=None, loss=None, strict=False, pick=min):
    """Tries every choice, as it should be; the versions below replace a part."""
    names = list(num_weights)
    total = sum(num_weights.values())
    average = average or (lambda bits: sum(b * num_weights[n] for n, b in bits.items()) / total)
    loss = loss or (lambda bits: sum(sensitivity[b][n] for n, b in bits.items()))
    choices = (dict(zip(names, bits)) for bits in itertools.product(sensitivity, repeat=len(names)))
    fitting = [c for c in choices if (average(c) < budget if strict else average(c) <= budget)]
    if not fitting:
        raise ValueError("budget too small")
    return pick(fitting, key=loss)


@mistake("allocate_bits")
def bits_total_budget(sensitivity, budget, num_weights):
    """Takes the budget for a total number of bits, not an average."""
    return _allocated(sensitivity, budget, num_weights, lambda bits: sum(b * num_weights[n] for n, b in bits.items()))


@mistake("allocate_bits")
def bits_integer_average(sensitivity, budget, num_weights):
    """The average with //: a choice of 3.9 bits passes for 3."""
    total = sum(num_weights.values())
    return _allocated(
        sensitivity, budget, num_weights, lambda bits: sum(b * num_weights[n] for n, b in bits.items()) // total
    )


@mistake("allocate_bits")
def bits_changes_sensitivity(sensitivity, budget, num_weights):
    """Pops widths above the budget from the caller's dict first: a layer may have more bits than the average."""
    for width in [b for b in sensitivity if b > budget]:
        sensitivity.pop(width)
    return _allocated(sensitivity, budget, num_weights)


@mistake("allocate_bits")
def bits_nested_as_given(sensitivity, budget, num_weights):
    """Looks up sensitivity[name][bits]: a KeyError in its own line."""
    return _allocated(
        sensitivity, budget, num_weights, loss=lambda bits: sum(sensitivity[n][b] for n, b in bits.items())
    )


@mistake("allocate_bits", "the average over layers")
def bits_mean_over_layers(sensitivity, budget, num_weights):
    """Averages over layers, not over weights."""
    return _allocated(sensitivity, budget, num_weights, lambda bits: sum(bits.values()) / len(bits))
