"""Measured on this machine: the seconds that a linear layer takes, and the roofs above it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter
from typing import Any

from labutils import models
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Wrong
from labutils.course.explorer import ask
from labutils.labs.lab05._roofline import GROUP_SIZE, NAMES, Roofs

CACHE = 2**26  # bytes read between two measurements, so that a layer finds its weights in memory, as in a large model
AHEAD = 10  # seconds spent on measuring before the slider moves
PATIENCE = 0.06  # seconds in which one measurement is repeated; the shortest counts


class Measured:
    """Seconds that each of FORMS takes here, for a layer with random weights; each batch is measured once.

    As in a large model, weights come from memory, not from the cache, and the code that multiplies them has just run:
    before each measurement the cache is filled with something else, and a small layer of the same kind is called.
    """

    def __init__(self, out_features: int, in_features: int, layer: Any = None):
        self._own = models.QuantizedLinear if layer is None else layer
        self._layer, self._small = _layers(out_features, in_features), _layers(GROUP_SIZE, GROUP_SIZE)
        self._seconds: dict[int, list[float]] = {}

    def __call__(self, batch: int) -> list[float]:
        """A number for each of FORMS; Wrong where the learner's layer fails."""
        if batch not in self._seconds:
            import torch

            with torch.no_grad(), models.kernels.one_thread():
                self._seconds[batch] = [self._measure(name, batch) for name in NAMES]
        return self._seconds[batch]

    def ahead(self, batches: Sequence[int]) -> None:
        """Measure these batches now, so that no drag waits for them.

        Batches after the first at which a learner's layer fails, or after AHEAD seconds, are measured when asked for.
        """
        end = perf_counter() + AHEAD
        with contextlib.suppress(Wrong):
            for batch in batches:
                if perf_counter() < end:
                    self(batch)

    def _measure(self, name: str, batch: int) -> float:
        import torch

        x, few = torch.randn(batch, self._layer["float32"].in_features), torch.randn(batch, GROUP_SIZE)
        layer = self._layer.get(name) or self._learners_layer(self._layer["float32"], x)
        small = self._small.get(name) or self._learners_layer(self._small["float32"], few)

        def prepare() -> None:
            _cache_filler().sum()
            small(few)

        return shortest(lambda: layer(x), prepare)

    def _learners_layer(self, linear: Any, x: Any) -> Callable:
        """The learner's layer made of `linear`, once it is seen to work."""
        made = []

        def from_float() -> Any:
            made.append(self._own.from_float(linear))
            return made[0](x)

        from_float.__name__ = getattr(self._own, "__name__", "your layer")
        wanted = (len(x), linear.out_features)

        def read(y: Any) -> dict:
            if tuple(getattr(y, "shape", ())) != wanted:
                raise Wrong(f"forward should return shape {wanted}, got {getattr(y, 'shape', type(y).__name__)}")
            return {}

        ask(from_float, read)
        return made[0]


def _layers(out_features: int, in_features: int) -> dict[str, Any]:
    """A layer with random weights in every form but the learner's."""
    import torch

    linear = torch.nn.Linear(in_features, out_features, bias=False).requires_grad_(False)
    four = models.PackedLinear.from_float(linear, Scheme(4, granularity=PerGroup(GROUP_SIZE)))
    return {"float32": linear, "8 by 8 bits": models.Int8Linear.from_float(linear), "4-bit weights": four}


def shortest(run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None, patience: float = 1) -> float:
    """Seconds of the quickest of several runs, each after `prepare`."""
    run()
    took, end = [], perf_counter() + patience * PATIENCE
    while len(took) < 3 or perf_counter() < end:
        prepare()
        start = perf_counter()
        run()
        took.append(perf_counter() - start)
    return min(took)


@cache
def _cache_filler() -> Any:
    import torch

    return torch.ones(CACHE // 4)


@cache
def measure_roofs() -> Roofs:
    """The roofs of one thread, measured with torch in a second: reading memory, and square products in three dtypes."""
    import torch

    big, vector = torch.ones(2**12, CACHE // 2**14), torch.ones(CACHE // 2**14)
    floats = torch.randn(512, 512)
    halves = floats.bfloat16()
    codes = torch.ones(1024, 1024, dtype=torch.int8)
    with torch.no_grad(), models.kernels.one_thread():
        return Roofs(
            memory=big.nbytes / shortest(lambda: big @ vector, patience=4),
            float32=2 * 512**3 / shortest(lambda: floats @ floats),
            bfloat16=2 * 512**3 / shortest(lambda: halves @ halves),
            int8=2 * 1024**3 / shortest(lambda: models.kernels.int_matmul(codes, codes.t())),
        )
