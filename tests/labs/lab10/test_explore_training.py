"""explore_training trains with the function under it, and shows what training did to accuracy and weights."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from labutils import data, explore_training
from labutils.labs.answers import fake_quantize_ste


@pytest.fixture(scope="module")
def explorer():
    return explore_training(bits=(2, 4), epochs=1)


def test_bits_and_epoch_are_the_controls_and_move_everything(explorer):
    assert list(explorer.controls) == ["num_bits", "epoch"]
    for name, value in (("epoch", 1), ("num_bits", 4), ("epoch", 0), ("num_bits", 2)):
        before = explorer.picture.value, explorer.readout.value, repr(explorer.result)
        explorer.controls[name].value = value
        assert explorer.picture.value != before[0]
        assert explorer.readout.value != before[1]
        assert repr(explorer.result) != before[2]
        assert explorer.controls[name].description and explorer.controls[name].tooltip


def test_a_picture_depends_on_the_state_alone(explorer):
    explorer.controls["epoch"].value = 0
    first = explorer.picture.value
    explorer.controls["epoch"].value = 1
    explorer.controls["epoch"].value = 0
    assert explorer.picture.value == first


def test_no_update_runs_the_network_again(explorer, monkeypatch):
    monkeypatch.setattr(data, "digits_network", None)
    explorer.controls["epoch"].value = 1
    assert "float32" in explorer.readout.value
    explorer.controls["epoch"].value = 0


def test_epoch_0_is_the_network_rounded_and_the_last_one_is_trained(explorer):
    start, end = (explorer.compute({"num_bits": 2, "epoch": epoch}) for epoch in (0, 1))
    assert [start.accuracy, end.accuracy] == explorer.curves[2]
    assert start.accuracy == start.untrained == end.untrained
    assert start.accuracy < 0.5 < end.accuracy < data.digits_network().accuracy()
    assert start.recoded == 0 and not start.moved.any() and np.array_equal(start.start, start.steps)


def test_the_weights_that_moved_to_another_code_are_those_that_crossed_a_border(explorer):
    result = explorer.compute({"num_bits": 2, "epoch": 1})
    before, now = (np.clip(np.rint(steps), -2, 1) for steps in (result.start, result.steps))
    assert np.array_equal(result.moved, before != now)
    assert 0 < result.moved.mean() < 0.5 and 0 < result.recoded < 0.5


def test_weights_beyond_the_grid_do_not_move(explorer):
    result = explorer.compute({"num_bits": 2, "epoch": 1})
    beyond = (result.start < -2.001) | (result.start > 1.001)
    assert beyond.sum() > 50
    np.testing.assert_allclose(result.steps[beyond], result.start[beyond], rtol=1e-5)


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width >= 900
    assert "bits 2, epoch 0" in bundle["text/plain"] and "0x" not in bundle["text/plain"]


def test_the_network_is_trained_with_the_function_that_was_given():
    calls = []

    def counted(x, scale, num_bits):
        calls.append(num_bits)
        return fake_quantize_ste(x, scale, num_bits)

    explorer = explore_training(counted, bits=(3,), epochs=1)
    assert calls.count(8) > 20 * 8, "each of 8 layers, in each of 20 steps"
    assert list(explorer.curves) == [3]
    assert list(explorer.controls) == ["epoch"], "of one bit width there is nothing to choose"


def test_without_a_gradient_the_weights_stay_where_they_are():
    import torch

    def round_alone(x, scale, num_bits):
        top = 2 ** (num_bits - 1)
        return torch.round(x / scale).clamp(-top, top - 1) * scale

    explorer = explore_training(round_alone, bits=(2,), epochs=1)
    assert explorer.compute({"num_bits": 2, "epoch": 1}).recoded == 0


def undone(x, scale, num_bits):
    raise NotImplementedError()


def endless(x, scale, num_bits):
    while True:
        pass


def breaks_in_training(x, scale, num_bits):
    if x.ndim == 4:
        raise RuntimeError("oh dear")
    return x * 1.0


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (undone, "is not done yet"),
        (endless, "no answer within"),
        (breaks_in_training, "raised RuntimeError in training: oh dear"),
        (lambda x, scale, num_bits: None, "returned None"),
        (lambda x, scale, num_bits: x.detach().numpy(), "should return a torch tensor"),
        (lambda x, scale, num_bits: x[0], "has shape (4,), but x has (3, 4)"),
        (lambda x, scale, num_bits: x / 0, "NaN or Inf"),
        (lambda x, scale, num_bits: x.oh_dear, "raised AttributeError"),
    ],
    ids=["undone", "endless", "in training", "None", "numpy", "shape", "inf", "raises"],
)
def test_a_broken_function_is_reported_and_the_sliders_live_on(monkeypatch, broken, sentence):
    monkeypatch.setattr("labutils.course.explorer.TIME_LIMIT", 0.2)
    explorer = explore_training(broken, bits=(2,), epochs=1)
    assert sentence in repr(explorer)
    explorer.controls["epoch"].value = 1
    assert sentence in explorer.readout.value and explorer.result is None


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ({"bits": ()}, ValueError, "one or more different bit widths"),
        ({"bits": (2, 2)}, ValueError, "different bit widths"),
        ({"bits": (1,)}, ValueError, "between 2 and 16, got 1"),
        ({"bits": ("2",)}, TypeError, "num_bits must be a whole number"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be a whole number"),
    ],
)
def test_widths_and_epochs_that_cannot_be_are_refused(wanted, error, says):
    with pytest.raises(error, match=says):
        explore_training(**wanted)
