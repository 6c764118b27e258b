"""Lab 10: a network that trains in few bits, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils import data
from labutils.arrays.inputs import bit_width, whole_number
from labutils.arrays.scheme import Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Notches, Slider, ask
from labutils.course.reading import describe
from labutils.labs import answers

LAYER = "block2.pointwise"  # whose weights are drawn
WINDOW = 3.0  # steps to each side of 0 that are drawn
LEAST = 0.1  # percent: what is drawn where no digit is read wrong


def explore_training(
    fake_quantize: Callable = answers.fake_quantize_ste, bits: Sequence[int] = (2, 3, 4, 8), epochs: int = 4
) -> Explorer:
    """Train the digits network at each bit width, then drag through the epochs.

    >>> explorer = explore_training(bits=(2,), epochs=1)  # doctest: +SKIP
    2 bits: 100%|##########| 20/20
    >>> explorer.curves  # doctest: +SKIP
    {2: [0.156, 0.832]}

    Weights have `bits` bits and a scale for each output channel, activations 8 bits. Epoch 0 is the network quantized
    after training. Nothing is stored: the training happens now, two seconds or so for each width, the same each time on
    one machine. `fake_quantize(x, scale, num_bits)` may be a learner's. `.curves` maps bits to the accuracy on the test
    digits before training and after each epoch. TypeError or ValueError for other widths or numbers of epochs.
    """
    widths = tuple(bit_width(width) for width in bits)
    if len(set(widths)) != len(widths) or not widths:
        raise ValueError(f"bits must be one or more different bit widths, got {tuple(bits)}")
    return TrainingExplorer(fake_quantize, widths, whole_number(epochs, "epochs", least=1))


@dataclass(frozen=True)
class Snapshot:
    """The network at one moment of its training."""

    accuracy: float
    codes: np.ndarray  # of all weights
    steps: np.ndarray  # weight / scale in LAYER


@dataclass(frozen=True)
class TrainingResult:
    num_bits: int
    epoch: int
    accuracy: float
    untrained: float
    start: np.ndarray  # weight / scale in LAYER, before training
    steps: np.ndarray  # and now
    moved: np.ndarray  # which of them have another code now
    recoded: float  # share of all weights with another code


class TrainingExplorer(Explorer):
    title = "A network trained in few bits, epoch by epoch"
    size = (9.0, 3.5)

    def __init__(self, fake_quantize: Callable, bits: tuple[int, ...], epochs: int):
        self._bits, self._epochs = bits, epochs
        self._float = data.digits_network().accuracy()
        self._failure: Wrong | None = None
        self._runs: dict[int, list[Snapshot]] = {}
        try:
            _try(fake_quantize)
            self._runs = {num_bits: _run(fake_quantize, num_bits, epochs) for num_bits in bits}
        except Wrong as wrong:
            self._failure = wrong
        self.curves = {num_bits: [moment.accuracy for moment in run] for num_bits, run in self._runs.items()}
        super().__init__()

    def sliders(self) -> dict[str, Slider | Notches]:
        bits = Notches("bits", self._bits, self._bits[0], hint="bit width of the weights")
        epoch = Slider("epoch", 0, self._epochs, 0, hint="how often training has seen every image")
        return {"num_bits": bits, "epoch": epoch} if len(self._bits) > 1 else {"epoch": epoch}

    def compute(self, state: dict[str, Any]) -> TrainingResult:
        if self._failure:
            raise self._failure
        num_bits = state.get("num_bits", self._bits[0])
        run = self._runs[num_bits]
        first, now = run[0], run[state["epoch"]]
        scheme = Scheme(num_bits)
        return TrainingResult(
            num_bits=num_bits,
            epoch=state["epoch"],
            accuracy=now.accuracy,
            untrained=first.accuracy,
            start=first.steps,
            steps=now.steps,
            moved=_codes(first.steps, scheme) != _codes(now.steps, scheme),
            recoded=float(np.mean(first.codes != now.codes)),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        curve, plane = figure.subplots(1, 2, width_ratios=[1.35, 1])
        epochs = np.arange(self._epochs + 1)
        full = _wrong(self._float)
        curve.plot(epochs, np.full(epochs.shape, full), color=palette.GOOD, lw=1.4, ls="--")
        curve.annotate("float32", (0, full), (4, -10), textcoords="offset points", fontsize=8, color=palette.GOOD)
        for num_bits, accuracies in self.curves.items():
            wrong = [_wrong(accuracy) for accuracy in accuracies]
            curve.plot(epochs, wrong, color=palette.THEORY, lw=1.1, alpha=0.6)
            curve.annotate(f"{num_bits} bits", (0, wrong[0]), (-8, 0), textcoords="offset points", ha="right",
                           va="center", fontsize=8, color=palette.THEORY)  # fmt: skip
        curve.set(yscale="log", ylim=(0.4, 110), xlim=(-0.22 * self._epochs, 1.05 * self._epochs), xticks=epochs)
        curve.set(xlabel="epoch (0: quantized, not trained)", ylabel="digits read wrong")
        curve.set_yticks([0.5, 1, 3, 10, 30, 100], ["0.5%", "1%", "3%", "10%", "30%", "100%"])
        curve.minorticks_off()
        (self._line,) = curve.plot([], [], "o-", color=palette.QUANTIZED, lw=2, ms=4)
        (self._here,) = curve.plot([], [], "o", ms=10, mfc=palette.QUANTIZED, mec=palette.PAPER, mew=1.5)
        self._curve_title = curve.set_title(" ")
        reach = (-WINDOW, WINDOW)
        plane.set(xlim=reach, ylim=reach, aspect="equal", xlabel="weight / scale before training", ylabel="now")
        plane.grid(False)
        style = {"color": palette.THEORY, "lw": 0.8, "alpha": 0.5}
        self._borders = plane.hlines([], *reach, **style), plane.vlines([], *reach, **style)
        self._clouds = [
            plane.scatter([], [], s=5, lw=0, color=colour, alpha=0.6, label=label)
            for colour, label in ((palette.ORIGINAL, "same code"), (palette.QUANTIZED, "another code"))
        ]
        plane.legend(loc="lower right", fontsize=8, markerscale=2, handletextpad=0.1, borderpad=0.1)
        self._plane_title = plane.set_title(" ")
        return [self._line, self._here, self._curve_title, *self._borders, *self._clouds, self._plane_title]

    def draw(self, result: TrainingResult) -> None:
        wrong = [_wrong(accuracy) for accuracy in self.curves[result.num_bits]]
        self._line.set_data(np.arange(result.epoch + 1), wrong[: result.epoch + 1])
        self._here.set_data([result.epoch], [wrong[result.epoch]])
        self._curve_title.set_text(f"{result.num_bits} bits, epoch {result.epoch}: {1 - result.accuracy:.1%} wrong")
        scheme = Scheme(result.num_bits)
        borders = np.arange(max(scheme.quant_min, -3), min(scheme.quant_max, 3)) + 0.5  # between two codes
        across, along = self._borders
        across.set_segments([[(-WINDOW, border), (WINDOW, border)] for border in borders])
        along.set_segments([[(border, -WINDOW), (border, WINDOW)] for border in borders])
        for cloud, chosen in zip(self._clouds, (~result.moved, result.moved)):
            cloud.set_offsets(np.column_stack([result.start[chosen], result.steps[chosen]]))
        self._plane_title.set_text(f"{np.mean(result.moved):.0%} of these changed their code")

    def describe(self, result: TrainingResult) -> list[tuple[str, str]]:
        return [
            ("bits", f"{result.num_bits}"),
            ("epoch", f"{result.epoch}"),
            ("read right", f"{result.accuracy:.1%}"),
            ("quantized, not trained", f"{result.untrained:.1%}"),
            ("float32", f"{self._float:.1%}"),
            ("weights with another code", f"{result.recoded:.1%} of all, {np.mean(result.moved):.1%} of {LAYER}"),
        ]


def _wrong(accuracy: float) -> float:
    """Percent read wrong, for a logarithmic axis."""
    return max(100 * (1 - accuracy), LEAST)


def _codes(steps: np.ndarray, scheme: Scheme) -> np.ndarray:
    return np.clip(np.round(steps), scheme.quant_min, scheme.quant_max)


def _run(fake_quantize: Callable, num_bits: int, epochs: int) -> list[Snapshot]:
    """The network before training and after each epoch; Wrong where the learner's function raises an error."""
    import torch

    from labutils.models import training

    def snapshot(model: torch.nn.Module) -> Snapshot:
        layers = {
            name: (layer.layer.weight.detach() / layer.weight_scale.detach()).flatten().numpy()
            for name, layer in model.named_modules()
            if isinstance(layer, training.FakeQuantizedLayer)
        }
        codes = np.concatenate([_codes(steps, Scheme(num_bits)) for steps in layers.values()])
        return Snapshot(data.digits_accuracy(model), codes.astype(np.int16), layers[LAYER])

    images, labels = map(torch.from_numpy, data.digits("train"))
    try:
        model = training.prepare(data.digits_model(), images, num_bits, fake_quantize=fake_quantize)
        return training.train(model, images, labels, epochs, measure=snapshot, description=f"{num_bits} bits")
    except Exception as error:
        name = getattr(fake_quantize, "__name__", "your function")
        raise Wrong(f"`{name}` raised {type(error).__name__} in training: {error}") from None


def _try(fake_quantize: Callable) -> None:
    """Call a learner's function once, guarded, on a small tensor: it may be undone, or never end."""
    import torch

    def read(value: object) -> dict:
        if not array_api_compat.is_torch_array(value):
            raise Wrong(f"it should return a torch tensor, but it returned {describe(value)}")
        if value.shape != x.shape:
            raise Wrong(f"its result has shape {tuple(value.shape)}, but x has {tuple(x.shape)}")
        if not math.isfinite(float(value.detach().sum())):
            raise Wrong("its result holds NaN or Inf")
        return {}

    x = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
    ask(fake_quantize, read, x, torch.full((3, 1), 0.25), 3)
