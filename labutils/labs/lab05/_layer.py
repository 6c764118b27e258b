"""What a quantized linear layer must do and keep, in steps: what it answers, what it holds, what its copies answer.

A step looks at the layer and gathers a few plain numbers; then they are judged. What comes after a wrong step is not
looked at, so that a layer with two mistakes is told of the first, and recognised by it. torch is imported when a
layer is looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.course.exercise import Case, Wrong
from labutils.course.reading import describe, place

FLOAT32 = 2.0**-23


def look(
    submission: Any, weight: np.ndarray, bias: np.ndarray | None, x: np.ndarray, dtype: str = "float32"
) -> dict[str, Any]:
    """What is seen of the layer that `submission.from_float` makes, up to the first step that is wrong."""
    import torch

    make = getattr(submission, "from_float", submission)
    linear = float_layer(weight, bias, dtype)
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    layer = make(linear)
    if not isinstance(layer, torch.nn.Module):
        return {"returned": describe(layer)}
    x = torch.from_numpy(x).to(linear.weight.dtype)
    subject, truth, seen = Subject(make, linear, before, layer, x), Truth.of(weight, bias, x, dtype), {}
    for gather, verdict in STEPS:
        seen |= gather(subject)
        try:
            verdict(seen, truth)
        except Wrong:
            break
    return seen


def read(seen: dict) -> dict:
    if "returned" in seen:
        raise Wrong(f"from_float should return the quantized layer, an nn.Module, but it returned {seen['returned']}")
    if "forward" in seen:
        raise Wrong(f"forward should return a tensor, but it returned {seen['forward']}")
    return seen


def judge(seen: dict, case: Case) -> None:
    import torch

    weight, bias, x = case.args
    truth = Truth.of(weight, bias, torch.from_numpy(x), **case.kwargs)
    for _, verdict in STEPS:
        verdict(seen, truth)


def float_layer(weight: np.ndarray, bias: np.ndarray | None, dtype: str = "float32") -> Any:
    """An nn.Linear with these numbers."""
    import torch

    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            linear.bias.copy_(torch.from_numpy(bias))
    return linear.to(getattr(torch, dtype))


@dataclass
class Subject:
    """A layer under examination, and where it came from."""

    make: Callable
    linear: Any
    before: dict  # what the float layer held
    layer: Any
    x: Any

    @property
    def registered(self) -> list:
        return [*self.layer.parameters(), *self.layer.buffers()]

    @property
    def loose(self) -> list:
        """Tensors that are plain attributes, of the layer or of a module in it."""
        import torch

        attributes = (value for module in self.layer.modules() for value in vars(module).values())
        return [value for value in attributes if isinstance(value, torch.Tensor)]


@dataclass(frozen=True)
class Truth:
    """The float layer and its input as float64 arrays, and what their dtype leaves of a number."""

    weight: np.ndarray
    bias: np.ndarray  # zeros where there is none
    x: np.ndarray
    dtype: str
    eps: float

    @classmethod
    def of(cls, weight: np.ndarray, bias: np.ndarray | None, x: Any, dtype: str = "float32") -> Truth:
        import torch

        linear = float_layer(weight, np.zeros(len(weight), np.float32) if bias is None else bias, dtype)
        eps = float(torch.finfo(linear.weight.dtype).eps)
        return cls(plain(linear.weight), plain(linear.bias), plain(x.to(linear.weight.dtype)), dtype, eps)

    @property
    def scale(self) -> np.ndarray:
        return np.abs(self.weight).max(axis=1, keepdims=True) / 127


# --- what it answers --------------------------------------------------------------------------------------------------


def _answers(subject: Subject) -> dict:
    import torch

    y = subject.layer(subject.x)
    return {"y": plain(y), "dtype": name(y.dtype)} if isinstance(y, torch.Tensor) else {"forward": describe(y)}


def _has_form(seen: dict, truth: Truth) -> None:
    if "forward" in seen:
        raise Wrong("forward returned no tensor")  # `read` has said so
    shape = (*truth.x.shape[:-1], len(truth.weight))
    if seen["y"].shape != shape:
        raise Wrong(
            f"for x of shape {truth.x.shape} the result should have shape {shape}, but it has {seen['y'].shape}"
        )
    if seen["dtype"] != truth.dtype:
        raise Wrong(f"for x of {truth.dtype} the result should be {truth.dtype}, but it is {seen['dtype']}")


def _weight(subject: Subject) -> dict:
    """The weight that the layer multiplies with: its answers to unit vectors, the bias taken off."""
    import torch

    answers = plain(subject.layer(torch.eye(subject.linear.in_features, dtype=subject.x.dtype)))
    return {"weight": (answers - (0 if subject.linear.bias is None else plain(subject.before["bias"]))).T}


def _is_on_the_grid(seen: dict, truth: Truth) -> None:
    found, weight, scale = seen["weight"], truth.weight, truth.scale
    if not np.isfinite(found).all():
        raise Wrong("the result is not finite: is there a scale that is 0?")
    slack = 2 * truth.eps * (np.abs(weight) + np.abs(truth.bias)[:, None])  # the bias is added, and the sum rounded
    off = np.abs(found - weight) - slack - 2**-15 * scale
    worst = np.unravel_index(np.argmax(off - scale / 2), off.shape)
    if off[worst] > scale[worst[0], 0] / 2:
        raise Wrong(
            f"weight[{place(worst)}] = {weight[worst]:.6g} comes back as {found[worst]:.6g}; with 8 bits and a scale "
            f"for each row, {scale[worst[0], 0]:.4g} here, at most half of that is lost"
        )
    scale = np.where(scale > 0, scale, 1)
    between = np.abs(found - np.round(found / scale) * scale) - slack - 2**-10 * scale
    if (between > 0).any():
        row = int(np.argwhere(between > 0)[0, 0])
        raise Wrong(
            f"row {row} is not multiplied as codes times one scale: max|row| / 127 = {scale[row, 0]:.6g} is the step"
        )


def _is_linear(seen: dict, truth: Truth) -> None:
    _agree(seen["y"], "the result", seen["weight"], truth, truth.eps)


def _agree(y: np.ndarray, what: str, weight: np.ndarray, truth: Truth, eps: float) -> None:
    expected = truth.x @ weight.T + truth.bias
    size = np.abs(truth.x) @ np.abs(weight).T + np.abs(truth.bias)
    over = np.abs(y - expected) - 4 * eps * size * (1 + truth.x.shape[-1] ** 0.5)
    if over.size and not (over <= 0).all():
        worst = np.unravel_index(np.argmax(np.nan_to_num(over, nan=np.inf)), over.shape)
        raise Wrong(
            f"{what} [{place(worst)}] should be {expected[worst]:.7g}, x by your own quantized weight plus the bias, "
            f"but it is {y[worst]:.7g}"
        )


# --- what it holds ----------------------------------------------------------------------------------------------------


def _float_layer_now(subject: Subject) -> dict:
    import torch

    now = subject.linear.state_dict()
    return {"untouched": all(torch.equal(now[name], value) for name, value in subject.before.items())}


def _is_untouched(seen: dict, truth: Truth) -> None:
    if not seen["untouched"]:
        raise Wrong("from_float changed the float layer it was given: leave that as it is")


def _learned(subject: Subject) -> dict:
    import torch

    bias = subject.before.get("bias")
    others = [
        p for p in subject.layer.parameters() if bias is None or p.shape != bias.shape or not torch.equal(p, bias)
    ]
    return {"learned": ", ".join(sorted({f"{len(p.shape)} axes of {name(p.dtype)}" for p in others}))}


def _trains_nothing(seen: dict, truth: Truth) -> None:
    if seen["learned"]:
        raise Wrong(
            f"there is a Parameter with {seen['learned']}: codes and scales are not trained, so they are buffers"
        )


def _loose(subject: Subject) -> dict:
    return {"loose": len(subject.loose) > 0}


def _is_registered(seen: dict, truth: Truth) -> None:
    if seen["loose"]:
        raise Wrong("a tensor is a plain attribute, which state_dict and .to() do not see: register it as a buffer")


def _codes(subject: Subject) -> dict:
    import torch

    count, rows = subject.linear.weight.numel(), len(subject.linear.weight)
    large = [t for t in subject.registered if t.numel() >= count > rows and t.dtype != torch.int8]
    return {
        "int8": sum(t.numel() for t in subject.registered if t.dtype == torch.int8),
        "others": ", ".join(sorted({name(t.dtype) for t in large})),
    }


def _holds_codes_alone(seen: dict, truth: Truth) -> None:
    count = truth.weight.size
    if seen["others"] or seen["int8"] != count:
        came = f"{seen['int8']} of int8" + (f", and {count} of {seen['others']}" if seen["others"] else "")
        raise Wrong(f"the layer should hold {count} codes of int8 and no other copy of the weight, but it holds {came}")


def _bytes(subject: Subject) -> dict:
    told = subject.layer.memory_bytes()
    held = {t.untyped_storage().data_ptr() or id(t): t.nbytes for t in subject.registered}
    return {"told": int(told) if isinstance(told, (int, np.integer)) else float(told), "held": sum(held.values())}


def _tells_its_bytes(seen: dict, truth: Truth) -> None:
    if seen["told"] != seen["held"]:
        raise Wrong(
            f"memory_bytes() should be {seen['held']}, what codes, scales and bias take, but it is {seen['told']}"
        )


# --- what its copies answer -------------------------------------------------------------------------------------------


def _after_training(subject: Subject) -> dict:
    import torch

    now = subject.layer(subject.x)
    with torch.no_grad():
        for parameter in subject.linear.parameters():
            parameter.mul_(2).add_(1)
    return {"own": same(subject.layer(subject.x), now)}


def _shares_nothing(seen: dict, truth: Truth) -> None:
    if not seen["own"]:
        raise Wrong("once the float layer is trained on, this layer answers otherwise: something is shared, not copied")


def _loaded(subject: Subject) -> dict:
    other = subject.make(subject.linear)  # whose weights are others by now
    other.load_state_dict(subject.layer.state_dict())
    return {"loaded": same(other(subject.x), subject.layer(subject.x))}


def _survives_a_file(seen: dict, truth: Truth) -> None:
    if not seen["loaded"]:
        raise Wrong("another layer that loads this one's state_dict answers otherwise: something was not saved")


def _copied(subject: Subject) -> dict:
    attached = any(not t.is_leaf for t in subject.registered)  # PyTorch refuses to copy what has a history
    return {"attached": attached} | (
        {} if attached else {"copied": same(copy.deepcopy(subject.layer)(subject.x), subject.layer(subject.x))}
    )


def _survives_a_copy(seen: dict, truth: Truth) -> None:
    if seen["attached"]:
        raise Wrong("a buffer still belongs to autograd, which remembers how it was computed: it cannot be copied")
    if not seen["copied"]:
        raise Wrong("a deepcopy of the layer answers otherwise")


def _moved(subject: Subject) -> dict:
    import torch

    repr(subject.layer)
    if subject.x.dtype == torch.float32:
        return {}
    return {"moved": plain(copy.deepcopy(subject.layer).to(torch.float64)(subject.x.double()))}


def _survives_a_move(seen: dict, truth: Truth) -> None:
    if "moved" in seen:
        _agree(seen["moved"], "after .to(torch.float64) the result", seen["weight"], truth, max(truth.eps, FLOAT32))


def _nothing(subject: Subject) -> dict:
    return {}


STEPS = (
    (_answers, _has_form),
    (_weight, _is_on_the_grid),
    (_nothing, _is_linear),
    (_float_layer_now, _is_untouched),
    (_learned, _trains_nothing),
    (_loose, _is_registered),
    (_codes, _holds_codes_alone),
    (_after_training, _shares_nothing),
    (_loaded, _survives_a_file),
    (_copied, _survives_a_copy),
    (_moved, _survives_a_move),
    (_bytes, _tells_its_bytes),
)


def same(a: Any, b: Any) -> bool:
    import torch

    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def plain(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy()


def name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
