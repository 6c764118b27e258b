"""Lab 06's references: what counts as agreement, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import compare_predictions, model_bytes, quantize_model

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


def test_a_quantized_copy_weighs_less_and_the_model_stays():
    from labutils.models.layers import QuantizedLinear

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 10))
    before = model_bytes(model)
    quantized = quantize_model(model, QuantizedLinear.from_float, skip=["1"])
    assert model_bytes(quantized) == before - 64 * 64 * 3 + 64 * 4  # codes for floats, and 64 scales
    assert model_bytes(model) == before
