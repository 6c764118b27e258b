"""A quantizer is four choices: grid, granularity, range and symmetry. `Scheme` names them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labutils.arrays.grids import FloatGrid, Grid, Integers
from labutils.arrays.inputs import real_number, true_or_false, whole_number


@dataclass(frozen=True)
class PerTensor:
    """All elements share one scale: `scale` has shape ()."""


@dataclass(frozen=True)
class PerAxis:
    """Elements with the same index along `axis` share a scale: `scale` has shape (x.shape[axis],)."""

    axis: int

    def __post_init__(self):
        object.__setattr__(self, "axis", whole_number(self.axis, "axis"))


@dataclass(frozen=True)
class PerGroup:
    """Each run of `group_size` elements along the last axis shares a scale; the last run of a row may be short.

    `scale` has shape (*x.shape[:-1], ceil(x.shape[-1] / group_size)).
    """

    group_size: int

    def __post_init__(self):
        object.__setattr__(self, "group_size", whole_number(self.group_size, "group_size", least=1))


Granularity = PerTensor | PerAxis | PerGroup


@dataclass(frozen=True, init=False, repr=False)
class Scheme:
    """The four choices, checked once, here.

    >>> Scheme(num_bits=4).quant_min, Scheme(num_bits=4).quant_max
    (-8, 7)
    >>> Scheme(num_bits=8, symmetric=False).grid
    Integers(num_bits=8, symmetric=False)

    grid         which values exist, and with them the symmetry: a member of `grids`
    granularity  PerTensor(), PerAxis(axis) or PerGroup(group_size): which elements share a scale
    clip         the range: what fraction of the observed range the grid spans, 0 < clip <= 1; values beyond saturate

    Scales are floats of the working precision, unless they are stored in fewer bits, too:

    scale_grid    a FloatGrid whose numbers the scales are. They are rounded to the nearest; on E8M0, powers of two,
                  down, by the rule of OCP's MX formats. A scale below the grid becomes its smallest number above 0, so
                  that small values round to 0; one above becomes the largest, so that large values saturate
    scale_up      True: scales are rounded up instead, so that no value saturates for it
    tensor_scale  True: the scales of all slices are counted in units of one more float, by which the largest of them
                  becomes the largest number of `scale_grid`

    The usual grid is named by two numbers, Scheme(num_bits, symmetric), which stands for Integers(num_bits, symmetric):

    num_bits     2 <= num_bits <= 16; 8 where it is left out
    symmetric    True (where it is left out): signed codes, zero at code 0. False: unsigned codes and a zero point

    Where a grid is given, too, they replace the grid's own: `dataclasses.replace(scheme, num_bits=4)` keeps the rest.
    """

    grid: Grid
    granularity: Granularity
    clip: float
    scale_grid: FloatGrid | None
    scale_up: bool
    tensor_scale: bool

    def __init__(
        self,
        num_bits: int = ...,
        symmetric: bool = ...,
        granularity: Granularity = PerTensor(),
        clip: float = 1.0,
        grid: Grid = Integers(8),
        scale_grid: FloatGrid | None = None,
        scale_up: bool = False,
        tensor_scale: bool = False,
    ):
        if not isinstance(grid, Grid):
            raise TypeError(f"grid must be a grid, such as Integers(4), got {grid!r}")
        given = {"num_bits": num_bits, "symmetric": symmetric}
        given = {name: value for name, value in given.items() if value is not ...}
        if given and not isinstance(grid, Integers):
            raise TypeError(f"{' and '.join(given)} belong to a grid of integers, and grid is {grid!r}")
        object.__setattr__(self, "grid", replace(grid, **given) if given else grid)
        if not isinstance(granularity, Granularity):
            raise TypeError(
                f"granularity must be PerTensor(), PerAxis(axis) or PerGroup(group_size), got {granularity!r}"
            )
        object.__setattr__(self, "granularity", granularity)
        object.__setattr__(self, "clip", real_number(clip, "clip"))
        if not 0 < self.clip <= 1:
            raise ValueError(f"clip is a fraction of the range, 0 < clip <= 1, got {self.clip}")
        if scale_grid is not None and not isinstance(scale_grid, FloatGrid):
            raise TypeError(f"scale_grid must be None or a FloatGrid, such as E8M0, got {scale_grid!r}")
        object.__setattr__(self, "scale_grid", scale_grid)
        for name, value in {"scale_up": scale_up, "tensor_scale": tensor_scale}.items():
            object.__setattr__(self, name, true_or_false(value, name))
            if value and scale_grid is None:
                raise ValueError(f"{name} is about a scale_grid, and there is none")

    def __repr__(self) -> str:
        if type(self.grid) is Integers:
            grid = f"num_bits={self.num_bits}, symmetric={self.symmetric}"
        else:
            grid = f"grid={self.grid!r}"
        scales = "" if self.scale_grid is None else f", scale_grid={self.scale_grid!r}"
        flags = "".join(f", {name}=True" for name in ("scale_up", "tensor_scale") if getattr(self, name))
        return f"Scheme({grid}, granularity={self.granularity!r}, clip={self.clip!r}{scales}{flags})"

    @property
    def num_bits(self) -> int:
        """Bits of a code."""
        return self.grid.num_bits

    @property
    def symmetric(self) -> bool:
        """Whether zero sits at 0 steps; otherwise a zero point says at which code."""
        return self.grid.symmetric

    @property
    def quant_min(self) -> int:
        """The smallest code: for integers -2^(b-1) when symmetric, else 0."""
        return self.grid.quant_min

    @property
    def quant_max(self) -> int:
        """The largest code: for integers 2^(b-1) - 1 when symmetric, else 2^b - 1."""
        return self.grid.quant_max

    @property
    def code_dtype(self) -> str:
        """The name of the dtype of the codes: for integers int8, uint8, int16 or uint16, the smallest that fits."""
        return self.grid.code_dtype
