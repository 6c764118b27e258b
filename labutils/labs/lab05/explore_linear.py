"""Lab 05: what a linear layer waits for, memory or arithmetic, and what its weights' bits change about it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.arrays.inputs import whole_number
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Choice, Explorer, Notches, ask

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
GROUP_SIZE = 128  # of the 4-bit weights
SPAN = (0.1, 2000.0)  # operations for a byte, in the picture
CACHE = 2**26  # bytes read between two measurements, so that a layer finds its weights in memory, as in a large model
AHEAD = 10  # seconds spent on measuring before the slider moves
PATIENCE = 0.06  # seconds in which one measurement is repeated; the shortest counts


@dataclass(frozen=True)
class Roofs:
    """What a machine can do at most. Bytes a second from memory, and operations a second: a product and a sum are two.

    >>> A100 = Roofs(memory=1.555e12, float32=19.5e12, bfloat16=312e12, int8=624e12)
    >>> A100.float32 / A100.memory  # operations for each byte, from which on arithmetic is the limit
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
    """A way of doing the product: in what, and how many bytes of a weight and of an input go to or from memory."""

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
LETTERS = "ABCD"  # the names of their points in the picture
ROOFS = {"float32": palette.ORIGINAL, "bfloat16": palette.THEORY, "int8": palette.GOOD}


def explore_linear(
    out_features: int = 1536, in_features: int = 384, roofs: Roofs | None = None, layer: Any = None
) -> LinearExplorer:
    """Drag batch and bits, and see whether memory or arithmetic limits a linear layer, and how fast it is.

    >>> A100 = Roofs(memory=1.555e12, float32=19.5e12, bfloat16=312e12, int8=624e12)
    >>> explorer = explore_linear(4096, 4096, roofs=A100)
    >>> explorer.result.limit, round(explorer.result.intensity, 2)  # float32, batch 1
    ('memory', 0.5)

    Without `roofs` they are measured here, and so is every form of the layer at every batch: about five seconds, after
    which no drag has to wait. `layer` is then a class with `from_float`, which dequantizes at each call: a learner's
    QuantizedLinear. By default it is the course's, and the layer has the shape of MiniLM's feed-forward one.

    The model: a layer takes at least as long as its bytes take from memory, and as its operations take. Activations
    are float32. Williams, Waterman and Patterson, 2009, "Roofline", doi:10.1145/1498765.1498785.
    """
    for name, value in (("out_features", out_features), ("in_features", in_features)):
        if whole_number(value, name) < GROUP_SIZE or value % GROUP_SIZE:
            raise ValueError(f"{name} must be a multiple of {GROUP_SIZE}, so that 4-bit groups are full, got {value}")
    if roofs is not None:
        return LinearExplorer(out_features, in_features, roofs)
    roofs, measured = measure_roofs(), Measured(out_features, in_features, layer)
    measured.ahead(BATCHES)
    return LinearExplorer(out_features, in_features, roofs, measured)


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


class LinearExplorer(Explorer):
    title = "Operations a second against operations for a byte, under the roofs of the machine"
    size = (9.0, 3.6)

    def __init__(
        self,
        out_features: int,
        in_features: int,
        roofs: Roofs,
        measured: Callable[[int], Sequence[float]] | None = None,
    ):
        self._shape = out_features, in_features
        self.roofs = roofs
        self._measured = measured
        super().__init__()

    def sliders(self) -> dict[str, Notches | Choice]:
        return {
            "batch": Notches("batch", BATCHES, 1, hint="how many rows of activations come at once"),
            "bits": Choice("weights", NAMES, NAMES[0], hint="how the weight is held, and in what it is multiplied"),
        }

    def compute(self, state: dict[str, Any]) -> LinearResult:
        batch, form = state["batch"], FORMS[state["bits"]]
        outputs, inputs = self._shape
        operations = 2.0 * batch * outputs * inputs
        moved = np.array([
            f.weight_bytes * outputs * inputs + batch * (f.input_bytes * inputs + 4 * outputs) for f in FORMS.values()
        ])  # fmt: skip
        peaks = np.array([getattr(self.roofs, f.roof) for f in FORMS.values()])
        measured = np.array([] if self._measured is None else self._measured(batch))
        intensities = operations / moved
        ridge = getattr(self.roofs, form.roof) / self.roofs.memory
        return LinearResult(
            batch=batch,
            form=form.name,
            intensities=intensities,
            expected=np.maximum(moved / self.roofs.memory, operations / peaks),
            measured=measured,
            operations=operations,
            ridge=ridge,
            limit="memory" if intensities[NAMES.index(form.name)] < ridge else "arithmetic",
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        roofline, times = figure.subplots(1, 2, width_ratios=[1.5, 1])
        unit, unit_name = (1e12, "tera") if self.roofs.int8 > 2e13 else (1e9, "giga")
        self._unit = unit
        peaks = {name: getattr(self.roofs, name) / unit for name in ROOFS}
        memory = self.roofs.memory / unit  # for one operation a byte
        top = max(peaks.values())
        roofline.plot([SPAN[0], top / memory], [SPAN[0] * memory, top], color=palette.INK, lw=1.6)
        roofline.text(0.03, 0.92, f"slope: memory, {_short(self.roofs.memory / 1e9)} GB/s", fontsize=8,
                      transform=roofline.transAxes)  # fmt: skip
        for name, peak in peaks.items():
            roofline.plot([peak / memory, SPAN[1]], [peak, peak], color=ROOFS[name], lw=1.6)
            height = 6 if peak == top else -14  # points, so that neither the slope nor a point runs through it
            roofline.annotate(f"{name} {_short(peak)}", (SPAN[1], peak), (-2, height), ha="right", fontsize=8,
                              textcoords="offset points", color=ROOFS[name])  # fmt: skip
        roofline.set(xscale="log", yscale="log", xlim=SPAN, ylim=(SPAN[0] * memory * 0.12, top * 3))
        roofline.set(xlabel="operations for each byte from memory", ylabel=f"{unit_name}-operations a second")
        (self._others,) = roofline.plot([], [], "o", ms=11, mfc=palette.PAPER, mec=palette.INK, mew=1.0)
        (self._reach,) = roofline.plot([], [], "-", color=palette.QUANTIZED, lw=1.2)
        (self._possible,) = roofline.plot([], [], "_", ms=14, color=palette.QUANTIZED, mew=2)
        (self._here,) = roofline.plot([], [], "o", ms=13, mfc=palette.QUANTIZED, mec=palette.PAPER, mew=1.2)
        self._letters = [roofline.text(1, 1, letter, ha="center", va="center_baseline", fontsize=8, weight="bold")
                         for letter in LETTERS]  # fmt: skip
        self._roof_title = roofline.set_title(" ")
        places = np.arange(len(FORMS))[::-1]
        on_paper = {"facecolor": palette.PAPER, "edgecolor": "none", "pad": 0.8}
        self._bars = times.barh(places, np.zeros(len(FORMS)), height=0.6, color=palette.ORIGINAL, alpha=0.75)
        self._labels = [times.text(0, place, "", va="center", fontsize=9, bbox=on_paper) for place in places]
        times.axvline(1, color=palette.INK, lw=0.8, ls="--")
        at_most = "" if self._measured else " (at most)"
        times.set(xscale="log", xlim=(0.05, 100), xlabel=f"speed, float32 = 1{at_most}")
        times.set(yticks=places, yticklabels=[f"{name}  {letter}" for name, letter in zip(NAMES, LETTERS)])
        times.grid(False)
        for axis in (roofline.xaxis, roofline.yaxis, times.xaxis):
            axis.set_major_formatter("{x:g}")
        self._time_title = times.set_title(" ")
        return [self._others, self._reach, self._possible, self._here, *self._letters, self._roof_title,
                *self._bars, *self._labels, self._time_title]  # fmt: skip

    def draw(self, result: LinearResult) -> None:
        heights = result.operations / result.seconds / self._unit
        roofs = result.operations / result.expected / self._unit
        chosen = result.chosen
        rest = [i for i in range(len(FORMS)) if i != chosen]
        x, y = result.intensities[chosen], heights[chosen]
        self._others.set_data(result.intensities[rest], heights[rest])
        self._here.set_data([x], [y])
        self._possible.set_data([x], [roofs[chosen]])
        self._reach.set_data([x, x], [y, roofs[chosen]])
        for i, letter in enumerate(self._letters):
            letter.set_position((result.intensities[i], heights[i]))
            letter.set_color(palette.PAPER if i == chosen else palette.INK)
        self._roof_title.set_text(f"Batch {result.batch}, {result.form}: limited by {result.limit}")
        speeds = result.seconds[0] / result.seconds
        for i, (bar, label) in enumerate(zip(self._bars, self._labels)):
            bar.set_width(speeds[i])
            bar.set_facecolor(palette.QUANTIZED if i == chosen else palette.ORIGINAL)
            label.set_x(min(speeds[i], 40) * 1.1)
            label.set_text(f"{speeds[i]:.2g}")
        told = f"{result.speedup:.2g} times as fast as float32" if chosen else "Speed beside float32"
        self._time_title.set_text(told)

    def describe(self, result: LinearResult) -> list[tuple[str, str]]:
        chosen = result.chosen
        cells = [
            ("batch", f"{result.batch}"),
            ("bits", FORMS[result.form].bits),
            ("operations for a byte", f"{result.intensity:.3g}"),
            ("ridge at", f"{result.ridge:.3g}"),
            ("limited by", result.limit),
            ("time at least", _time(result.expected[chosen])),
        ]
        if result.measured.size:
            cells.append(("time measured", _time(result.measured[chosen])))
        return [*cells, ("speed, float32 = 1", f"{result.speedup:.2g}")]

    def note(self, result: LinearResult) -> str:
        if self._measured is None:
            return "This is the model: points lie on the roofs, which no machine quite reaches."
        return (
            "Points are measured, with weights that come from memory. The dash above the large point is its roof. "
            "(On a busy machine a point may lie above it.)"
        )


class Measured:
    """Seconds that each of FORMS takes on this machine, for a layer with random weights; each batch measured once.

    As in a large model, weights come from memory, not from the cache, and the code that multiplies them has just run:
    before each measurement the cache is filled with something else, and a small layer of the same kind is called.
    """

    def __init__(self, out_features: int, in_features: int, layer: Any = None):
        from labutils.labs import answers

        self._own = answers.QuantizedLinear if layer is None else layer
        self._layer, self._small = _layers(out_features, in_features), _layers(GROUP_SIZE, GROUP_SIZE)
        self._seconds: dict[int, list[float]] = {}

    def __call__(self, batch: int) -> list[float]:
        """A number for each of FORMS; Wrong where the learner's layer fails."""
        if batch not in self._seconds:
            import torch

            from labutils.models import kernels

            with torch.no_grad(), kernels.one_thread():
                self._seconds[batch] = [self._measure(name, batch) for name in NAMES]
        return self._seconds[batch]

    def ahead(self, batches: Sequence[int]) -> None:
        """Measure now what a drag would have to wait for.

        Where a learner's layer fails, or is so slow that AHEAD has passed, the rest is left until it is asked for.
        """
        end = perf_counter() + AHEAD
        with contextlib.suppress(Wrong):
            for batch in batches:
                if perf_counter() < end:
                    self(batch)

    def _measure(self, name: str, batch: int) -> float:
        import torch

        x, few = torch.randn(batch, self._layer["float32"].in_features), torch.randn(batch, GROUP_SIZE)
        layer = self._layer.get(name) or self._learners(self._layer["float32"], x)
        small = self._small.get(name) or self._learners(self._small["float32"], few)

        def prepare() -> None:
            _ballast().sum()
            small(few)

        return shortest(lambda: layer(x), prepare)

    def _learners(self, linear: Any, x: Any) -> Callable:
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

    from labutils import models
    from labutils.arrays.scheme import PerGroup, Scheme

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
def _ballast() -> Any:
    import torch

    return torch.ones(CACHE // 4)


@cache
def measure_roofs() -> Roofs:
    """The roofs of one thread here, measured with torch in a second: reading, and square products in three dtypes."""
    import torch

    from labutils.models import kernels

    big, vector = torch.ones(2**12, CACHE // 2**14), torch.ones(CACHE // 2**14)
    floats = torch.randn(512, 512)
    halves = floats.bfloat16()
    codes = torch.ones(1024, 1024, dtype=torch.int8)
    with torch.no_grad(), kernels.one_thread():
        return Roofs(
            memory=big.nbytes / shortest(lambda: big @ vector, patience=4),
            float32=2 * 512**3 / shortest(lambda: floats @ floats),
            bfloat16=2 * 512**3 / shortest(lambda: halves @ halves),
            int8=2 * 1024**3 / shortest(lambda: kernels.int_matmul(codes, codes.t())),
        )


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _time(seconds: float) -> str:
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-9:.3g} ns"
