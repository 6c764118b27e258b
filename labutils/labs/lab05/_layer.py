"""How a submitted layer class is examined: step by step, up to the first step that is wrong.

A step observes the layer and keeps a few plain numbers, which are then judged. What comes after a wrong step is not
observed: a layer with two mistakes is told of the first, and a misconception is recognised by it. torch is imported
when a layer is examined.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.course.exercise import Case, Wrong
from labutils.course.reading import describe
from labutils.labs.lab05 import _layer_product, _layer_state
from labutils.labs.lab05._layer_subject import Expected, Subject, float_layer
from labutils.labs.tensors import NAN_CODES, watching_casts

STEPS = (*_layer_product.STEPS, *_layer_state.STEPS)  # (observe a Subject, judge what was observed)


def examine(
    submission: Any,
    weight: np.ndarray,
    bias: np.ndarray | None,
    x: np.ndarray,
    dtype: str = "float32",
    x_dtype: str | None = None,
) -> dict[str, Any]:
    """What is observed of the layer that `submission.from_float` makes of an nn.Linear with these numbers."""
    import torch

    from_float = getattr(submission, "from_float", submission)
    linear = float_layer(weight, bias, dtype)
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    layer, casts_nan = watching_casts(from_float, linear)
    if casts_nan:
        return {"nan": True}
    if not isinstance(layer, torch.nn.Module):
        return {"returned": describe(layer)}
    x = torch.from_numpy(x).to(getattr(torch, x_dtype or dtype))
    subject = Subject(from_float, linear, before, layer, x)
    expected, seen = Expected.of(weight, bias, x, dtype, x_dtype), {}
    for observe, judge_step in STEPS:
        seen |= observe(subject)
        try:
            judge_step(seen, expected)
        except Wrong:
            break
    return seen


def read(seen: dict) -> dict:
    if "nan" in seen:
        raise Wrong(NAN_CODES)
    if "returned" in seen:
        raise Wrong(f"from_float should return the quantized layer, an nn.Module, but it returned {seen['returned']}")
    if "forward" in seen:
        raise Wrong(f"forward should return a tensor, but it returned {seen['forward']}")
    return seen


def judge(seen: dict, case: Case) -> None:
    import torch

    weight, bias, x = case.args
    expected = Expected.of(weight, bias, torch.from_numpy(x), **case.kwargs)
    for _, judge_step in STEPS:
        judge_step(seen, expected)
