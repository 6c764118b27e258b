"""GPTQ: columns are rounded one by one, and each column's error is made up for by the columns still to come.

Frantar et al., 2022, "GPTQ" (arXiv:2210.17323), after Optimal Brain Surgeon (Hassibi and Stork, 1992): where weight j
of a row becomes q, the row's output error stays least if the weights F that are still free move by

    delta_F = -(w_j - q) / [H_F^-1]_jj * [H_F^-1]_j,F

With H^-1 = U^T U, U upper triangular, row j of U is row j of H_F^-1 divided by the root of [H_F^-1]_jj, so one
factorization serves all columns. The errors e_j = (w_j - q) / U_jj add up to the loss: with the damped H,
tr((W - W') H (W - W')^T) is the sum of their squares. While nothing is clamped, |w_j - q| is at most scale / 2, and
1 / U_jj^2 is at most H_jj: every column's bound lies below that of rounding to nearest. That is no promise for a single
row: codes at the ends of the grid are clamped, and a greedy choice may be unlucky.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import array_api_compat
import torch
from torch import nn

from labutils.arrays.affine import QParams, QuantizedArray, choose_qparams, quantize
from labutils.arrays.inputs import real_number, true_or_false, whole_number
from labutils.arrays.layout import Layout
from labutils.arrays.scheme import Granularity, PerGroup, Scheme
from labutils.models.hessian import checked_problem
from labutils.models.layers import GROUPS, layer_kind
from labutils.models.linear import plain_linear

Tensor = torch.Tensor


def gptq_quantize(
    weight: Tensor,
    hessian: Tensor,
    scheme: Scheme = GROUPS,
    damping: float = 0.01,
    activation_order: bool = False,
    block_size: int = 128,
    round_scale: Callable[[Tensor], Tensor] | None = None,
    qparams: QParams | None = None,
) -> QuantizedArray:
    """Codes for a weight (N, K) that keep the outputs of its layer; `hessian` (K, K) is 2 X^T X of its inputs.

    >>> weight = torch.tensor([[0.7, 0.3, 0.3]])
    >>> hessian = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.9, 1.0]])
    >>> gptq_quantize(weight, hessian, Scheme(2)).codes  # scale 0.7; to nearest: 1, 0, 0
    tensor([[1, 0, 1]], dtype=torch.int8)

    The last two inputs go together. When the second weight becomes 0, the third moves from 0.3 to 0.57, and so to 1.

    damping           this fraction of the diagonal's mean is added to the diagonal: it makes a Hessian of fewer rows
                      than columns invertible, and keeps updates small where little is known
    activation_order  True: the columns with the largest H_jj first, while many others can still make up for them
    block_size        so many columns are finished before the columns behind them are updated, in one product. It
                      changes the speed and, but for float rounding at a tie, no code; 1 is column by column
    round_scale       what becomes of a scale before it is used, such as `PackedLinear.held_scale`
    qparams           scales and zero points that were chosen beforehand otherwise than from the range, such as those of
                      `awq.clip_search`

    The scale and zero point of a group are chosen when its first column is reached, from the weights as they are then:
    the updates have moved them. In activation order the columns of a group are reached one here, one there, so scales
    are chosen beforehand, from the weights as they came, and groups stay runs of columns in their original places
    ("static groups"): they need no index to be stored. One scale for all, or for a row, is chosen beforehand, too, and
    so are scales in units of a tensor's scale.

    A channel that was always 0 (H_jj = 0) is rounded to nearest, and so is everything where H is diagonal. ValueError
    for a Hessian that does not fit, or that cannot be inverted with this damping.
    """
    original, (weight, hessian) = weight, checked_problem(weight, hessian)
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, such as Scheme(num_bits=4), got {scheme!r}")
    block_size = whole_number(block_size, "block_size", least=1)
    order = _order(hessian, true_or_false(activation_order, "activation_order"))
    factor = inverse_factor(hessian[order][:, order], damping).to(weight.dtype)
    round_scale = round_scale or torch.clone
    is_dynamic = isinstance(scheme.granularity, PerGroup) and not activation_order and not scheme.tensor_scale
    if qparams is None and is_dynamic:
        of_columns = _GroupQParams(scheme, round_scale)
    else:
        of_columns = _FixedQParams(weight, scheme, order, round_scale, qparams)
    columns = weight.t()[order].contiguous()  # (K, N): what is rounded together is one run of memory
    rounded = _round_columns(columns, factor, of_columns, scheme, block_size)
    codes = torch.empty_like(rounded)
    codes[order] = rounded
    codes = codes.t().to(getattr(torch, scheme.code_dtype), memory_format=torch.contiguous_format)
    return QuantizedArray(codes, *of_columns.all(), scheme, original.dtype)


def gptq_linear(linear: nn.Linear, hessian: Tensor, scheme: Scheme = GROUPS, **options) -> nn.Module:
    """The layer with GPTQ's codes: a PackedLinear below 8 bits, else a QuantizedLinear; `linear` stays as it is.

    >>> x, linear = torch.randn(512, 64), nn.Linear(64, 32)
    >>> gptq_linear(linear, 2 * x.t() @ x, Scheme(4, granularity=PerGroup(32)))
    PackedLinear(64, 32, bias=True, packed, 4 bits, PerGroup(group_size=32), kernel: ...)

    `options` are those of `gptq_quantize`. Scales are rounded as the layer holds them before codes are chosen.
    """
    kind, linear = layer_kind(scheme), plain_linear(linear)
    quantized = gptq_quantize(linear.weight, hessian, scheme, round_scale=kind.held_scale, **options)
    return kind.from_codes(linear, quantized)


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """U, upper triangular and float64, with (H + damping * mean(diag H) * 1)^-1 = U^T U.

    >>> inverse_factor(torch.tensor([[4.0, 0.0], [0.0, 16.0]]), damping=0.0)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]], dtype=torch.float64)

    H = R R^T with R upper triangular is a Cholesky factorization from the last column to the first; then U = R^-1. That
    is one factorization less than to invert H and to factor the inverse. A channel that was always 0 gets H_jj = 1.
    """
    if (damping := real_number(damping, "damping")) < 0:
        raise ValueError(f"damping must be at least 0, got {damping}")
    hessian = hessian.to(torch.float64, copy=True)
    diagonal = hessian.diagonal()
    diagonal += damping * diagonal.mean()
    diagonal[diagonal == 0] = 1
    lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if failed:
        raise ValueError(
            f"the Hessian cannot be inverted with damping {damping:g}: it has seen fewer independent rows than it has "
            "columns; raise the damping (0.01 is usual) or calibrate with more data"
        )
    identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)


class _FixedQParams:
    """Scale and zero point of every column, chosen from the whole weight before the first column is rounded."""

    def __init__(
        self,
        weight: Tensor,
        scheme: Scheme,
        order: Tensor,
        round_scale: Callable[[Tensor], Tensor],
        qparams: QParams | None,
    ):
        nearest = quantize(weight, scheme, qparams)  # which also checks the qparams that were given
        self.scale, self.zero_point = round_scale(nearest.scale), nearest.zero_point
        layout = Layout.of(weight.shape, scheme.granularity)

        def columns(values: Tensor) -> Tensor:  # (K, N), in the order of rounding
            each = layout.column(torch, values, "scale").expand(layout.rgk)
            return layout.unview(torch, each).t()[order].to(weight.dtype).contiguous()

        self._scales = columns(self.scale)
        self._zero_points = [None] * len(order) if scheme.symmetric else columns(self.zero_point)

    def at(self, j: int, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._scales[j], self._zero_points[j]

    def all(self) -> QParams:
        return self.scale, self.zero_point


class _GroupQParams:
    """Scale and zero point of a group, chosen from its columns when the first of them is reached."""

    def __init__(self, scheme: Scheme, round_scale: Callable[[Tensor], Tensor]):
        self.scheme, self.round_scale, self.size = scheme, round_scale, scheme.granularity.group_size
        self.scales, self.zero_points = [], []

    def at(self, j: int, columns: Tensor) -> tuple[Tensor, Tensor | None]:
        if j % self.size == 0:
            scale, zero_point = choose_qparams(columns[j : j + self.size].t(), self.scheme)  # (N, 1)
            self.scales.append(self.round_scale(scale)[:, 0])
            self.zero_points.append(None if self.scheme.symmetric else zero_point[:, 0].to(columns.dtype))
        return self.scales[-1], self.zero_points[-1]

    def all(self) -> QParams:
        scale = torch.stack(self.scales, dim=1)
        return scale, 0 if self.scheme.symmetric else torch.stack(self.zero_points, dim=1).to(torch.int32)


def _round_columns(
    columns: Tensor, factor: Tensor, qparams: _FixedQParams | _GroupQParams, scheme: Scheme, block_size: int
) -> Tensor:
    """The codes (K, N) of `columns` (K, N), which hold the updated weights afterwards."""
    codes = torch.empty(columns.shape, dtype=torch.int32, device=columns.device)
    xp = array_api_compat.array_namespace(columns)
    pivots = factor.diagonal().tolist()
    for start, stop in _blocks(len(columns), block_size, scheme.granularity):
        errors = columns.new_empty(stop - start, columns.shape[1])
        for j in range(start, stop):
            scale, zero_point = qparams.at(j, columns)
            codes[j] = scheme.grid.to_codes(xp, columns[j] / scale, zero_point)
            rounded = scheme.grid.to_steps(xp, codes[j], columns.dtype, zero_point) * scale
            error = torch.sub(columns[j], rounded, out=errors[j - start]).div_(pivots[j])
            columns[j + 1 : stop].addr_(factor[j, j + 1 : stop], error, alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].t(), errors, alpha=-1)
    return codes


def _blocks(length: int, block_size: int, granularity: Granularity) -> Iterator[tuple[int, int]]:
    """(start, stop) of each block; one ends early where a group begins that reaches beyond it.

    >>> list(_blocks(10, 4, PerGroup(3)))
    [(0, 3), (3, 6), (6, 10)]

    Columns behind a block have not been updated by it yet, and a group's scale needs all of its columns up to date.
    """
    group_size = granularity.group_size if isinstance(granularity, PerGroup) else length
    start = 0
    while start < length:
        stop = min(start + block_size, length)
        group = stop - stop % group_size  # where the group of column `stop` begins
        if stop < length and start < group < stop:
            stop = group
        yield start, stop
        start = stop


def _order(hessian: Tensor, by_activation: bool) -> Tensor:
    if by_activation:
        return torch.argsort(hessian.diagonal(), descending=True, stable=True)
    return torch.arange(len(hessian), device=hessian.device)
