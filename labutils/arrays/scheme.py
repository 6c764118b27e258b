"""A quantizer is four choices: grid, granularity, range and symmetry. `Scheme` names them."""

from __future__ import annotations

from dataclasses import dataclass, field

from labutils.arrays.inputs import bit_width, real_number, whole_number


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
        object.__setattr__(self, "group_size", whole_number(self.group_size, "group_size"))
        if self.group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {self.group_size}")


Granularity = PerTensor | PerAxis | PerGroup


@dataclass(frozen=True)
class Scheme:
    """The four choices, checked once, here.

    >>> Scheme(num_bits=4).quant_min, Scheme(num_bits=4).quant_max
    (-8, 7)
    >>> Scheme(num_bits=8, symmetric=False).quant_max
    255

    num_bits     the grid: 2^num_bits evenly spaced values, 2 <= num_bits <= 16
    symmetric    True: signed codes, zero at code 0. False: unsigned codes and a zero point
    granularity  PerTensor(), PerAxis(axis) or PerGroup(group_size): which elements share a scale
    clip         the range: what fraction of the observed range the grid spans, 0 < clip <= 1; values beyond saturate
    """

    num_bits: int = 8
    symmetric: bool = True
    granularity: Granularity = field(default_factory=PerTensor)
    clip: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "num_bits", bit_width(self.num_bits))
        if not isinstance(self.symmetric, bool):
            raise TypeError(f"symmetric must be True or False, got {self.symmetric!r}")
        if not isinstance(self.granularity, Granularity):
            raise TypeError(
                f"granularity must be PerTensor(), PerAxis(axis) or PerGroup(group_size), got {self.granularity!r}"
            )
        object.__setattr__(self, "clip", real_number(self.clip, "clip"))
        if not 0 < self.clip <= 1:
            raise ValueError(f"clip is a fraction of the range, 0 < clip <= 1, got {self.clip}")

    @property
    def quant_min(self) -> int:
        """The smallest code: -2^(b-1) when symmetric, else 0."""
        return -(2 ** (self.num_bits - 1)) if self.symmetric else 0

    @property
    def quant_max(self) -> int:
        """The largest code: 2^(b-1) - 1 when symmetric, else 2^b - 1."""
        return self.quant_min + 2**self.num_bits - 1

    @property
    def code_dtype(self) -> str:
        """The name of the smallest integer dtype that holds a code: int8, uint8, int16 or uint16."""
        return f"{'' if self.symmetric else 'u'}int{8 if self.num_bits <= 8 else 16}"
