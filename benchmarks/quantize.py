"""Time to quantize and dequantize a matrix, by candidate, granularity and phase."""

from dataclasses import replace
from statistics import median
from time import perf_counter

import torch

from benchmarks.candidates import CANDIDATES, GRANULARITIES, run
from benchmarks.tables import ratio
from labutils.arrays.affine import dequantize, quantize
from labutils.arrays.scheme import Scheme

BOTH = "quantize + dequantize"
ALL = "choose + quantize + dequantize"
PHASES = ("choose", "quantize", "dequantize", BOTH)


def tables(side=4096, repeats=15, progress=lambda rounds, title: rounds):
    """(title, rows) for all phases together and for each phase, on a side x side matrix of float32 normals."""
    x = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    whole, phases = [], []
    for name in progress(GRANULARITIES, "quantize"):
        candidates = {candidate: make(GRANULARITIES[name], x.shape) for candidate, make in CANDIDATES.items()}
        worst = disagreement(candidates, x, GRANULARITIES[name])
        seconds = interleaved(candidates, x, repeats)
        whole.append({"granularity": name, **row(seconds, ALL), "largest difference, in scales": worst})
        phases += [{"granularity": name, "phase": phase, **row(seconds, phase)} for phase in PHASES]
    title = f"{side} x {side} float32, milliseconds, median of {repeats}"
    return [(f"{ALL}: {title}", whole), (f"Phase by phase: {title}", phases)]


def disagreement(candidates, x, granularity):
    """The largest difference between a candidate's reconstruction and labutils', in scales; AssertionError above 1.

    Values halfway between two codes may differ by one scale: torchao multiplies by 1/scale where labutils divides by
    scale, which may round them the other way.
    """
    quantized = quantize(x, Scheme(granularity=granularity))
    reference = dequantize(quantized)
    scale = dequantize(replace(quantized, codes=torch.ones_like(quantized.codes)))  # of each element
    worst = max(float(((run(steps, x) - reference).abs() / scale).max()) for steps in candidates.values())
    if worst > 1.001:
        raise AssertionError(f"the candidates compute different things: {worst:.3g} scales apart")
    return worst


def interleaved(candidates, x, repeats):
    """candidate -> phase -> median seconds; interleaved, A B C A B C ..., so that other load affects all of them."""
    samples = {candidate: [] for candidate in candidates}
    for _ in range(repeats):
        for candidate, steps in candidates.items():
            samples[candidate].append(_phases(steps, x))
    return {candidate: {p: median(s[p] for s in taken) for p in taken[0]} for candidate, taken in samples.items()}


def row(seconds, phase):
    """Milliseconds of each candidate in one phase, and the ratio of the others' to labutils'."""
    ms = {candidate: 1e3 * phases.get(phase, float("nan")) for candidate, phases in seconds.items()}
    others = [candidate for candidate in ms if not candidate.startswith("labutils")]
    return ms | {f"{candidate} / labutils": ratio(ms[candidate], ms["labutils"]) for candidate in others}


def _phases(steps, x):
    seconds, result = {}, None
    for phase, step in steps.items():
        start = perf_counter()
        result = step(x, result)
        seconds[phase] = perf_counter() - start
    seconds[ALL] = sum(seconds.values())
    seconds[BOTH] = seconds[ALL] - seconds["choose"]
    return seconds
