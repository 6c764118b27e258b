"""SmolLM2 in few bits: perplexity of weights, key/value caches and rotated activations.

    python -m benchmarks.language [weights] [trap] [cache] [rotation]    all of them where none is named

It takes about an hour on one thread. Perplexity is that of the first 4 windows of 512 tokens of the course's answers,
joined by a space; what is calibrated reads other text, the calibration sentences and then the questions: 12 windows.
"""

import math
import sys
from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from labutils.arrays.affine import fake_quantize, quantize
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.data import calibration_sentences, language_model, questions
from labutils.models.awq import awq_scales, clip_search
from labutils.models.calibrated import quantize_with
from labutils.models.conversion import quantize_model
from labutils.models.evaluation import perplexity
from labutils.models.gptq import gptq_linear
from labutils.models.hessian import layer_hessians
from labutils.models.kv_cache import QuantizedCache
from labutils.models.layers import Int8Linear, layer_kind
from labutils.models.outliers import StaticInt8Linear, observe, smooth_linear
from labutils.models.rotation import rotate_model

HEAD = "lm_head"  # left in float: its weight is also the embedding's
GROUPS = Scheme(3, granularity=PerGroup(32))
SCHEMES = {
    "3 bits, groups of 32": GROUPS,
    "3 bits, groups of 32, asymmetric": replace(GROUPS, symmetric=False),
    "4 bits, a group each row": Scheme(4, granularity=PerAxis(0)),
    "2 bits, groups of 32, asymmetric": replace(GROUPS, num_bits=2, symmetric=False),
}


class Bench:
    """A language model, the windows on which it is judged, and those on which it is calibrated."""

    def __init__(self, language, windows=4, length=512, calibrated=12):
        self.model, self.length = language.model, length
        answers = language.encode(" ".join(answer for _, answer in questions()))
        others = language.encode(" ".join(calibration_sentences() + [question for question, _ in questions()]))
        self.ids = answers[: windows * length]
        self.batches = torch.tensor(others[: calibrated * length]).reshape(calibrated, 1, length)

    def perplexity(self, model):
        return perplexity(model, self.ids, window=self.length)


# --- weights ----------------------------------------------------------------------------------------------------------


def in_clips(linear, hessian, scheme):
    kind = layer_kind(scheme)
    scale, zero_point = clip_search(linear.weight, hessian, scheme)
    return kind.from_codes(linear, quantize(linear.weight, scheme, (kind.held_scale(scale), zero_point)))


def gptq_in_clips(linear, hessian, scheme):
    clips = clip_search(linear.weight, hessian, scheme)
    return gptq_linear(linear, hessian, scheme, activation_order=True, qparams=clips)


ROUNDINGS = {  # how the codes are chosen, from the weights as they are or after AWQ's scales
    "to nearest": lambda linear, hessian, scheme: layer_kind(scheme)(linear, scheme),
    "to nearest, searched clips": in_clips,
    "GPTQ": gptq_linear,
    "GPTQ, activation order": lambda linear, hessian, scheme: gptq_linear(
        linear, hessian, scheme, activation_order=True
    ),
    "GPTQ, activation order, searched clips": gptq_in_clips,
}
AS_THEY_ARE, SCALED = "", "AWQ scales, "
EVERY = [(start, rounding) for start in (AS_THEY_ARE, SCALED) for rounding in ROUNDINGS]
MAIN = [  # a calibration serves all, but each takes a minute
    (AS_THEY_ARE, "to nearest"),
    (SCALED, "to nearest"),
    (AS_THEY_ARE, "GPTQ"),
    (AS_THEY_ARE, "GPTQ, activation order"),
    (SCALED, "GPTQ, activation order"),
]


def weights(bench, schemes=SCHEMES, progress=lambda rounds, title: rounds):
    """(title, rows): perplexity of each rounding with and without AWQ's scales, and what remains of the loss."""
    hessians = layer_hessians(bench.model, bench.batches, skip=[HEAD])
    floats = bench.perplexity(bench.model)
    for name, scheme in schemes.items():
        rows, baseline = [], None
        starts = {AS_THEY_ARE: (bench.model, hessians), SCALED: with_awq_scales(bench.model, hessians, scheme)}
        for start, rounding in progress(EVERY if scheme == GROUPS else MAIN, name):
            found = bench.perplexity(rounded(*starts[start], ROUNDINGS[rounding], scheme))
            baseline = baseline or found
            remains = math.log(found / floats) / math.log(baseline / floats)
            rows.append({"weights": start + rounding, "perplexity": found, "of the loss, %": 100 * remains})
        yield f"{name} (float: {floats:.2f})", rows


def with_awq_scales(model, hessians, scheme):
    """A copy of the model that divides by AWQ's scales before each linear layer, and the Hessians behind them."""
    moved = {}

    def scaled(linear, named):
        (name, hessian), scales = named, awq_scales(linear.weight, named[1], scheme)
        moved[f"{name}.1"] = hessian / torch.outer(scales, scales)
        return smooth_linear(linear, scales)

    return quantize_with(model, {name: (name, h) for name, h in hessians.items()}, scaled, skip=[HEAD]), moved


def rounded(model, hessians, rounding, scheme):
    return quantize_with(model, hessians, lambda linear, hessian: rounding(linear, hessian, scheme), skip=[HEAD])


def trap(bench, progress=lambda rounds, title: rounds):
    """(title, rows): what it costs to leave each window's first token out of the calibration, 3 bits, groups of 32."""
    rows = []
    for name, run in progress(list(CALIBRATIONS.items()), "trap"):
        batches = [(window[:, :1], window[:, 1:]) for window in bench.batches]
        hessians = layer_hessians(bench.model, [first_cached(bench.model, *b) for b in batches], run, skip=[HEAD])
        rows += [
            {"calibrated on": name, "weights": rounding}
            | {"perplexity": bench.perplexity(rounded(bench.model, hessians, ROUNDINGS[rounding], GROUPS))}
            for rounding in ("GPTQ", "GPTQ, activation order")
        ]
    yield "The first token in the calibration: 3 bits, groups of 32", rows


def first_cached(model, first, rest):
    """The tokens, and the cache of the first of them."""
    with torch.no_grad():
        return first, rest, model(first, use_cache=True).past_key_values


CALIBRATIONS = {  # the other tokens read the first one's keys and values in both
    "all tokens": lambda model, batch: model(torch.cat(batch[:2], dim=1)),
    "all but the first of each window": lambda model, batch: model(batch[1], past_key_values=batch[2]),
}


# --- the key/value cache ----------------------------------------------------------------------------------------------

CACHES = {
    "keys per channel, values float": {"keys": "channel", "values": None},
    "keys per token, values float": {"keys": "token", "values": None},
    "values per channel, keys float": {"keys": None, "values": "channel"},
    "values per token, keys float": {"keys": None, "values": "token"},
    "keys per channel, values per token": {"keys": "channel", "values": "token"},
    "both per token": {"keys": "token", "values": "token"},
}


def cache(bench, widths=(4, 3, 2), progress=lambda rounds, title: rounds):
    """(title, rows): perplexity with a quantized cache, groups of 32 tokens, none in full precision."""
    rows = []
    for name in progress(CACHES, "cache"):
        found = {f"{bits} bits": cached_perplexity(bench, bits, CACHES[name]) for bits in widths}
        rows.append({"cache": name} | found)
    yield f"The key/value cache (float: {bench.perplexity(bench.model):.2f})", rows


def cached_perplexity(bench, num_bits, options):
    """Perplexity where attention reads all keys and values from the codes, those of its own window among them."""

    def with_cache(model, args, kwargs):
        quantized = QuantizedCache(model.config, num_bits, window=0, **options)
        return args, kwargs | {"use_cache": True, "past_key_values": quantized}

    hook = bench.model.register_forward_pre_hook(with_cache, with_kwargs=True)
    try:
        return bench.perplexity(bench.model)
    finally:
        hook.remove()


# --- rotations --------------------------------------------------------------------------------------------------------


class InBits(nn.Module):
    """Each row of the activations rounded to so many bits, with a scale and a zero point of its own."""

    def __init__(self, num_bits):
        super().__init__()
        self.scheme = Scheme(num_bits, symmetric=False, granularity=PerAxis(0))

    def forward(self, x):
        return fake_quantize(x.reshape(-1, x.shape[-1]), self.scheme).reshape(x.shape)


def static(bench, model):
    with torch.no_grad(), observe(model) as seen:
        for batch in bench.batches:
            model(batch)
    maxima = {name: peaks for name, peaks in seen.maxima.items() if name != HEAD}
    return quantize_model(
        model,
        rules={HEAD: None} | {n: lambda linear, peaks=p: StaticInt8Linear(linear, peaks) for n, p in maxima.items()},
    )


def in_bits(weight_bits, activation_bits):
    """A function of the bench and a model: weights (None: float) in one group each row, activations row by row."""

    def convert(linear):
        scheme = None if weight_bits is None else Scheme(weight_bits, granularity=PerAxis(0))
        return nn.Sequential(InBits(activation_bits), linear if scheme is None else layer_kind(scheme)(linear, scheme))

    return lambda bench, model: quantize_model(model, convert, skip=[HEAD])


INTEGERS = {
    "W8A8, a scale for each row": lambda bench, model: quantize_model(model, Int8Linear, skip=[HEAD]),
    "W8A8, static, one scale for all": static,
    "activations 4 bits, weights float": in_bits(None, 4),
    "W4A8": in_bits(4, 8),
    "W4A4": in_bits(4, 4),
}


def rotation(bench, progress=lambda rounds, title: rounds):
    """(title, rows): perplexity of activations in integers, plain and behind a Hadamard rotation with random signs."""
    models = {"plain": bench.model, "rotated": rotate_model(bench.model, seed=0, skip=[HEAD])}
    rows = []
    for name in progress(INTEGERS, "rotation"):
        found = {way: bench.perplexity(INTEGERS[name](bench, model)) for way, model in models.items()}
        rows.append({"what is quantized": name} | found)
    yield f"Rotations (float: {bench.perplexity(bench.model):.2f})", rows


SECTIONS = {"weights": weights, "trap": trap, "cache": cache, "rotation": rotation}


def main(names):
    from benchmarks.tables import machine, markdown

    torch.set_num_threads(1)
    language = language_model()
    print(machine(), language.source, sep="\n")
    for name in names or SECTIONS:
        for title, rows in SECTIONS[name](Bench(language), progress=lambda rounds, title: tqdm(rounds, title)):
            print(f"\n## {title}\n\n{markdown(rows)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
