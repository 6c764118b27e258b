"""Lab 12: a language model's key-value cache: what it takes, and what it costs in perplexity."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Notches, ask
from labutils.course.reading import as_array, parts
from labutils.data.language_model import LanguageModel
from labutils.labs import answers
from labutils.labs.lab12._text import WINDOW, evaluation_text

if TYPE_CHECKING:
    import torch

BITS = (2, 3, 4, 8)
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192)
GROUP = 32  # tokens that are quantized together
HIGHEST = 1e6  # what is drawn in place of larger perplexities
WORSE, MUCH_WORSE = 1.2, 10  # times the float model's perplexity


def explore_cache(language: LanguageModel, quantize: Callable = answers.quantize_kv) -> Explorer:
    """Drag the bits of a model's keys and values, and the length of the text that they are cached for.

    >>> from labutils.data.stand_in import untrained_language_model
    >>> explorer = explore_cache(untrained_language_model())
    >>> explorer.result.tokens, explorer.result.bytes_float  # 4 layers, 2 heads of 16 channels
    (2048, 1048576)

    `quantize(keys, values, num_bits)` may be a learner's. Perplexities are those of the first 256 tokens of the answers
    to the course's questions, each group of 32 tokens quantized, with no window; they are measured when the explorer is
    made, which takes seconds. For "per token" the keys are handed over as values. TypeError for what is no
    `LanguageModel`.
    """
    return CacheExplorer(language, quantize)


@dataclass(frozen=True)
class CacheResult:
    num_bits: int
    tokens: int
    bytes_float: int  # in float16
    bytes: int
    per_channel: float  # perplexity, keys per channel
    per_token: float


class CacheExplorer(Explorer):
    title = "A key-value cache in few bits: its size against the length of the text, and what it costs in perplexity"
    size = (9.0, 3.5)

    def __init__(self, language: LanguageModel, quantize: Callable):
        if not isinstance(language, LanguageModel):
            raise TypeError(f"language must be a LanguageModel, such as data.language_model(), got {language!r:.60}")
        from labutils.models.kv_cache.footprint import CacheShape

        shape = CacheShape.of(language.model.config)
        self._shape = {"layers": shape.layers, "heads": shape.heads, "channels": shape.channels}
        self._weights = sum(p.numel() for p in language.model.parameters()) * answers.bits_per_weight(4, 32) / 8e6
        self._float = _perplexity(language)
        self._failure: Wrong | None = None
        self._measured: dict[int, tuple[float, float]] = {}
        try:
            self._measured = (
                _of_reference(language) if quantize is answers.quantize_kv else _measure(language, quantize)
            )
        except Wrong as wrong:
            self._failure = wrong
        super().__init__()

    def sliders(self) -> dict[str, Notches]:
        return {
            "num_bits": Notches("bits", BITS, 2, hint="bit width of keys and values"),
            "tokens": Notches("context", CONTEXTS, 2048, hint="how many tokens are cached"),
        }

    def compute(self, state: dict[str, Any]) -> CacheResult:
        if self._failure:
            raise self._failure
        bits, tokens = state["num_bits"], state["tokens"]
        return CacheResult(bits, tokens, self._bytes(tokens, 16), self._bytes(tokens, bits), *self._measured[bits])

    def _bytes(self, tokens: int, num_bits: int) -> int:
        return answers.kv_cache_bytes(tokens, num_bits, **self._shape)

    def build(self, figure: Figure) -> Sequence[Artist]:
        sizes, costs = figure.subplots(1, 2, width_ratios=[1, 1.1])
        return [*self._build_sizes(sizes), *self._build_costs(costs)]

    def _build_sizes(self, axes: Axes) -> list[Artist]:
        """Megabytes against context, a line for each bit width."""
        for bits in (*BITS, 16):
            line = [self._bytes(tokens, bits) / 1e6 for tokens in CONTEXTS]
            name, color = ("float16", palette.ORIGINAL) if bits == 16 else (f"{bits}", palette.THEORY)
            axes.plot(CONTEXTS, line, color=color, lw=1.4, alpha=0.8)
            axes.annotate(name, (CONTEXTS[-1], line[-1]), (9, 0), va="center", textcoords="offset points", fontsize=8,
                          color=color)  # fmt: skip
        axes.axhline(self._weights, color=palette.GOOD, lw=1.2, ls="--")
        axes.annotate("the model's weights in 4 bits", (CONTEXTS[0], self._weights), (0, 4), fontsize=8,
                      textcoords="offset points", color=palette.GOOD)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="tokens in the cache", ylabel="MB")
        axes.set_xlim(CONTEXTS[0] * 0.85, CONTEXTS[-1] * 2.3)
        axes.set_xticks(CONTEXTS, [f"{tokens:,}" for tokens in CONTEXTS], fontsize=8)
        ticks = [
            tick for tick in (0.01, 0.1, 1, 10, 100, 1000) if tick > axes.get_ylim()[0] and tick < axes.get_ylim()[1]
        ]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        (self._float_size,) = axes.plot([], [], "o", ms=8, color=palette.ORIGINAL, mec=palette.PAPER)
        (self._size,) = axes.plot([], [], "o", ms=10, color=palette.QUANTIZED, mec=palette.PAPER)
        self._sizes_title = axes.set_title(" ")
        return [self._float_size, self._size, self._sizes_title]

    def _build_costs(self, axes: Axes) -> list[Artist]:
        """Perplexity against bits, keys per channel and keys per token."""
        places = range(len(BITS))
        curves = zip(*[self._measured.get(bits, (math.nan, math.nan)) for bits in BITS])
        for curve, color, name, above in zip(curves, COLORS, ("per channel", "per token"), (-5, 5)):
            heights = [min(value, HIGHEST) for value in curve]
            axes.plot(places, heights, "o-", color=color, lw=1.8, ms=4)
            axes.annotate(f"keys\n{name}", (0, heights[0]), (-9, above), textcoords="offset points", fontsize=9,
                          ha="right", va="center", color=color)  # fmt: skip
        axes.axhline(self._float, color=palette.ORIGINAL, lw=1.2, ls="--")
        axes.annotate(f"float {self._float:.1f}", (len(BITS) - 1, self._float), (0, -11), textcoords="offset points",
                      ha="right", fontsize=9, color=palette.ORIGINAL)  # fmt: skip
        axes.set(yscale="log", xlim=(-1.05, len(BITS) - 0.75), xlabel="bits of keys and values", ylabel="perplexity")
        values = [value for pair in self._measured.values() for value in pair if math.isfinite(value)] + [self._float]
        low, high = min(values) * 0.8, min(max(values), HIGHEST) * 1.6
        axes.set_ylim(low, high)
        ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5) if low < digit * 10**power < high]
        axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks(places, [f"{bits}" for bits in BITS])
        axes.minorticks_off()
        self._costs = [axes.plot([], [], "o", ms=10, color=color, mec=palette.PAPER)[0] for color in COLORS]
        self._costs_title = axes.set_title(" ")
        return [*self._costs, self._costs_title]

    def draw(self, result: CacheResult) -> None:
        place = BITS.index(result.num_bits)
        self._float_size.set_data([result.tokens], [result.bytes_float / 1e6])
        self._size.set_data([result.tokens], [result.bytes / 1e6])
        whole, packed = (f"{_megabytes(size)} MB" for size in (result.bytes_float, result.bytes))
        self._sizes_title.set_text(f"{result.tokens:,} tokens: {whole}, in {result.num_bits} bits {packed}")
        for points, value in zip(self._costs, (result.per_channel, result.per_token)):
            points.set_data([place], [min(value, HIGHEST)])
        costs = (_cost(value, self._float) for value in (result.per_channel, result.per_token))
        self._costs_title.set_text("Keys per channel: {}, per token: {}".format(*costs))

    def describe(self, result: CacheResult) -> list[tuple[str, str]]:
        return [
            ("bits", f"{result.num_bits}"),
            ("tokens", f"{result.tokens:,}"),
            ("float16", f"{_megabytes(result.bytes_float)} MB"),
            (f"in {result.num_bits} bits", f"{_megabytes(result.bytes)} MB"),
            ("perplexity, float", f"{self._float:,.1f}"),
            ("keys per channel", self._in_words(result.per_channel)),
            ("keys per token", self._in_words(result.per_token)),
        ]

    def _in_words(self, value: float) -> str:
        """A perplexity beside the float model's; the farther beyond it, the more its digits depend on the processor."""
        if value < WORSE * self._float:
            return f"{value:,.1f}"
        if value < MUCH_WORSE * self._float:
            return f"about {float(f'{value:.1g}'):,.0f}"
        return f"over {MUCH_WORSE} times that"


COLORS = (palette.QUANTIZED, palette.WARN)  # keys per channel, keys per token


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 1e7 else f"{size / 1e6:.2g}"


def _cost(value: float, of: float) -> str:
    """How much worse a perplexity is: '+8%', '× 13'."""
    return f"{round(100 * (value / of - 1)) + 0:+}%" if value < 2 * of else f"× {value / of:,.0f}"


@functools.lru_cache(maxsize=1)
def _of_reference(language: LanguageModel) -> dict[int, tuple[float, float]]:
    return _measure(language, answers.quantize_kv)


def _measure(language: LanguageModel, quantize: Callable) -> dict[int, tuple[float, float]]:
    """Bits -> perplexity with keys per channel, and per token; Wrong where the learner's function fails."""
    _try(quantize)
    name = getattr(quantize, "__name__", "your function")

    def per_channel(keys: torch.Tensor, values: torch.Tensor, num_bits: int) -> tuple:
        return quantize(keys, values, num_bits)

    def per_token(keys: torch.Tensor, values: torch.Tensor, num_bits: int) -> tuple:
        return quantize(values, keys, num_bits)[1], quantize(keys, values, num_bits)[1]

    def both(num_bits: int) -> tuple[float, float]:
        return tuple(
            _perplexity(language, functools.partial(way, num_bits=num_bits)) for way in (per_channel, per_token)
        )

    try:
        return {bits: both(bits) for bits in BITS}
    except Exception as error:
        raise Wrong(f"`{name}` raised {type(error).__name__} on a model's keys and values: {error}") from None


def _perplexity(language: LanguageModel, quantize: Callable | None = None) -> float:
    """Perplexity of the first tokens of the course's text, attention reading what `quantize` makes of groups."""
    import torch

    from labutils.labs.lab12._seen import SeenThrough

    ids = torch.tensor(language.encode(evaluation_text())[:WINDOW])
    cache = None if quantize is None else SeenThrough(functools.partial(_in_groups, quantize))
    with torch.no_grad():
        logits = language.model(input_ids=ids[None], past_key_values=cache, use_cache=cache is not None).logits[0]
        return float(torch.nn.functional.cross_entropy(logits[:-1].float(), ids[1:]).exp())


def _in_groups(quantize: Callable, keys: torch.Tensor, values: torch.Tensor) -> list[torch.Tensor]:
    """Keys and values of one layer, (1, heads, tokens, channels): each group of tokens is quantized like a head."""
    groups = [states[0].unflatten(1, (-1, GROUP)).flatten(0, 1) for states in (keys, values)]
    return [states.reshape(like.shape).to(like) for states, like in zip(quantize(*groups), (keys, values))]


def _try(quantize: Callable) -> None:
    """Call a learner's function once, guarded: it may be undone, or never end."""
    import torch

    keys, values = torch.linspace(-1, 2, 48).reshape(2, 4, 6), torch.linspace(-2, 1, 48).reshape(2, 4, 6)

    def read(value: Any) -> dict:
        for name, part in zip(("keys", "values"), parts(value, ("keys", "values"))):
            array = as_array(part, name)
            if array.shape != tuple(keys.shape):
                raise Wrong(f"{name} have shape {array.shape}, but came in {tuple(keys.shape)}")
            if not isinstance(part, torch.Tensor):
                raise Wrong(f"{name} should come back as a torch tensor, and are {type(part).__name__}")
        return {}

    ask(quantize, read, keys, values, 4)
