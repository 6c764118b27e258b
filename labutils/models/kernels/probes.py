"""Whether a kernel is exact on a device: it is tried with the codes that are first to overflow."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

Tensor = torch.Tensor
Probe = Callable[[str], bool]  # device -> whether the kernel computes the right numbers there

PORTABLE = "portable"  # the kernel that needs no probe

PROBES: dict[str, Probe] = {}


def probe(kernel: str) -> Callable[[Probe], Probe]:
    """Register the decorated function as the probe of `kernel`."""

    def register(function: Probe) -> Probe:
        PROBES[kernel] = function
        return function

    return register


@cache
def why_not(kernel: str, device: str) -> str:
    """Why a kernel cannot be used on a device; "" where its probe comes out right."""
    try:
        return "" if PROBES[kernel](device) else f"{kernel} is not exact here"
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return f"{kernel} does not run here ({str(error).splitlines()[0]})"


def largest_codes(device: str) -> tuple[Tensor, Tensor]:
    """int8 codes (32, 64) and (64, 64), some rows of them all extreme: their sums are the first to saturate."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-128, 128, (rows, 64), generator=generator, dtype=torch.int8) for rows in (32, 64))
    a[:2], a[2:4], a[4:6], b[:2], b[2:4] = 127, -127, -1, 127, -128  # -1 is 255 where unsigned
    return a.to(device), b.to(device)
