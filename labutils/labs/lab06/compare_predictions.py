"""compare_predictions: how often a model and its quantized copy are right, and how often they agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe
from labutils.labs.lab06 import LESSON
from labutils.labs.recipes import Recipe

KEYS = ("accuracy", "quantized_accuracy", "agreement")
HAND = (  # the lesson's: three answers of five are right before and after, and three of five stay
    np.array([[2, 1, 0], [0, 3, 1], [1, 0, 4], [5, 1, 0], [0, 2, 1]], dtype=np.float32),
    np.array([[2, 1, 0], [0, 3, 1], [1, 3, 2], [5, 1, 0], [0, 1, 2]], dtype=np.float32),
    np.array([0, 1, 2, 1, 2]),
)


def compare_predictions(logits: Array, quantized_logits: Array, labels: Array) -> dict[str, float]:
    """How often a model is right, how often its quantized copy is, and how often the two say the same.

    >>> logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    >>> swapped = np.array([[2.0, 1.0], [1.0, 0.0], [1.0, 0.0], [5.0, 1.0]])
    >>> compare_predictions(logits, swapped, np.array([0, 1, 1, 0]))
    {'accuracy': 0.5, 'quantized_accuracy': 0.5, 'agreement': 0.5}

    (n, classes) logits, (n,) integer labels, NumPy or torch. ValueError for shapes that do not match.
    """
    logits, quantized_logits, labels = (as_numpy(x) for x in (logits, quantized_logits, labels))
    if logits.ndim != 2 or not logits.size or quantized_logits.shape != logits.shape:
        raise ValueError(
            f"logits and quantized_logits must have one shape (n, classes), got {logits.shape} "
            f"and {quantized_logits.shape}"
        )
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have shape ({len(logits)},), got {labels.shape}")
    before, after = logits.argmax(axis=1), quantized_logits.argmax(axis=1)
    return {
        "accuracy": float((before == labels).mean()),
        "quantized_accuracy": float((after == labels).mean()),
        "agreement": float((before == after).mean()),
    }


def as_numpy(x: Array) -> np.ndarray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and no time limit runs here

    rng = np.random.default_rng(6)

    def case(name: str, n: int, classes: int, noise: float, wrong: float = 0.2) -> Case:
        logits = rng.normal(size=(n, classes)).astype(np.float32)
        quantized = logits + noise * rng.normal(size=logits.shape).astype(np.float32)
        labels = np.where(rng.random(n) < wrong, rng.integers(0, classes, n), logits.argmax(axis=1))
        return Case(name, (logits, quantized, labels))

    image, other = rng.normal(size=(2, 40, 10)).astype(np.float32)
    return [
        Case("the worked example", HAND),
        case("200 images of ten classes", 200, 10, 0.3),
        case("ten images of ten classes", 10, 10, 0.8),
        case("two classes", 50, 2, 1.0),
        case("many answers change", 60, 10, 3.0, wrong=0.5),
        Case("the quantized model is better", (image, other, np.where(np.arange(40) < 30, other.argmax(1), 0))),
        Case("other logits, the same answers", (image, 2 * image + np.float32(0.5), image.argmax(axis=1) % 7)),
        Case("both models say the same, and are wrong", (image, image * np.float32(1.1), (image.argmax(1) + 1) % 10)),
        case("one image", 1, 10, 0.1),
    ]


def on_tensors(submission: Callable, *arrays: np.ndarray) -> Any:
    import torch

    return submission(*(torch.tensor(array) for array in arrays))


def read(value: Any) -> dict:
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict with {', '.join(KEYS)}, but it returned {describe(value)}")
    missing = [key for key in KEYS if key not in value]
    if missing:
        raise Wrong(f"{', '.join(missing)} missing: the dict has {', '.join(map(str, value)) or 'nothing'}")
    return {key: as_number(value[key], key) for key in KEYS}


def judge(answer: dict, case: Case) -> None:
    expected = compare_predictions(*case.args)
    for key in KEYS:
        if not math.isclose(answer[key], expected[key], abs_tol=1e-6):
            n = len(case.args[2])
            raise Wrong(
                f"{key} should be {round(expected[key] * n)} of {n} = {expected[key]:.4g}, not {answer[key]:.4g}"
            )


@dataclass(frozen=True)
class Compare(Recipe):
    """Three shares: of `before == labels`, of `after == labels`, and of agree(before, after, labels)."""

    answer_of: Callable = lambda logits: logits.argmax(dim=1)
    share: Callable = lambda hits: hits.double().mean()
    agree: Callable = lambda before, after, labels: before == after

    def __call__(self, logits, quantized_logits, labels):
        before, after = self.answer_of(logits), self.answer_of(quantized_logits)
        hits = before == labels, after == labels, self.agree(before, after, labels)
        return dict(zip(KEYS, map(self.share, hits)))


right = Compare()


def among_the_right(before, after, labels):
    right = before == labels
    return (before == after)[right] if right.any() else right


def equal_accuracies(before, after, labels):
    return 1 - ((before == labels).double().mean() - (after == labels).double().mean()).abs()


def comparing_logits(equal: Callable) -> Callable:
    def compare(logits, quantized_logits, labels):
        agreement = equal(logits, quantized_logits).double().mean()
        return right(logits, quantized_logits, labels) | {"agreement": agreement}

    return compare


MISCONCEPTIONS = (
    Misconception("agreement with the labels",
        right.but(agree=lambda before, after, labels: after == labels),
        "That is the quantized model's accuracy once more. Agreement asks whether the two models say the same, be it "
        "right or wrong: no label takes part."),
    Misconception("agreement counts the differences",
        right.but(agree=lambda before, after, labels: before != after),
        "That is how often the two models differ. Agreement is how often they do not."),
    Misconception("agreement where both are right",
        right.but(agree=lambda before, after, labels: (before == labels) & (after == labels)),
        "Two models agree as well where both give the same wrong answer. Compare their answers, without the labels."),
    Misconception("agreement where both are right or both are wrong",
        right.but(agree=lambda before, after, labels: (before == labels) == (after == labels)),
        "Both wrong is not the same answer: one may say 3 and the other 8. Compare the answers themselves."),
    Misconception("agreement among the answers that were right", right.but(agree=among_the_right),
        "Agreement counts all inputs, also those that the float model gets wrong. No label takes part."),
    Misconception("agreement from the two accuracies", right.but(agree=equal_accuracies),
        "Two models of equal accuracy may be wrong about different images. Compare them image by image."),
    Misconception("agreement of the logits", comparing_logits(lambda a, b: a == b),
        "Logits hardly ever stay exactly equal, and need not: the answer is the class of the largest. Compare "
        "answers."),
    Misconception("agreement of the logits", comparing_logits(lambda a, b: (a - b).abs() < 0.1),
        "Logits move, and need not stay: the answer is the class of the largest. Compare answers."),
    Misconception("the largest along the wrong axis", right.but(answer_of=lambda logits: logits.argmax(dim=0)),
        "Each row is an input, each column a class. The answer is the column of the largest number in a row."),
    Misconception("the largest of all", right.but(answer_of=lambda logits: logits.argmax()),
        "Without an axis, argmax looks at the whole table. Ask for one answer a row."),
    Misconception("the smallest logit", right.but(answer_of=lambda logits: logits.argmin(dim=1)),
        "A model answers with the class of the largest logit."),
    Misconception("counts instead of fractions", right.but(share=lambda hits: hits.sum()),
        "Divide by the number of inputs."),
    Misconception("percent instead of fractions", right.but(share=lambda hits: 100 * hits.double().mean()),
        "The contract asks for fractions, from 0 to 1."),
    Misconception("errors instead of hits", right.but(share=lambda hits: 1 - hits.double().mean()),
        "That is how often they differ. Accuracy and agreement say how often they do not."),
    Misconception("float and quantized swapped",
        lambda logits, quantized_logits, labels: right(quantized_logits, logits, labels),
        "`accuracy` belongs to the float model, whose logits come first."),
)  # fmt: skip

EXERCISE = Exercise(
    name="compare_predictions",
    lab=LESSON,
    place=30,
    points=1,
    reference=compare_predictions,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_tensors,
)
