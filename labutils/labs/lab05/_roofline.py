"""The roofline model of a linear layer: it takes at least as long as its bytes from memory, and as its operations.

Williams, Waterman and Patterson, 2009, "Roofline", doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

GROUP_SIZE = 128  # of the 4-bit weights


@dataclass(frozen=True)
class Roofs:
    """What a machine can do at most: bytes a second from memory, and operations a second (a product and a sum are two).

    >>> A100 = Roofs(memory=1.555e12, float32=19.5e12, bfloat16=312e12, int8=624e12)
    >>> A100.float32 / A100.memory  # operations for each byte, above which arithmetic is the limit
    12.540192926045016
    """

    memory: float
    float32: float
    bfloat16: float
    int8: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Form:
    """A way to hold the weight and multiply it: the roof above it, and the bytes moved for a weight and an input."""

    name: str
    bits: str
    roof: str
    weight_bytes: float
    input_bytes: float = 4


FORMS = {
    form.name: form
    for form in (
        Form("float32", "32", "float32", weight_bytes=4),
        Form("dequantized", "8, made 32 at each call", "float32", weight_bytes=1 + 4 + 4),  # codes, floats out and in
        Form("8 by 8 bits", "8", "int8", weight_bytes=1, input_bytes=4 + 1 + 1),  # floats, codes out and in
        Form("4-bit weights", "4", "bfloat16", weight_bytes=0.5 + 4 / GROUP_SIZE),  # 16 bits of scale and of zero
    )
}
NAMES = tuple(FORMS)


@dataclass(frozen=True)
class LinearResult:
    """What the model says and, where the layer was measured, what it took; a number for each of FORMS."""

    batch: int
    form: str
    intensities: np.ndarray  # operations for each byte
    expected: np.ndarray  # seconds at least
    measured: np.ndarray  # seconds; empty where nothing was measured
    operations: float
    ridge: float  # the intensity from which on arithmetic limits the chosen form
    limit: str  # "memory" or "arithmetic"

    @classmethod
    def of(cls, shape: tuple[int, int], batch: int, form: str, roofs: Roofs, measured: np.ndarray) -> LinearResult:
        """The model of a layer with `shape` (outputs, inputs) for `batch` rows of activations."""
        outputs, inputs = shape
        operations = 2.0 * batch * outputs * inputs
        moved = np.array([
            f.weight_bytes * outputs * inputs + batch * (f.input_bytes * inputs + 4 * outputs) for f in FORMS.values()
        ])  # fmt: skip
        peaks = np.array([getattr(roofs, f.roof) for f in FORMS.values()])
        intensities = operations / moved
        ridge = getattr(roofs, FORMS[form].roof) / roofs.memory
        return cls(
            batch=batch,
            form=form,
            intensities=intensities,
            expected=np.maximum(moved / roofs.memory, operations / peaks),
            measured=measured,
            operations=operations,
            ridge=ridge,
            limit="memory" if intensities[NAMES.index(form)] < ridge else "arithmetic",
        )

    @property
    def chosen(self) -> int:
        return NAMES.index(self.form)

    @property
    def intensity(self) -> float:
        return float(self.intensities[self.chosen])

    @property
    def seconds(self) -> np.ndarray:
        """Measured where it was measured, else expected."""
        return self.measured if self.measured.size else self.expected

    @property
    def speedup(self) -> float:
        """How many times as fast as float32 the chosen form is."""
        return float(self.seconds[0] / self.seconds[self.chosen])
