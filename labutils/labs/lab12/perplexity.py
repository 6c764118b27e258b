"""perplexity: among how many words a language model hesitates, from its logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe, distinct
from labutils.labs.lab12 import LESSON
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import Changed, as_tensors, require_unchanged

Window = tuple[Array, Array]  # logits (T, V), tokens (T,)


def perplexity(windows: Sequence[Window]) -> float:
    """exp of the mean loss over all tokens that are predicted, in windows of any length.

    >>> import torch
    >>> probabilities = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5], [0.8, 0.1, 0.1]])
    >>> round(perplexity([(probabilities.log(), torch.tensor([0, 1, 0]))]), 4)  # sqrt(2 * 4)
    2.8284

    windows  (logits, tokens) of each: logits (T, V), of floats, in which row t predicts token t + 1; tokens (T,), whole
             numbers from 0 to V - 1. A window's first token is not predicted, and its last row predicts nothing

    Torch tensors or NumPy arrays. `models.evaluation.perplexity` runs a model and comes to the same. TypeError or
    ValueError for what is no list of such pairs, NaN in logits, and where no token is predicted.
    """
    losses = np.concatenate([_losses(*_checked(window)) for window in _listed(windows)] or [np.zeros(0)])
    if not len(losses):
        raise ValueError("windows must hold a token that is predicted: each window's first is not")
    with np.errstate(over="ignore"):  # a mean loss above 709 gives inf
        return float(np.exp(losses.mean()))


def _losses(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """-log of the probability of each token but the first, (T - 1,) float64."""
    rows = zip(logits[:-1], tokens[1:])  # one by one: a row stays in the processor's cache
    return np.array([logsumexp(row.astype(np.float64)) - float(row[token]) for row, token in rows])


def _listed(windows: Any) -> list:
    if not isinstance(windows, (list, tuple)):
        raise TypeError(f"windows must be a list of (logits, tokens), got {describe(windows)}")
    return list(windows)


def _checked(window: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits and tokens as arrays, or an error."""
    if not isinstance(window, (list, tuple)) or len(window) != 2:
        raise TypeError(f"each window must be a pair, (logits, tokens), got {describe(window)}")
    logits, tokens = (np.asarray(part) for part in window)
    if logits.dtype.kind != "f" or tokens.dtype.kind not in "iu":
        raise TypeError(f"logits must be floats and tokens whole numbers, got {logits.dtype} and {tokens.dtype}")
    if logits.ndim != 2 or tokens.shape != logits.shape[:1] or not len(tokens):
        raise ValueError(f"logits must be (T, V) and tokens (T,), got {logits.shape} and {tokens.shape}")
    if tokens.min() < 0 or tokens.max() >= logits.shape[1]:
        raise ValueError(f"tokens must be from 0 to {logits.shape[1] - 1}, got {tokens.min()} to {tokens.max()}")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite, got NaN or Inf")
    return logits, tokens


# The lesson's example: the model gave the tokens that came 1/2, 1/4 and 1/8.
HAND = np.array([[2, 4, 1, 1], [2, 3, 2, 1], [5, 1, 1, 1], [1, 1, 1, 5]], np.float32) / 8
HAND_TOKENS = np.array([0, 1, 2, 3])


def cases() -> list[Case]:
    rng = np.random.default_rng(12)

    def window(length: int, vocabulary: int = 20, size: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(size=(length, vocabulary)).astype(np.float32) * np.float32(size)
        return logits, rng.integers(0, vocabulary, length)

    def sure(length: int, right: float) -> tuple[np.ndarray, np.ndarray]:
        """`right` is the logit of the token that comes; all others are 0."""
        logits, tokens = window(length, size=0.0)
        logits[np.arange(length - 1), tokens[1:]] = right
        return logits, tokens

    def unlucky(length: int) -> tuple[np.ndarray, np.ndarray]:
        """Softmax gives the last token e^-120, which is 0 in float32."""
        logits, tokens = window(length)
        logits[-2, tokens[-1]] = -120
        return logits, tokens

    return [
        Case("the worked example", ([(np.log(HAND), HAND_TOKENS)],)),
        Case("one window of random logits", ([window(30)],)),
        Case("two windows of one length, one easy and one hard", ([sure(12, 6.0), window(12, size=3.0)],)),
        Case("a short last window", ([window(24), window(24), window(3, size=6.0)],)),
        Case("a model that knows nothing", ([window(16, size=0.0)],)),
        Case("a model that is sure and right", ([sure(16, 40.0)],)),
        Case("logits of a thousand", ([(window(8)[0] + np.float32(1000), window(8)[1])],)),
        Case("tokens that were thought impossible", ([sure(9, -80.0)],)),
        Case("one token in 24 whose probability is too small for float32", ([unlucky(24)],)),
        Case("a last window of one token: nothing in it is predicted", ([window(9), window(1)],)),
        Case("as many tokens as the vocabulary has", ([window(20)],)),
    ]


def on_windows(submission: Callable, windows: Sequence[Window]) -> Any:
    """What a submission makes of windows of tensors, or Changed where it does not leave them as they are."""
    given = [tuple(as_tensors(*window)) for window in windows]
    value = submission(list(given))
    for before, after in zip(windows, given):
        if any(not np.array_equal(a, b.numpy()) for a, b in zip(before, after)):
            return Changed("window")
    return value


def read(value: Any) -> dict:
    require_unchanged(value)
    return {"perplexity": as_number(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    wanted, found = perplexity(*case.args), answer["perplexity"]
    if math.isnan(found):
        raise Wrong("the perplexity should be a number, but it is NaN")
    if not math.isclose(found, wanted, rel_tol=1e-3):
        predicted = sum(len(tokens) - 1 for _, tokens in case.args[0])
        expected, came = distinct(wanted, found)
        raise Wrong(f"over the {predicted} predicted tokens the perplexity should be {expected}, but it is {came}")


def log_softmax(logits):
    return logits.log_softmax(1)


def shifted(logits, tokens):
    """The log probability of each token but the first."""
    return logits[:-1].gather(1, tokens[1:, None])[:, 0]


def shifted_over_positions(logits, tokens):
    return logits[:-1].log_softmax(0).gather(1, tokens[1:, None])[:, 0]


def mean_of_all(losses):
    import torch

    return torch.cat(losses).mean()


@dataclass(frozen=True)
class Perplexity(Recipe):
    """result(average(list of -chosen(logs(logits), tokens)))."""

    logs: Callable = log_softmax
    chosen: Callable = shifted
    average: Callable = mean_of_all
    result: Callable = lambda mean: mean.exp()
    windows: Callable = lambda windows: windows

    def __call__(self, windows):
        return self.result(self.average([-self.chosen(self.logs(logits), tokens) for logits, tokens in
                                         self.windows(windows)]))  # fmt: skip


right = Perplexity()


def joined(windows):
    import torch

    logits, tokens = zip(*windows)
    return [(torch.cat(logits), torch.cat(tokens))]


def naive_log(logits):
    return (logits.exp() / logits.exp().sum(1, keepdim=True)).log()


def log_of_softmax(logits):
    return logits.softmax(1).log()


def log_of_softmax_and_epsilon(logits):
    return (logits.softmax(1) + 1e-9).log()


def mean_of_means(losses):
    import torch

    return torch.stack([loss.mean() for loss in losses if len(loss)]).mean()


def mean_of_perplexities(losses):
    import torch

    return torch.stack([loss.mean().exp() for loss in losses if len(loss)]).mean().log()


def counts_every_token(losses):
    return sum(loss.sum() for loss in losses) / sum(len(loss) + 1 for loss in losses)


def entropy(windows):
    import torch

    logs = torch.cat([logits[:-1].log_softmax(1) for logits, _ in windows])
    return (-(logs.exp() * logs).sum(1)).mean().exp()


def over_the_mean_probability(losses):
    import torch

    return -torch.cat(losses).neg().exp().mean().log()


def share_right(windows):
    import torch

    hits = torch.cat([(logits[:-1].argmax(1) == tokens[1:]).float() for logits, tokens in windows])
    return hits.mean()


MEANS = (
    "Windows may be of different lengths, and each predicted token counts once. Put the losses of all windows together "
    "before you take one mean."
)

MISCONCEPTIONS = (
    Misconception("labels not shifted",
        right.but(chosen=lambda logs, tokens: logs.gather(1, tokens[:, None])[:, 0]),
        "Row t of the logits is what the model says after token t, about token t + 1. Here it is compared with token "
        "t, which the model has already seen."),
    Misconception("labels not shifted, the last row left out",
        right.but(chosen=lambda logs, tokens: logs[:-1].gather(1, tokens[:-1, None])[:, 0]),
        "Row t of the logits is what the model says after token t, about token t + 1. Leave the last row out of the "
        "logits, but the *first* token out of the tokens."),
    Misconception("labels shifted the wrong way",
        right.but(chosen=lambda logs, tokens: logs[1:].gather(1, tokens[:-1, None])[:, 0]),
        "Each row is compared with the token before it. A model predicts what comes after: row t belongs to token "
        "t + 1."),
    Misconception("labels shifted twice",
        right.but(chosen=lambda logs, tokens: logs[:-2].gather(1, tokens[2:, None])[:, 0]),
        "Each row is compared with the token after the next. Row t belongs to token t + 1: shift once."),
    Misconception("the first row and the first token left out",
        right.but(chosen=lambda logs, tokens: logs[1:].gather(1, tokens[1:, None])[:, 0]),
        "Row t of the logits is what the model says after token t, about token t + 1. The first token is left out, but "
        "of the logits the *last* row."),
    Misconception("mean of means", right.but(average=mean_of_means), MEANS),
    Misconception("mean of the windows' perplexities", right.but(average=mean_of_perplexities), MEANS),
    Misconception("windows joined into one text", right.but(windows=joined),
        "The first token of a window is predicted here by the last row of the window before it, which belongs to "
        "another place in the text. Take each window for itself."),
    Misconception("only the first window", right.but(windows=lambda windows: windows[:1]),
        "There may be several windows, and all of their predicted tokens count."),
    Misconception("only the last window", right.but(windows=lambda windows: [w for w in windows if len(w[1]) > 1][-1:]),
        "There may be several windows, and all of their predicted tokens count."),
    Misconception("perplexity in base 2", right.but(result=lambda mean: 2**mean),
        "The losses are natural logarithms, and 2 to the power of them belongs to bits. Use one base for both: "
        "either e, or log2 and 2."),
    Misconception("the logarithm in base 2, e to its power", right.but(result=lambda mean: (mean / math.log(2)).exp()),
        "Logarithms in base 2 are undone by powers of 2. Use one base for both."),
    Misconception("the mean loss itself", right.but(result=lambda mean: mean),
        "That is the loss in nats. Perplexity turns it back into a number of words: take exp of it."),
    Misconception("the sum of the losses for their mean",
        right.but(average=lambda losses: sum(loss.sum() for loss in losses)),
        "A longer text would be more perplexing, whatever the model. Divide by the number of predicted tokens."),
    Misconception("every token is counted, the unpredicted too", right.but(average=counts_every_token),
        "The sum of the losses is right, and what it is divided by is not: a window of T tokens holds T - 1 "
        "predictions."),
    Misconception("upside down: the mean probability of a token", right.but(result=lambda mean: (-mean).exp()),
        "This lies between 0 and 1: it is how probable a token was, on (geometric) average. Perplexity is 1 divided by "
        "it; a loss is *minus* the logarithm."),
    Misconception("the mean of probabilities instead of their logarithms", right.but(average=over_the_mean_probability),
        "Probabilities of a text multiply, so their logarithms are averaged. A token that was thought impossible must "
        "count for much, and in a mean of probabilities it does not."),
    Misconception("softmax twice", right.but(logs=lambda logits: logits.softmax(1).log_softmax(1)),
        "`cross_entropy` and `log_softmax` want logits. These were probabilities already, and were flattened a second "
        "time."),
    Misconception("probabilities over the wrong axis", right.but(logs=lambda logits: logits.log_softmax(0)),
        "For each position, the probabilities of all *words* add up to 1. Axis 0 is the positions; the words are the "
        "last axis."),
    Misconception("probabilities over the wrong axis",
        right.but(logs=lambda logits: logits, chosen=shifted_over_positions),
        "For each position, the probabilities of all *words* add up to 1. Axis 0 is the positions; the words are the "
        "last axis."),
    Misconception("logits taken for probabilities", right.but(logs=lambda logits: logits.log()),
        "Logits are any numbers, also negative ones, of which there is no logarithm. A softmax makes probabilities of "
        "them."),
    Misconception("logits taken for their logarithms", right.but(logs=lambda logits: logits),
        "Logits are logarithms of probabilities up to a constant, a different one in each row. A log_softmax takes it "
        "away."),
    Misconception("exp of large logits overflows", right.but(logs=naive_log),
        "The exp of a logit of 100 is too large for float32, and of -110 it is 0, whose logarithm is infinite. "
        "`log_softmax` subtracts the largest logit first."),
    Misconception("the logarithm of a probability that became 0", right.but(logs=log_of_softmax),
        "A probability of e^-120 is 0 in float32, and its logarithm infinite. `log_softmax` and `cross_entropy` never "
        "form the probability."),
    Misconception("an epsilon under the logarithm", right.but(logs=log_of_softmax_and_epsilon),
        "The epsilon hides how improbable a token was. `log_softmax` needs none, since it never forms the "
        "probability."),
    Misconception("the model's own uncertainty", lambda windows: entropy(windows),
        "This is how unsure the model was, whatever came. The loss looks at one word of each row: the one that came."),
    Misconception("how often the likeliest word was right", lambda windows: share_right(windows),
        "That is accuracy. It does not see by how much a wrong guess was wrong."),
)  # fmt: skip

EXERCISE = Exercise(
    name="perplexity",
    lab=LESSON,
    place=10,
    points=3,
    reference=perplexity,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_windows,
)
