"""A quantized model beside the model in float: how fast it is, and how near its outputs are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from labutils.arrays.inputs import Array
from labutils.models.evaluation.embeddings import mean_cosine

ROUNDS = 5


def side_by_side(model: nn.Module, reference: nn.Module, run: Callable[[nn.Module], Any]) -> tuple[float, float]:
    """(how many times as fast as `reference`, cosine between the two outputs), the models running in turn.

    >>> model = nn.Linear(8, 4)
    >>> speed, cosine = side_by_side(model, model, lambda model: model(torch.ones(2, 8)))
    >>> round(cosine, 6)
    1.0

    run  model -> its output: an array or tensor (..., d), a tuple of them or what transformers returns, of which the
         first counts

    Speed is by the clock: the median of the ratios of ROUNDS rounds, after one to warm up. Other programs that run at
    the same time slow down both. ValueError where the outputs have different shapes.
    """
    ratios = []
    for _ in range(1 + ROUNDS):
        (ours, output), (theirs, expected) = _timed(run, model), _timed(run, reference)
        ratios.append(theirs / ours)
    output, expected = _rows(output), _rows(expected)
    if output.shape != expected.shape:
        raise ValueError(f"run gives outputs of other shapes: {tuple(output.shape)} and {tuple(expected.shape)}")
    return statistics.median(ratios[1:]), mean_cosine(output, expected)


def _timed(run: Callable[[nn.Module], Any], model: nn.Module) -> tuple[float, Any]:
    start = time.perf_counter()
    with torch.inference_mode():
        output = run(model)
    return time.perf_counter() - start, output


def _rows(output: Any) -> Array:
    """The output as (n, d); of several, the first."""
    while isinstance(output, (Mapping, tuple, list)) and output:
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    if not hasattr(output, "reshape") or not output.shape:
        kind = type(output).__name__
        raise TypeError(f"run must return a tensor, an array, or what a model of transformers returns, got {kind}")
    return output.reshape(-1, output.shape[-1])
