"""Layers with correlated inputs, as the tests of GPTQ and AWQ want them."""

import torch


def correlated(rows, columns, seed=0, strength=1.0, dtype=torch.float64):
    """Inputs (rows, columns) that share `columns // 4` directions, beside noise of their own."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(rows, max(1, columns // 4), generator=generator, dtype=dtype)
    mixing = torch.randn(shared.shape[1], columns, generator=generator, dtype=dtype)
    return strength * shared @ mixing + torch.randn(rows, columns, generator=generator, dtype=dtype)


def problem(outputs=12, inputs=20, rows=200, seed=0, strength=1.0, dtype=torch.float64):
    """A weight, and the Hessian of inputs that are correlated."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed + 1000), dtype=dtype)
    x = correlated(rows, inputs, seed, strength, dtype)
    return weight, 2 * x.t() @ x
