"""Right answers to lab 06, written as people write them."""

import copy
import functools
import itertools

import numpy as np

# --- quantize_model ---


def by_path(model, convert, skip=()):
    from torch import nn

    quantized, made = copy.deepcopy(model), {}
    for name, layer in list(quantized.named_modules(remove_duplicate=False)):
        if isinstance(layer, nn.Linear) and name not in skip:
            if layer not in made:
                made[layer] = convert(layer).train(layer.training)
            parent, _, last = name.rpartition(".")
            setattr(quantized.get_submodule(parent), last, made[layer])
    return quantized


def recursively(model, convert, skip=()):
    from torch import nn

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
    from torch import nn

    memo = {
        id(layer): convert(layer).train(layer.training)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name not in set(skip)
    }
    return copy.deepcopy(model, memo)


def by_replacing_values(model, convert, skip=()):
    """Converts first, then looks for every place that holds a converted layer."""
    import torch

    result = copy.deepcopy(model)
    new = {}
    for name, module in result.named_modules():
        if type(module) is torch.nn.Linear and name not in skip:
            new[module] = convert(module)
            new[module].training = module.training
    for parent in list(result.modules()):
        for key, child in list(parent._modules.items()):
            if child in new:
                parent.add_module(key, new[child])
    return result


def with_getattr(model, convert, skip=()):
    import torch

    names = [n for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, torch.nn.Linear)]
    result, cache = copy.deepcopy(model), {}
    originals = {name: result.get_submodule(name) for name in names if name not in list(skip)}
    for name, layer in originals.items():
        *path, last = name.split(".")
        parent = functools.reduce(getattr, path, result)
        cache[id(layer)] = cache.get(id(layer)) or convert(layer)
        setattr(parent, last, cache[id(layer)])
    return result.train() if model.training else result.eval()


# --- model_bytes ---


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
    import torch

    def bits(dtype):
        return torch.finfo(dtype).bits if dtype.is_floating_point else torch.iinfo(dtype).bits

    return sum(t.numel() * bits(t.dtype) for t in (*model.parameters(), *model.buffers())) / 8


def as_numpy_integer(model):
    return np.int64(sum(t.nbytes for t in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()))


# --- compare_predictions ---


def argmax_and_mean(logits, quantized_logits, labels):
    before, after = logits.argmax(dim=1), quantized_logits.argmax(dim=1)
    return {
        "accuracy": (before == labels).float().mean().item(),
        "quantized_accuracy": (after == labels).float().mean().item(),
        "agreement": (before == after).float().mean().item(),
    }


def as_tensors(logits, quantized_logits, labels):
    a, b = logits.argmax(-1), quantized_logits.argmax(-1)
    return {
        "agreement": a.eq(b).double().mean(),
        "accuracy": a.eq(labels).double().mean(),
        "quantized_accuracy": b.eq(labels).double().mean(),
    }


def through_numpy(logits, quantized_logits, labels):
    a, b = (np.argmax(x.numpy(), axis=1) for x in (logits, quantized_logits))
    y = labels.numpy()
    return {"accuracy": np.mean(a == y), "quantized_accuracy": np.mean(b == y), "agreement": np.mean(a == b)}


def sums_over_length(logits, quantized_logits, labels):
    a, b = logits.max(dim=1).indices, quantized_logits.topk(1).indices[:, 0]

    def share(x, y):
        return int((x == y).sum()) / len(labels)

    return {"accuracy": share(a, labels), "quantized_accuracy": share(b, labels), "agreement": share(a, b), "n": 3}


def one_by_one(logits, quantized_logits, labels):
    hits = dict.fromkeys(("accuracy", "quantized_accuracy", "agreement"), 0)
    for row, other, label in zip(logits.tolist(), quantized_logits.tolist(), labels.tolist()):
        a, b = row.index(max(row)), other.index(max(other))
        hits["accuracy"] += a == label
        hits["quantized_accuracy"] += b == label
        hits["agreement"] += a == b
    return {key: count / len(labels) for key, count in hits.items()}


# --- layer_sensitivity ---


def skip_all_others(model, score, convert):
    from torch import nn

    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    best = score(model)
    return {name: best - score(by_path(model, convert, [other for other in names if other != name])) for name in names}


def copy_and_set(model, score, convert):
    from torch import nn

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
    import torch

    best, falls = score(model), {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear):
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
    from torch import nn

    falls = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            trial = copy.deepcopy(model)
            trial.get_submodule(name).weight.data = convert(module).weight
            falls[name] = np.float64(score(model)) - np.float64(score(trial))
    return falls


# --- allocate_bits ---


def every_choice(sensitivity, budget, num_weights):
    names = list(num_weights)
    room = budget * sum(num_weights.values())
    best, least = None, float("inf")
    for bits in itertools.product(sensitivity, repeat=len(names)):
        cost = sum(b * num_weights[n] for b, n in zip(bits, names))
        loss = sum(sensitivity[b][n] for b, n in zip(bits, names))
        if cost <= room + 1e-6 and loss < least:
            best, least = dict(zip(names, bits)), loss
    if best is None:
        raise ValueError(f"no choice fits into {budget} bits")
    return best


def numpy_average(sensitivity, budget, num_weights):
    names, sizes = list(num_weights), np.array(list(num_weights.values()))
    choices = np.array(list(itertools.product(sorted(sensitivity), repeat=len(names))))
    losses = np.array([sum(float(sensitivity[int(b)][n]) for b, n in zip(row, names)) for row in choices])
    fits = np.average(choices, axis=1, weights=sizes) <= budget + 1e-9
    if not fits.any():
        raise ValueError("too tight")
    losses[~fits] = np.inf
    return dict(zip(names, choices[np.argmin(losses)]))


def branch_and_bound(sensitivity, budget, num_weights):
    names, widths = list(num_weights), sorted(sensitivity)
    room = budget * sum(num_weights.values()) + 1e-6

    @functools.cache
    def best(i, spent):
        least_left = widths[0] * sum(num_weights[name] for name in names[i:])
        if spent + least_left > room:
            return float("inf"), ()
        if i == len(names):
            return 0.0, ()
        return min(
            (sensitivity[b][names[i]] + rest[0], (b, *rest[1]))
            for b in widths
            for rest in [best(i + 1, spent + b * num_weights[names[i]])]
        )

    loss, bits = best(0, 0)
    if loss == float("inf"):
        raise ValueError("budget too small")
    return dict(zip(names, bits))


def pareto_table(sensitivity, budget, num_weights):
    """Layer by layer, the cheapest way to every loss so far; what costs more and loses more is dropped."""
    states = [(0, 0.0, {})]
    for name, count in num_weights.items():
        grown = sorted(
            (
                (cost + b * count, loss + losses[name], {**bits, name: b})
                for cost, loss, bits in states
                for b, losses in sensitivity.items()
            ),
            key=lambda state: state[:2],
        )
        states, least = [], float("inf")
        for state in grown:
            if state[1] < least:
                states.append(state)
                least = state[1]
    fitting = [state for state in states if state[0] <= budget * sum(num_weights.values()) * (1 + 1e-9)]
    if not fitting:
        raise ValueError("cannot be met")
    return fitting[-1][2]


def linear_program(sensitivity, budget, num_weights):
    from labutils import models

    return dict(reversed(models.allocate_bits(sensitivity, budget, num_weights).items()))


RIGHT = {
    "quantize_model": [by_path, recursively, by_memo, by_replacing_values, with_getattr],
    "model_bytes": [
        parameters_and_buffers, named_loops, by_storage, module_by_module, bits_over_eight, as_numpy_integer,
    ],
    "compare_predictions": [argmax_and_mean, as_tensors, through_numpy, sums_over_length, one_by_one],
    "layer_sensitivity": [skip_all_others, copy_and_set, swap_and_put_back, sorted_by_fall, weights_exchanged],
    "allocate_bits": [every_choice, numpy_average, branch_and_bound, pareto_table, linear_program],
}  # fmt: skip
