"""A linear layer behind a change of its input that its weight makes up for: outputs as before."""

from __future__ import annotations

from torch import Tensor, nn


class Behind(nn.Sequential):
    """A change of the input, such as a division or a rotation, and the linear layer behind it.

    >>> import torch
    >>> from labutils.models.outliers import smooth_linear
    >>> linear = nn.Linear(3, 2)
    >>> smoothed = smooth_linear(linear, torch.tensor([8.0, 2.0, 1.0]))
    >>> torch.equal(smoothed.weight, linear.weight)
    True

    It stands where an nn.Linear stood, and some models ask that one for its weight: for the dtype, as T5 does, or to
    multiply with it. `weight` is therefore what the two steps together multiply with. The change has a method `undo`:
    undo(w) is the matrix that multiplies the input itself where `w` multiplies the changed one.
    """

    @property
    def weight(self) -> Tensor:
        """(out_features, in_features), computed anew at each look."""
        weight = self[1].weight
        return self[0].undo(weight.detach()).to(weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        """That of the layer."""
        return self[1].bias

    @property
    def in_features(self) -> int:
        """As before."""
        return self[1].in_features

    @property
    def out_features(self) -> int:
        """As before."""
        return self[1].out_features
