"""Floats of a few bits: sign, exponent and mantissa, as OCP's formats for 8, 6 and 4 bits have them.

Open Compute Project, 2023: "8-bit Floating Point Specification (OFP8)" 1.0 and "Microscaling Formats (MX)
Specification" 1.0. A code is the number's own bit pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.grids.table import Table
from labutils.arrays.inputs import Array, true_or_false, whole_number

# What the topmost codes stand for, instead of numbers.
SPECIALS = ("none", "nan", "ieee")

FIELDS = {4: (23, 127), 8: (52, 1023)}  # mantissa bits and bias of float32 and float64, by their bytes


@dataclass(frozen=True)
class FloatGrid(Table):
    """The floats of one sign bit, `exponent_bits` and `mantissa_bits`, subnormal numbers and both zeros included.

    >>> FloatGrid(2, 1).levels[:8]
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
    >>> E4M3.peak, E5M2.peak
    (448.0, 57344.0)
    >>> E2M1.to_codes(np, np.array([0.75, 1.25, -5.0, -0.1, 99.0]))  # 1, 1, -4, -0, 6
    array([ 2,  2, 14,  8,  7], dtype=uint8)

    specials  "none": all codes are numbers. "nan": the last code of either sign is NaN. "ieee": with the largest
              exponent, mantissa 0 is infinity and all others are NaN
    signed    False: no sign bit; what is below 0 goes to the smallest value

    The exponent's bias is 2^(exponent_bits - 1) - 1. Without a mantissa there is no 0: code 0 is 2^-bias. Rounding goes
    to the nearest number, ties to the even code, and saturates: no number becomes infinity or NaN. -0.0 keeps its sign.
    """

    exponent_bits: int
    mantissa_bits: int
    specials: str = "none"
    signed: bool = True

    def __post_init__(self):
        for part, least, most in (("exponent_bits", 1, 8), ("mantissa_bits", 0, 10)):
            bits = whole_number(getattr(self, part), part, least)
            if bits > most:
                raise ValueError(f"{part} must be at most {most}, got {bits}")
            object.__setattr__(self, part, bits)
        true_or_false(self.signed, "signed")
        if self.specials not in SPECIALS:
            raise ValueError(f"specials must be one of {', '.join(SPECIALS)}, got {self.specials!r}")
        if not 2 <= self.num_bits <= 16:
            raise ValueError(f"a float grid has from 2 to 16 bits, got {self.num_bits}")
        if len(self.ascending) < 2:
            raise ValueError(f"a grid needs two numbers at least, and this one has {len(self.ascending)}")
        if self.peak > float(np.finfo(np.float32).max):
            raise ValueError(f"the largest number must fit into float32, got {self.peak:g}")

    def __repr__(self) -> str:
        if self in NAMES:
            return NAMES[self]
        given = (self.exponent_bits, self.mantissa_bits, self.specials, self.signed)
        return f"FloatGrid({', '.join(map(repr, given))})"

    @property
    def bias(self) -> int:
        """What the exponent field is above the exponent: 2^(exponent_bits - 1) - 1."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def num_bits(self) -> int:
        return self.signed + self.exponent_bits + self.mantissa_bits

    @cached_property
    def ascending(self) -> np.ndarray:
        """The finite numbers without a minus sign."""
        codes = np.arange(2 ** (self.exponent_bits + self.mantissa_bits))
        return self._magnitudes(codes)[: len(codes) - self._number_of_specials]

    @cached_property
    def levels(self) -> np.ndarray:
        """What each bit pattern stands for, NaN and the infinities included."""
        special = [np.inf, *[np.nan] * (self._number_of_specials - 1)] if self.specials == "ieee" else [np.nan]
        positive = np.concatenate([self.ascending, special[: self._number_of_specials]])
        return np.concatenate([positive, -positive]) if self.signed else positive

    @property
    def least(self) -> float:
        """The smallest number above 0."""
        return float(self.ascending[self._least_code])

    def _codes(self, xp: Any, steps: Array) -> Array:
        """The bit pattern of the number nearest to each of `steps`."""
        if not self.signed:
            return self._places(xp, steps)
        integer = xp.int32 if steps.itemsize == 4 else xp.int64
        codes = steps.view(integer) >> (8 * steps.itemsize - 1)  # -1 below 0, else 0
        codes &= 2 ** (self.num_bits - 1)
        codes |= self._magnitude_codes(xp, xp.abs(steps), integer)
        return codes

    def rounded(self, xp: Any, scale: Array, direction: str = "nearest") -> Array:
        """Positive scales on this grid: "nearest", "down" to the next number that is not above, or "up".

        >>> E8M0.rounded(np, np.array([0.7, 1.0, 3.9]), "down")
        array([0.5, 1. , 2. ])

        What lies below the smallest number above 0 becomes that; what lies above the largest becomes the largest.
        """
        codes = xp.astype(self.to_codes(xp, scale), xp.int32)
        value = self.to_steps(xp, codes, scale.dtype)
        if direction == "down":
            codes -= xp.astype(value > scale, xp.int32)
        elif direction == "up":
            codes += xp.astype(value < scale, xp.int32)
        return self.to_steps(xp, xp.clip(codes, self._least_code, len(self.ascending) - 1), scale.dtype)

    @property
    def _least_code(self) -> int:
        return int(self.mantissa_bits > 0)

    @property
    def _number_of_specials(self) -> int:
        """Codes of either sign that are no numbers."""
        return {"none": 0, "nan": 1, "ieee": 2**self.mantissa_bits}[self.specials]

    def _magnitudes(self, codes: np.ndarray) -> np.ndarray:
        fraction, exponent = codes % 2**self.mantissa_bits / 2**self.mantissa_bits, codes >> self.mantissa_bits
        if self.mantissa_bits == 0:
            return np.ldexp(1.0, exponent - self.bias)
        return np.ldexp(fraction + (exponent > 0), np.maximum(exponent, 1) - self.bias)

    @cached_property
    def _is_narrow(self) -> bool:
        """Whether 2^23 steps of the largest exponent are still a float32, and the smallest normal number is one, too.

        Few numbers are compared with all thresholds instead: 7 comparisons are faster.
        """
        return self.num_bits > 4 and 2 <= self.exponent_bits <= 6 and self.mantissa_bits > 0

    def _magnitude_codes(self, xp: Any, x: Array, integer: Any) -> Array:
        """The codes nearest to `x`, which has no signs, as integers of the type `integer`.

        Numbers between 2^E and 2^(E+1) are 2^(E-m) apart. When 2^23 of these steps are added to a float32, the
        processor rounds it to a whole number of steps, ties to even, and the last bits of the sum count them.
        """
        if not self._is_narrow:
            return xp.astype(self._places(xp, x), integer)
        width, bias = FIELDS[x.itemsize]
        smallest_normal = xp.asarray(2.0 ** (1 - self.bias), dtype=x.dtype, device=array_api_compat.device(x))
        peak = xp.asarray(self.peak, dtype=x.dtype, device=array_api_compat.device(x))
        x = xp.minimum(x, peak)
        exponent = xp.maximum(x, smallest_normal).view(integer)
        exponent &= -(2**width)  # the exponent's field alone, of 2^E
        large = exponent + ((width - self.mantissa_bits) << width)  # 2^width steps
        x += large.view(x.dtype)
        codes = x.view(integer)
        codes -= large
        exponent >>= width - self.mantissa_bits
        codes += exponent
        codes -= (1 - self.bias + bias) << self.mantissa_bits
        return codes


E2M1 = FloatGrid(2, 1)  # FP4
E2M3 = FloatGrid(2, 3)  # FP6
E3M2 = FloatGrid(3, 2)  # FP6
E4M3 = FloatGrid(4, 3, "nan")  # FP8 with a large mantissa; torch.float8_e4m3fn
E5M2 = FloatGrid(5, 2, "ieee")  # FP8 with a large exponent
E8M0 = FloatGrid(8, 0, "nan", signed=False)  # the scales of OCP's MX formats: powers of two
FLOAT16 = FloatGrid(5, 10, "ieee")
BFLOAT16 = FloatGrid(8, 7, "ieee")
NAMES = {
    E2M1: "E2M1",
    E2M3: "E2M3",
    E3M2: "E3M2",
    E4M3: "E4M3",
    E5M2: "E5M2",
    E8M0: "E8M0",
    FLOAT16: "FLOAT16",
    BFLOAT16: "BFLOAT16",
}
