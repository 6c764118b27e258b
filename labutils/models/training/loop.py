"""The training loop."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from labutils.models import kernels

BATCH = 64


def train(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int = 4,
    learning_rate: float = 5e-3,
    scale_learning_rate: float = 1e-3,
    seed: int = 0,
    measure: Callable[[nn.Module], Any] | None = None,
    description: str = "training",
) -> list:
    """Train `model` in place with Adam and a cosine schedule; return what `measure` says before and after each epoch.

    >>> model = nn.Linear(2, 2)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 50)
    >>> train(model, x, x.argmax(dim=1), measure=lambda m: None)  # doctest: +SKIP
    training: 100%|##########| 8/8
    [None, None, None, None, None]

    The same seed gives the same weights. One thread computes: batches of small images are not worth sharing, and sums
    then have one order. A learned scale falls to a tenth in one step at most, so it stays positive. A progress bar runs
    on stdout.
    """
    scales = [p for name, p in model.named_parameters() if name.endswith("_scale") and p.requires_grad]
    known = set(map(id, scales))
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": weights, "lr": learning_rate}, {"params": scales, "lr": scale_learning_rate}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    order = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    measured = [measure(model)] if measure else []
    with kernels.one_thread(), tqdm(total=steps, desc=description, file=sys.stdout, ncols=72) as progress:
        for _ in range(epochs):
            model.train()
            for batch in torch.randperm(len(images), generator=order).split(BATCH):
                loss = functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                before = [scale.detach().clone() for scale in scales]
                optimizer.step()
                _keep_positive(scales, before)
                schedule.step()
                progress.update()
            model.eval()
            if measure:
                measured.append(measure(model))
    return measured


@torch.no_grad()
def _keep_positive(scales: Sequence[torch.Tensor], before: Sequence[torch.Tensor]) -> None:
    for scale, old in zip(scales, before):
        scale.copy_(torch.maximum(scale, old / 10))
