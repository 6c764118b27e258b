"""Quantize and dequantize a matrix: every candidate, every granularity, every phase."""

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
    """(title, rows) of the whole and of its phases, for a side x side matrix of float32 normals."""
    x = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    whole, phases = [], []
    for name in progress(GRANULARITIES, "quantize"):
        candidates = {who: make(GRANULARITIES[name], x.shape) for who, make in CANDIDATES.items()}
        worst = disagreement(candidates, x, GRANULARITIES[name])
        seconds = interleaved(candidates, x, repeats)
        whole.append({"granularity": name, **row(seconds, ALL), "largest difference, in scales": worst})
        phases += [{"granularity": name, "phase": phase, **row(seconds, phase)} for phase in PHASES]
    title = f"{side} x {side} float32, milliseconds, median of {repeats}"
    return [(f"{ALL}: {title}", whole), (f"Phase by phase: {title}", phases)]


def disagreement(candidates, x, granularity):
    """How far the candidates' reconstructions lie from labutils' at most, in scales; more than 1 is an error.

    One scale apart are values on the edge between two codes: torchao multiplies by 1/scale where labutils divides by
    scale, and rounding may then fall either way.
    """
    quantized = quantize(x, Scheme(granularity=granularity))
    reference = dequantize(quantized)
    scale = dequantize(replace(quantized, codes=torch.ones_like(quantized.codes)))  # of each element
    worst = max(float(((run(steps, x) - reference).abs() / scale).max()) for steps in candidates.values())
    if worst > 1.001:
        raise AssertionError(f"the candidates compute different things: {worst:.3g} scales apart")
    return worst


def interleaved(candidates, x, repeats):
    """candidate -> phase -> median seconds. A B C A B C ...: what else the machine does hits all of them alike."""
    samples = {who: [] for who in candidates}
    for _ in range(repeats):
        for who, steps in candidates.items():
            samples[who].append(_phases(steps, x))
    return {who: {p: median(s[p] for s in taken) for p in taken[0]} for who, taken in samples.items()}


def row(seconds, phase):
    """Milliseconds of each candidate in one phase, and how many times labutils' the others take."""
    took = {who: 1e3 * phases.get(phase, float("nan")) for who, phases in seconds.items()}
    others = [who for who in took if not who.startswith("labutils")]
    return took | {f"{who} / labutils": ratio(took[who], took["labutils"]) for who in others}


def _phases(steps, x):
    seconds, before = {}, None
    for phase, step in steps.items():
        start = perf_counter()
        before = step(x, before)
        seconds[phase] = perf_counter() - start
    seconds[ALL] = sum(seconds.values())
    seconds[BOTH] = seconds[ALL] - seconds["choose"]
    return seconds
