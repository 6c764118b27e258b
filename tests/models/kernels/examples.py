"""Codes to multiply, and one kernel at a time to multiply them."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from labutils.models import kernels
from labutils.models.kernels import probes

INT8_KERNELS = (kernels.FBGEMM, kernels.ONEDNN, kernels.INT_MM, kernels.PORTABLE)


@contextmanager
def only(kernel):
    """All kernels switched off but one; skips where this machine lacks it."""
    if kernel != kernels.PORTABLE and probes.why_not(kernel, "cpu"):
        pytest.skip(probes.why_not(kernel, "cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "why_not", lambda name, device: "" if name == kernel else "switched off")
        yield


def codes(rows, columns, seed=0, low=-128, high=127):
    drawn = np.random.default_rng(seed).integers(low, high, (rows, columns), endpoint=True)
    return torch.from_numpy(drawn.astype(np.int8))


def exactly(a, b):
    """a @ b in int64."""
    return torch.from_numpy(a.numpy().astype(np.int64) @ b.numpy().astype(np.int64))
