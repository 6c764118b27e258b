"""compare_predictions: what counts as agreement, what is refused, and how it may be written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import compare_predictions
from labutils.labs.check import examine
from tests.labs.right_answers import passes

torch = pytest.importorskip("torch")


@given(st.integers(1, 50), st.integers(2, 10), st.integers(0, 2**16))
def test_a_model_agrees_with_itself_and_with_any_rising_function_of_its_logits(n, classes, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    result = compare_predictions(logits, np.exp(logits), labels)
    assert result["agreement"] == 1
    assert result["accuracy"] == result["quantized_accuracy"] == np.mean(logits.argmax(1) == labels)


@given(st.integers(1, 50), st.integers(2, 10), st.integers(0, 2**16))
def test_accuracies_differ_by_no_more_than_the_answers_that_changed(n, classes, seed):
    rng = np.random.default_rng(seed)
    before, after, labels = rng.normal(size=(n, classes)), rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    result = compare_predictions(before, after, labels)
    assert abs(result["accuracy"] - result["quantized_accuracy"]) <= 1 - result["agreement"] + 1e-9


def test_torch_and_numpy_give_the_same():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), rng.integers(0, 3, 20)
    assert compare_predictions(*arrays) == compare_predictions(*map(torch.tensor, arrays))


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((3, 4), (3, 5), (3,)), "one shape"),
        (((3, 4), (2, 4), (3,)), "one shape"),
        (((3,), (3,), (3,)), "one shape"),
        (((0, 4), (0, 4), (0,)), "one shape"),
        (((3, 4), (3, 4), (2,)), r"labels must have shape \(3,\)"),
        (((3, 4), (3, 4), (3, 4)), "labels must have shape"),
    ],
    ids=str,
)
def test_shapes_that_do_not_match_are_refused(shapes, sentence):
    logits, quantized, labels = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=sentence):
        compare_predictions(logits, quantized, labels.astype(int))


def test_two_accuracies_is_recognised():
    def compare_predictions(logits, quantized_logits, labels):
        a = (logits.argmax(-1) == labels).float().mean()
        b = (quantized_logits.argmax(-1) == labels).float().mean()
        return {"accuracy": a, "quantized_accuracy": b, "agreement": 1 - abs(a - b)}

    assert examine(compare_predictions).diagnosis == "agreement from the two accuracies"


# --- right answers ---


def argmax_and_mean(logits, quantized_logits, labels):
    before, after = logits.argmax(dim=1), quantized_logits.argmax(dim=1)
    return {
        "accuracy": (before == labels).float().mean().item(),
        "quantized_accuracy": (after == labels).float().mean().item(),
        "agreement": (before == after).float().mean().item(),
    }


def as_tensors(logits, quantized_logits, labels):
    a, b = logits.argmax(-1), quantized_logits.argmax(-1)
    return {
        "agreement": a.eq(b).double().mean(),
        "accuracy": a.eq(labels).double().mean(),
        "quantized_accuracy": b.eq(labels).double().mean(),
    }


def through_numpy(logits, quantized_logits, labels):
    a, b = (np.argmax(x.numpy(), axis=1) for x in (logits, quantized_logits))
    y = labels.numpy()
    return {"accuracy": np.mean(a == y), "quantized_accuracy": np.mean(b == y), "agreement": np.mean(a == b)}


def sums_over_length(logits, quantized_logits, labels):
    a, b = logits.max(dim=1).indices, quantized_logits.topk(1).indices[:, 0]

    def share(x, y):
        return int((x == y).sum()) / len(labels)

    return {"accuracy": share(a, labels), "quantized_accuracy": share(b, labels), "agreement": share(a, b), "n": 3}


def one_by_one(logits, quantized_logits, labels):
    hits = dict.fromkeys(("accuracy", "quantized_accuracy", "agreement"), 0)
    for row, other, label in zip(logits.tolist(), quantized_logits.tolist(), labels.tolist()):
        a, b = row.index(max(row)), other.index(max(other))
        hits["accuracy"] += a == label
        hits["quantized_accuracy"] += b == label
        hits["agreement"] += a == b
    return {key: count / len(labels) for key, count in hits.items()}


RIGHT = [argmax_and_mean, as_tensors, through_numpy, sums_over_length, one_by_one]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("compare_predictions", answer)
