"""Lab 12: a language model's text and perplexity while its weights lose bits."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Notches, Slider, ask
from labutils.course.figures import wrapped
from labutils.course.reading import as_number
from labutils.course.stepped import SteppedExplorer
from labutils.data.language_model import LanguageModel
from labutils.labs import answers
from labutils.labs.lab12._text import PROMPT, WINDOW, evaluation_text

if TYPE_CHECKING:
    import torch
    from torch import nn

BITS = range(2, 9)
GROUP_SIZES = (16, 32, 64, 192)  # 576 and 1536 are multiples of all
NEW_TOKENS = 20
LAYERS_A_STEP = 14  # those of two blocks
CHUNK = 64  # tokens that the model reads in a step
WORST = 5e6  # what is drawn in place of larger perplexities
WIDTH = 80  # characters of a line on the page
FLOAT_ROW, ROW = 0.7, 0.33  # heights on the page
TEXT = {"va": "top", "fontsize": 12, "linespacing": 1.3}


def explore_text(
    language: LanguageModel, perplexity: Callable = answers.perplexity, prompt: str = PROMPT, text: str | None = None
) -> SteppedExplorer:
    """Drag bits and group size of a language model's linear layers; read how it goes on, and its perplexity.

    >>> from labutils.data.stand_in import untrained_language_model
    >>> explorer = explore_text(untrained_language_model())
    >>> explorer.result.num_bits, explorer.result.tokens
    (3, 20)

    `perplexity(windows)` may be a learner's. `prompt` is continued greedily, by 20 tokens; the perplexity is that of
    the first 256 tokens of `text`, by default the answers of the course's questions. Weights are rounded and put back
    (fake quantization), symmetric, with 16-bit scales counted; embedding and head stay as they are. TypeError for what
    is no `LanguageModel`.
    """
    return TextExplorer(language, perplexity, prompt, evaluation_text() if text is None else text)


@dataclass(frozen=True)
class TextResult:
    num_bits: int
    group_size: int
    megabytes: float  # of the linear layers, scales counted
    done: float = 0.0  # share of the layers that are quantized
    perplexity: float | None = None  # until it is measured
    text: str = ""  # the continuation as far as it goes
    tokens: int = 0


class TextExplorer(SteppedExplorer):
    """float_text, float_perplexity: what the model says before its weights are rounded."""

    title = "A language model's text while its weights lose bits"
    size = (9.0, 3.6)

    def __init__(self, language: LanguageModel, perplexity: Callable, prompt: str, text: str):
        if not isinstance(language, LanguageModel):
            raise TypeError(f"language must be a LanguageModel, such as data.language_model(), got {language!r:.60}")
        from labutils.models import linear_layers

        self._language, self._perplexity, self._prompt = language, perplexity, prompt
        self._ids = language.encode(text)[:WINDOW]
        head = language.model.get_output_embeddings()
        self._layers = [layer for layer in linear_layers(language.model).values() if layer is not head]
        self._vocabulary = head.out_features
        self._weights = sum(layer.weight.numel() for layer in self._layers)
        logits, self.float_text = _of_float(language, prompt, tuple(self._ids))
        self.float_perplexity = self._failure = None
        try:
            self.float_perplexity = self._measured(logits)
        except Wrong as wrong:
            self._failure = wrong
        super().__init__()

    def sliders(self) -> dict[str, Slider | Notches]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 3, hint="bit width of the weights of linear layers"),
            "group_size": Notches("group size", GROUP_SIZES, 32, hint="how many neighbours in a row share a scale"),
        }

    def steps(self, state: dict[str, Any]) -> Iterator[TextResult]:
        from labutils.models.evaluation import next_tokens
        from labutils.models.replacement import replaced_copy

        if self._failure:
            raise self._failure
        bits, group = state["num_bits"], state["group_size"]
        megabytes = self._weights * answers.bits_per_weight(bits, group) / 8e6
        result, scheme = TextResult(bits, group, megabytes), Scheme(bits, granularity=PerGroup(group))
        replacements: dict[nn.Module, nn.Module] = {}
        for layer in self._layers:
            if len(replacements) % LAYERS_A_STEP == 0:
                yield replace(result, done=len(replacements) / len(self._layers))
            replacements[layer] = _rounded(layer, scheme)
        model, logits = replaced_copy(self._language.model, replacements), []
        for some in _logits(model, self._ids):
            yield replace(result, done=1.0)
            logits.append(some)
        result = replace(result, done=1.0, perplexity=self._measured(logits))
        yield result
        tokens: list[int] = []
        for token in next_tokens(model, self._language.tokenizer, self._prompt, NEW_TOKENS):
            tokens.append(token)
            yield replace(result, text=self._language.decode(tokens), tokens=len(tokens))
        yield replace(result, text=self._language.decode(tokens), tokens=len(tokens))

    def _measured(self, logits: Sequence[torch.Tensor]) -> float:
        import torch

        windows = [(torch.cat(logits), torch.tensor(self._ids))]
        value = ask(self._perplexity, _read, windows, limits=5)["perplexity"]
        if not value > 0:
            raise Wrong(f"the perplexity is {value:g}, and should be a positive number")
        return value

    def build(self, figure: Figure) -> Sequence[Artist]:
        page, gauge = figure.subplots(2, 1, height_ratios=[2.3, 1])
        page.axis("off")
        page.set(xlim=(0, 1), ylim=(0, 1))
        self._title = page.set_title(" ")
        page.text(0.08, 0.97, wrapped(f"{self._prompt} …", WIDTH, 1), **TEXT)
        for row, label, color in ((FLOAT_ROW, "float", palette.ORIGINAL), (ROW, "", palette.QUANTIZED)):
            self._label = page.text(0, row, label, **TEXT | {"fontsize": 10, "weight": "bold"}, color=color)
            self._words = page.text(0.08, row, wrapped(f"…{self.float_text}", WIDTH, 2), **TEXT, color=color)
        return [self._title, self._label, self._words, *self._build_gauge(gauge)]

    def _build_gauge(self, gauge: Axes) -> list[Artist]:
        """A scale of perplexities, with the float model's and that of guessing on it."""
        gauge.set(xscale="log", xlim=(1, 2 * WORST), ylim=(-1, 1), yticks=[])
        gauge.set_xlabel("perplexity: as unsure as among so many words")
        gauge.set_xticks(*zip(*[(10**power, f"{10**power:,}") for power in range(7)]))
        gauge.minorticks_off()
        gauge.spines["left"].set_visible(False)
        gauge.axhline(0, color=palette.GRID, lw=6, zorder=1)
        gauge.axvline(self._vocabulary, color=palette.THEORY, lw=1, ls="--")
        style = {"textcoords": "offset points", "va": "top", "fontsize": 9}
        gauge.annotate(f"guessing among all {self._vocabulary:,}", (self._vocabulary, -0.25), (5, 0), **style,
                       color=palette.THEORY)  # fmt: skip
        if self.float_perplexity is not None:
            place = min(self.float_perplexity, WORST), 0
            gauge.plot(*place, "o", ms=10, color=palette.ORIGINAL, mec=palette.PAPER, zorder=3)
            gauge.annotate(
                f"float {_number(self.float_perplexity)}", place, (0, -9), **style, ha="center", color=palette.ORIGINAL
            )
        (self._here,) = gauge.plot([], [], "o", ms=12, color=palette.QUANTIZED, mec=palette.PAPER, zorder=4)
        self._value = gauge.text(1, 0.34, "", ha="center", fontsize=10, weight="bold", color=palette.QUANTIZED)
        return [self._here, self._value]

    def draw(self, result: TextResult) -> None:
        perplexity, known = result.perplexity, result.perplexity is not None
        self._label.set_text(f"{result.num_bits} bits")
        self._words.set_text(wrapped(f"…{result.text}", WIDTH, 2))
        self._title.set_text(f"{result.num_bits} bits in groups of {result.group_size}: {self._message(result)}")
        self._here.set_data([min(perplexity, WORST) if known else math.nan], [0])
        self._value.set_text(_number(perplexity) if known else "")
        self._value.set_x(min(perplexity, WORST / 2) if known else 1)

    def _message(self, result: TextResult) -> str:
        if result.perplexity is None:
            return "measuring" if result.done == 1 else f"rounding the weights, {result.done:.0%}"
        if result.perplexity > self._vocabulary:
            return "worse than guessing"
        float_ = f", float among {_count(self.float_perplexity)}" if self.float_perplexity else ""
        return f"as unsure as among {_count(result.perplexity)} words{float_}"

    def describe(self, result: TextResult) -> list[tuple[str, str]]:
        known = result.perplexity is not None
        return [
            ("bits", f"{result.num_bits}"),
            ("group size", f"{result.group_size}"),
            ("linear layers", f"{result.megabytes:.1f} MB"),
            ("perplexity", _number(result.perplexity) if known else "…"),
            ("float", _number(self.float_perplexity) if self.float_perplexity else "?"),
            ("it goes on", f"{result.tokens} tokens"),
        ]

    def note(self, result: TextResult) -> str:
        return f"… {result.text.strip()}" if result.text.strip() else ""


@functools.lru_cache(maxsize=1)
def _of_float(language: LanguageModel, prompt: str, ids: tuple[int, ...]) -> tuple[list, str]:
    """Logits and continuation of the float model, which do not depend on the learner's function."""
    from labutils.models.evaluation import continuation

    return list(_logits(language.model, ids)), continuation(language.model, language.tokenizer, prompt, NEW_TOKENS)


def _logits(model: nn.Module, ids: Sequence[int]) -> Iterator[torch.Tensor]:
    """The logits of a text, CHUNK tokens at a time: (CHUNK, V) float32, as one call for all would give."""
    import torch

    cache = None
    for chunk in torch.tensor(ids).split(CHUNK):
        with torch.no_grad():
            output = model(input_ids=chunk[None], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        yield output.logits[0].float()


def _rounded(layer: nn.Linear, scheme: Scheme) -> nn.Linear:
    """A layer with the weight rounded to `scheme` and put back."""
    from torch import nn

    made = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    made.weight = nn.Parameter(fake_quantize(layer.weight.detach(), scheme), requires_grad=False)
    made.bias = layer.bias
    return made


def _read(value: Any) -> dict:
    return {"perplexity": as_number(value, "the result")}


def _count(value: float) -> str:
    """A perplexity as a number of words."""
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.0f} million" if value < 1e12 else f"{value:.0e}"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else _count(value)
