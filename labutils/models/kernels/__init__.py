"""Products with integer weights, on the kernels that the machine has and on a portable one that gives the same numbers.

| | |
|---|---|
| `int_matmul`, `int_conv2d` | int8 by int8, added up in int32, exactly |
| `Int8Weights` | the weight of a W8A8 linear layer, and its product with 8-bit activations |
| `PackedWeights`, `Int4Weights` | weights of 2 to 8 bits in packed bytes, multiplied by float activations |

A kernel is used where torch has it and a probe finds it exact: some processors add pairs of 8-bit products in 16 bits,
and saturate. `report()` lists the kernels that run here, and why the others do not.

Weights are (N, K): N outputs of K inputs each, as in torch.nn.Linear. Activations are (M, K).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.models.kernels import int4_weights, int8_weights, probes
from labutils.models.kernels.int4_weights import INT4PACK, Int4Weights, hold_packed
from labutils.models.kernels.int8_weights import FBGEMM, MOST_UNSIGNED, ONEDNN, Int8Weights, quantize_rows
from labutils.models.kernels.integer_product import INT_MM, MOST_PRODUCTS, int_conv2d, int_matmul
from labutils.models.kernels.packed_weights import PackedWeights
from labutils.models.kernels.probes import PORTABLE

__all__ = [
    "FBGEMM",
    "INT4PACK",
    "INT_MM",
    "MOST_PRODUCTS",
    "MOST_UNSIGNED",
    "ONEDNN",
    "PORTABLE",
    "Int4Weights",
    "Int8Weights",
    "PackedWeights",
    "hold_packed",
    "int_conv2d",
    "int_matmul",
    "one_thread",
    "quantize_rows",
    "report",
]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: on small tensors or a busy machine, more threads mostly wait for each other.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(device: str = "cpu") -> str:
    """Which kernels run on a device, one line each, and why faster ones do not.

    >>> print(report())  # doctest: +SKIP
    int_matmul   torch._int_mm
    Int8Weights  oneDNN, packed once
    Int4Weights  torch int4pack, bfloat16
    """
    int_mm = (INT_MM, probes.why_not(INT_MM, device))
    int4 = int4_weights.why_not(int4_weights.ROWS, 32, Scheme(4, granularity=PerGroup(32)), device)
    candidates = {
        "int_matmul": [int_mm],
        "Int8Weights": [(ONEDNN, int8_weights.why_not_onednn(device)), int_mm],
        "Int4Weights": [(INT4PACK, int4)],
    }
    return "\n".join(f"{name:<12} {_first_that_runs(kernels)}" for name, kernels in candidates.items())


def _first_that_runs(kernels: list[tuple[str, str]]) -> str:
    """The first (kernel, why not) without a reason against it, with the reasons against those before it."""
    running = next((i for i, (_, why_not) in enumerate(kernels) if not why_not), len(kernels))
    reasons = "; ".join(why_not for _, why_not in kernels[:running])
    name = kernels[running][0] if running < len(kernels) else PORTABLE
    return f"{name} ({reasons})" if reasons else name
