"""What a quantized linear layer holds: codes in buffers, which survive a file, a copy and a move."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from labutils.course.exercise import Wrong
from labutils.labs.lab05._layer_product import effective_weight, require_half_a_step, require_product
from labutils.labs.lab05._layer_subject import Expected, Subject, as_float64, dtype_name, same

FLOAT32 = 2.0**-23  # eps


def float_layer_now(subject: Subject) -> dict:
    import torch

    now = subject.linear.state_dict()
    return {"untouched": all(torch.equal(now[name], value) for name, value in subject.before.items())}


def is_untouched(seen: dict, expected: Expected) -> None:
    if not seen["untouched"]:
        raise Wrong("from_float changed the float layer it was given: leave that as it is")


def parameters(subject: Subject) -> dict:
    """All Parameters but the bias, in words."""
    import torch

    bias = subject.before.get("bias")
    others = [
        p for p in subject.layer.parameters() if bias is None or p.shape != bias.shape or not torch.equal(p, bias)
    ]
    return {"parameters": ", ".join(sorted({f"{len(p.shape)} axes of {dtype_name(p)}" for p in others}))}


def trains_nothing(seen: dict, expected: Expected) -> None:
    if seen["parameters"]:
        raise Wrong(
            f"there is a Parameter with {seen['parameters']}: codes and scales are not trained, so they are buffers"
        )


def unregistered(subject: Subject) -> dict:
    weights = [t for t in subject.unregistered if t.is_floating_point() and t.shape == subject.linear.weight.shape]
    return {"unregistered": len(subject.unregistered) > 0, "kept": len(weights) > 0}


def is_registered(seen: dict, expected: Expected) -> None:
    if seen["kept"]:
        raise Wrong("a weight of floats is kept as a plain attribute: dequantize the codes at each call")
    if seen["unregistered"]:
        raise Wrong("a tensor is a plain attribute, which state_dict and .to() do not see: register it as a buffer")


def codes(subject: Subject) -> dict:
    import torch

    count, rows = subject.linear.weight.numel(), len(subject.linear.weight)
    large = [t for t in subject.registered if t.numel() >= count > rows and t.dtype != torch.int8]
    return {
        "int8": sum(t.numel() for t in subject.registered if t.dtype == torch.int8),
        "others": ", ".join(sorted({dtype_name(t) for t in large})),
    }


def holds_codes_alone(seen: dict, expected: Expected) -> None:
    count = expected.weight.size
    if seen["others"] or seen["int8"] != count:
        came = f"{seen['int8']} of int8" + (f", and {count} of {seen['others']}" if seen["others"] else "")
        raise Wrong(f"the layer should hold {count} codes of int8 and no other copy of the weight, but it holds {came}")


def after_training(subject: Subject) -> dict:
    """Whether the layer answers as before once the float layer has other weights, which it has from here on."""
    import torch

    now = subject.layer(subject.x)
    with torch.no_grad():
        for parameter in subject.linear.parameters():
            parameter.mul_(2).add_(1)
    return {"own": same(subject.layer(subject.x), now)}


def shares_nothing(seen: dict, expected: Expected) -> None:
    if not seen["own"]:
        raise Wrong("once the float layer is trained on, this layer answers otherwise: something is shared, not copied")


def loaded(subject: Subject) -> dict:
    other = subject.from_float(subject.linear)  # with other weights: see `after_training`
    other.load_state_dict(subject.layer.state_dict())
    return {"loaded": same(other(subject.x), subject.layer(subject.x))}


def survives_a_file(seen: dict, expected: Expected) -> None:
    if not seen["loaded"]:
        raise Wrong("another layer that loads this one's state_dict answers otherwise: something was not saved")


def copied(subject: Subject) -> dict:
    attached = any(not t.is_leaf for t in subject.registered)  # PyTorch refuses to copy what has a history
    return {"attached": attached} | (
        {} if attached else {"copied": same(copy.deepcopy(subject.layer)(subject.x), subject.layer(subject.x))}
    )


def survives_a_copy(seen: dict, expected: Expected) -> None:
    if seen["attached"]:
        raise Wrong("a buffer still belongs to autograd, which remembers how it was computed: it cannot be copied")
    if not seen["copied"]:
        raise Wrong("a deepcopy of the layer answers otherwise")


def moved(subject: Subject) -> dict:
    import torch

    repr(subject.layer)  # it must not raise
    if subject.x.dtype == torch.float32:
        return {}
    layer, x = copy.deepcopy(subject.layer).to(torch.float64), subject.x.double()
    weight = effective_weight(replace(subject, layer=layer, x=x))["weight"]
    return {"moved": as_float64(layer(x)), "moved_weight": weight}


def survives_a_move(seen: dict, expected: Expected) -> None:
    if "moved" in seen:
        eps = max(expected.eps, FLOAT32)
        require_product(seen["moved"], "after .to(torch.float64) the result", seen["weight"], expected, eps)
        # In float64 nothing is rounded but the scales: chosen in 16 bits, they lose more than half a step.
        require_half_a_step(seen["moved_weight"], expected, FLOAT32, "after .to(torch.float64) ")


def memory(subject: Subject) -> dict:
    count = subject.layer.memory_bytes()
    held = {t.untyped_storage().data_ptr() or id(t): t.nbytes for t in subject.registered}
    return {"counted": int(count) if isinstance(count, (int, np.integer)) else float(count), "held": sum(held.values())}


def counts_its_bytes(seen: dict, expected: Expected) -> None:
    if seen["counted"] != seen["held"]:
        raise Wrong(
            f"memory_bytes() should be {seen['held']}, what codes, scales and bias take, but it is {seen['counted']}"
        )


STEPS = (
    (float_layer_now, is_untouched),
    (parameters, trains_nothing),
    (unregistered, is_registered),
    (codes, holds_codes_alone),
    (after_training, shares_nothing),
    (loaded, survives_a_file),
    (copied, survives_a_copy),
    (moved, survives_a_move),
    (memory, counts_its_bytes),
)
