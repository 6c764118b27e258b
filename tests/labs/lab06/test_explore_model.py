"""explore_model shows what a network with quantized layers stores, and what it still reads."""

import base64
import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from labutils import PerGroup, Scheme, data, explore_model
from labutils.data import digits_accuracy, digits_model
from labutils.labs import answers
from labutils.labs.lab06.explore_model import BITS, GROUP_SIZES
from labutils.models.layers import PackedLinear
from labutils.models.linear import linear_layers

START = {"num_bits": 3, "group_size": 32, "left": "none"}


@pytest.fixture(scope="module")
def explorer():
    return explore_model(digits_model())


def quantized(num_bits, group_size, skip=()):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return answers.quantize_model(digits_model(), lambda layer: PackedLinear(layer, scheme), skip)


@pytest.mark.parametrize(("num_bits", "group_size"), [(8, 16), (4, 32), (3, 8), (2, 128)])
def test_the_readout_is_what_the_quantized_network_reads_and_stores(explorer, num_bits, group_size):
    result = explorer.compute({"num_bits": num_bits, "group_size": group_size, "left": "none"})
    model = quantized(num_bits, group_size)
    assert result.right / 540 == pytest.approx(digits_accuracy(model))
    assert result.size == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert result.replaced == 4


@pytest.mark.parametrize(("left", "place"), [("first", 0), ("last", -1)])
def test_the_layer_left_in_float_is_the_first_or_the_last_linear_one(explorer, left, place):
    result = explorer.compute(START | {"left": left})
    name = list(linear_layers(digits_model()))[place]
    assert result.right / 540 == pytest.approx(digits_accuracy(quantized(3, 32, [name])))
    assert result.replaced == 3
    assert name in dict(explorer.describe(result)).values()


def test_the_first_layer_matters_and_the_last_hardly_does(explorer):
    none, first, last = (explorer.compute(START | {"left": left}).right for left in ("none", "first", "last"))
    assert first - none > 8 > abs(last - none)


def test_eight_bits_change_no_answer_and_two_change_most(explorer):
    assert len(explorer.compute(START | {"num_bits": 8}).changed) == 0
    assert len(explorer.compute(START | {"num_bits": 2}).changed) > 200


def test_changed_answers_are_those_that_differ_from_the_float_networks(explorer):
    result = explorer.compute(START)
    images, labels = data.digits("test")
    with torch.no_grad():
        before = digits_model()(torch.from_numpy(images)).argmax(dim=1).numpy()
    assert np.array_equal(np.flatnonzero(before != result.predictions), result.changed)
    assert result.right == np.count_nonzero(result.predictions == labels)


def test_more_bits_take_more_room(explorer):
    for size in GROUP_SIZES:
        sizes = [explorer._on_map(num_bits, size)[0] for num_bits in BITS]
        assert sizes == sorted(set(sizes))


def test_controls_move_picture_readout_and_result_and_come_back(explorer):
    assert list(explorer.controls) == ["num_bits", "group_size", "left"]
    for name, value in (("num_bits", 5), ("group_size", 8), ("left", "first")):
        control, start = explorer.controls[name], explorer.controls[name].value
        before = explorer.picture.value, explorer.readout.value
        control.value = value
        assert explorer.picture.value != before[0]
        assert explorer.readout.value != before[1]
        control.value = start
        assert (explorer.picture.value, explorer.readout.value) == before
        assert control.description and control.tooltip


def test_compute_is_pure(explorer):
    value = explorer.picture.value
    first, second = explorer.compute(START), explorer.compute(START)
    assert explorer.picture.value == value
    for name in vars(first):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width >= 900
    assert "bits 3" in bundle["text/plain"] and "0x" not in bundle["text/plain"]


def test_the_readout_says_what_noise_is(explorer):
    assert "0.2 percentage points" in explorer.readout.value
    assert "2.2 images" in explorer.readout.value  # sqrt(540 * 0.9907 * 0.0093)


# --- whatever the learner's function does ---


def in_place(model, convert, skip=()):
    for name, layer in linear_layers(model).items():
        if name not in skip:
            path, _, last = name.rpartition(".")
            setattr(model.get_submodule(path), last, convert(layer))
    return model


def test_a_function_that_quantizes_in_place_spoils_no_later_state():
    model = digits_model()
    explorer = explore_model(model, quantize=in_place)
    explorer.controls["num_bits"].value = 2
    explorer.controls["num_bits"].value = 8
    assert explorer.result.right == 535
    assert digits_accuracy(model) == pytest.approx(535 / 540)


def test_layers_that_were_missed_show_in_the_readout():
    def top_only(model, convert, skip=()):
        names = [name for name in linear_layers(model) if "." in name]
        return answers.quantize_model(model, convert, [*names, *skip])

    explorer = explore_model(digits_model(), quantize=top_only)
    assert explorer.result.replaced == 1
    assert "1 of 4" in explorer.readout.value


def raises(*args):
    raise RuntimeError("oh dear")


def undone(*args):
    raise NotImplementedError()


def broken_forward(model, convert, skip=()):
    return torch.nn.Linear(3, 3)


BROKEN = {
    "undone": (undone, "is not done yet"),
    "raises": (raises, "raised RuntimeError: oh dear"),
    "None": (lambda *args: None, "returned None"),
    "no model": (lambda *args: 3, "should return a model"),
    "a model that does not run": (broken_forward, "the returned model raised"),
}


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, broken, sentence):
    outlives(partial(explore_model, digits_model()), answers.quantize_model, broken, sentence, time_limit=2)


@pytest.mark.parametrize(
    ("model", "error", "sentence"),
    [
        (None, TypeError, "must be an nn.Module, got NoneType"),
        (np.zeros(3), TypeError, "must be an nn.Module, got ndarray"),
        (torch.nn.Sequential(torch.nn.ReLU()), ValueError, "has no nn.Linear"),
    ],
    ids=["None", "an array", "nothing to quantize"],
)
def test_what_cannot_be_explored_is_refused(model, error, sentence):
    with pytest.raises(error, match=sentence):
        explore_model(model)
