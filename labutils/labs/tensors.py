"""Exercises on torch tensors: the arrays of a case handed over as tensors, and checked for changes after the call.

Cases hold NumPy arrays, which the engine can copy and compare; an exercise's `run` makes tensors and modules of them.
Torch is imported when a check runs, so that the exercises can be listed where it is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from labutils.course.exercise import Wrong


class Changed(NamedTuple):
    """In place of an answer: the name of an input that the submission changed."""

    name: str


def as_tensors(*values: Any) -> list:
    """Arrays and NumPy numbers as contiguous tensors of their own memory; any other value as it is."""
    import torch

    numpy = (np.ndarray, np.generic)
    return [torch.tensor(np.array(value, order="C")) if isinstance(value, numpy) else value for value in values]


def on_tensors(submission: Callable, *args: Any, **kwargs: Any) -> Any:
    """What a submission makes of tensors, or Changed where it does not leave them as they are."""
    import torch

    given = as_tensors(*args)
    value = submission(*given, **kwargs)
    for before, after in zip(as_tensors(*args), given):
        if isinstance(before, torch.Tensor) and not torch.equal(before, after):
            return Changed("tensor")
    return value


CASTS = ("to", "type", "type_as", "char", "byte", "short", "int", "long")
NAN_CODES = (
    "a row that is all zero gives 0 / 0 = NaN, and NaN was cast to an integer: that is 0 on this machine, and "
    "something else on another. Replace a scale of 0 by 1"
)


def watching_casts(function: Callable, *args: Any, **kwargs: Any) -> tuple[Any, bool]:
    """The answer of `function`, and whether it casts NaN to integers on its way, which is 0 on some machines only."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Watch(TorchFunctionMode):
        seen = False

        def __torch_function__(self, called, types, args=(), kwargs=None):
            result = called(*args, **(kwargs or {}))
            if getattr(called, "__name__", "") in CASTS and isinstance(result, torch.Tensor):
                was_float = isinstance(args[0], torch.Tensor) and args[0].is_floating_point()
                if was_float and not result.is_floating_point():
                    self.seen = self.seen or bool(args[0].isnan().any())
            return result

    watch = Watch()
    with watch:
        answer = function(*args, **kwargs)
    return answer, watch.seen


def require_unchanged(value: Any) -> None:
    if isinstance(value, Changed):
        raise Wrong(f"it changed the {value.name} it was given: work on a copy")
