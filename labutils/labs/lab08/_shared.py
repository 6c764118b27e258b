"""What several exercises of this lab have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labutils.course.exercise import Wrong
from labutils.course.reading import as_array

if TYPE_CHECKING:
    pass


Array = Any  # a numpy.ndarray or a torch.Tensor


WEIGHT = np.array([[0.5, -0.25, 0.25], [-1.0, 1.0, 0.125]], dtype=np.float32)


# Cases hold NumPy arrays, which the engine can copy and compare, and `run` makes tensors and modules of them. Torch is
# imported when a check runs: the exercises can be listed where it is not installed.
class _Changed(NamedTuple):
    """In place of an answer: what the submission changed, and should not have."""

    what: str


def _on_tensors(submission: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a submission with tensors for arrays; an answer only where it leaves them as they are."""
    import torch

    tensors = [torch.tensor(np.array(arg, order="C")) if isinstance(arg, np.ndarray) else arg for arg in args]
    value = submission(*tensors, **kwargs)
    if any(isinstance(arg, np.ndarray) and tensor.numpy().tobytes() != np.array(arg, order="C").tobytes()
           for arg, tensor in zip(args, tensors)):  # fmt: skip
        return _Changed("tensor")
    return value


def _require_unchanged(value: Any) -> None:
    if isinstance(value, _Changed):
        raise Wrong(f"it changed the {value.what} it was given: work on a copy")


def _floats(value: Any, name: str) -> np.ndarray:
    """In float64: which float dtype an answer has is left open."""
    array = as_array(value, name)
    if array.dtype.kind != "f":
        raise Wrong(f"{name} should hold floats, but its dtype is {array.dtype}")
    return array.astype(np.float64)


def _place(where: tuple) -> str:
    return ", ".join(str(int(i)) for i in where)


def _judge_close(found: np.ndarray, wanted: np.ndarray, name: str, meaning: str, tolerance: float = 1e-5) -> None:
    """Equal up to `tolerance` of the largest wanted magnitude; names the worst element."""
    if found.shape != wanted.shape:
        raise Wrong(f"{name} should have shape {wanted.shape}, but has {found.shape}")
    off = np.abs(found - wanted)
    off = np.where(np.isfinite(off), off, np.inf)
    worst = np.unravel_index(np.argmax(off), off.shape)
    if off[worst] > tolerance * np.abs(wanted).max() + 1e-30:
        raise Wrong(f"{name}[{_place(worst)}] should be {meaning} = {wanted[worst]:.6g}, but it is {found[worst]:.6g}")
