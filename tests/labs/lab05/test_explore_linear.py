"""explore_linear: a layer lies under the roofs of its machine, and its slider outlives a learner's layer."""

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from labutils import explore_linear
from labutils.labs.lab05 import _speed
from labutils.labs.lab05.explore_linear import BATCHES, NAMES, LinearExplorer, Roofs

A100 = Roofs(memory=1.555e12, float32=19.5e12, bfloat16=312e12, int8=624e12)
TOOK = (4.0, 8.0, 1.0, 2.0)  # seconds


@pytest.fixture(scope="module")
def explorer():
    return explore_linear(4096, 4096, roofs=A100)


def results(explorer, form):
    return [explorer.compute({"batch": batch, "bits": form}) for batch in BATCHES]


@pytest.mark.parametrize("form", NAMES)
def test_no_form_is_faster_than_its_bytes_or_its_operations(explorer, form):
    peaks = dict(zip(NAMES, (A100.float32, A100.float32, A100.int8, A100.bfloat16)))
    weight_bytes = dict(zip(NAMES, (4, 9, 1, 0.53125)))
    for result in results(explorer, form):
        seconds, operations = result.expected[result.chosen], 2 * result.batch * 4096**2
        assert result.operations == operations
        assert operations / seconds <= peaks[form] * (1 + 1e-12)
        assert seconds >= weight_bytes[form] * 4096**2 / A100.memory
        assert math.isclose(operations / seconds, min(peaks[form], result.intensity * A100.memory))


@pytest.mark.parametrize("form", NAMES)
def test_larger_batches_are_worth_more_operations_a_byte_and_leave_the_slope_once(explorer, form):
    found = results(explorer, form)
    intensities, limits = [result.intensity for result in found], [result.limit for result in found]
    assert intensities == sorted(intensities)
    assert limits == sorted(limits, reverse=True), "memory first, then arithmetic"
    assert limits[0] == "memory"
    for result in found:
        assert (result.limit == "memory") == (result.intensity < result.ridge)


def test_at_batch_1_speed_follows_the_bytes(explorer):
    first = dict(zip(NAMES, (explorer.compute({"batch": 1, "bits": name}).speedup for name in NAMES)))
    assert first["float32"] == 1
    assert first["8 by 8 bits"] == pytest.approx(4, rel=0.01)
    assert first["dequantized"] == pytest.approx(4 / 9, rel=0.01)
    assert first["4-bit weights"] == pytest.approx(32 / 4.25, rel=0.01)


def test_where_arithmetic_limits_dequantized_weights_gain_nothing_and_integers_do(explorer):
    last = {name: explorer.compute({"batch": 1024, "bits": name}) for name in NAMES}
    assert last["dequantized"].speedup == pytest.approx(1)
    assert last["8 by 8 bits"].speedup == pytest.approx(624 / 19.5)
    assert all(result.limit == "arithmetic" for result in last.values())


def test_dequantizing_is_never_faster_than_float_in_the_model(explorer):
    assert all(result.speedup <= 1 for result in results(explorer, "dequantized"))


def test_the_title_says_which_side_it_is_on(explorer):
    for batch, limit in ((1, "memory"), (1024, "arithmetic")):
        explorer.controls["batch"].value = batch
        assert explorer._roof_title.get_text() == f"Batch {batch}, float32: limited by {limit}"
        assert f"limited by {limit}" in explorer._text


# --- measured points ---


def test_what_was_measured_takes_the_place_of_the_model():
    explorer = LinearExplorer(256, 256, A100, lambda batch: np.multiply(TOOK, batch))
    result = explorer.compute({"batch": 8, "bits": "8 by 8 bits"})
    assert result.measured.tolist() == [32, 64, 8, 16]
    assert result.speedup == 4
    assert "time measured" in dict(explorer.describe(result))
    assert result.limit == "memory", "the limit is the model's"


def test_a_batch_is_measured_once(monkeypatch):
    pytest.importorskip("torch")
    calls = []

    def stopwatch(run, *rest, **more):
        run()
        calls.append(run)
        return 1e-3 * len(calls)

    monkeypatch.setattr(_speed, "shortest", stopwatch)
    measured = _speed.Measured(256, 128)
    assert measured(4) is measured(4)
    assert len(calls) == len(NAMES)
    assert measured(8) != measured(4)


@pytest.mark.parametrize(("seconds", "ahead"), [(60, len(BATCHES)), (0, 1)], ids=["in time", "too slow"])
def test_batches_are_measured_before_the_slider_moves_while_there_is_time(monkeypatch, seconds, ahead):
    pytest.importorskip("torch")
    calls = []
    monkeypatch.setattr(_speed, "AHEAD", seconds)
    monkeypatch.setattr(_speed, "measure_roofs", lambda: A100)
    monkeypatch.setattr(_speed, "shortest", lambda run, *rest, **more: calls.append(run) or 1e-3)
    explorer = explore_linear(128, 128)
    assert len(calls) == ahead * len(NAMES)  # the one that is shown first in any case
    for batch in BATCHES:
        explorer.controls["batch"].value = batch
    assert len(calls) == len(BATCHES) * len(NAMES)


def test_the_shortest_of_several_runs_counts(monkeypatch):
    clock = iter([0, 0, 5, 10, 12, 20, 29, 1000])  # two readings a run, one for the end, one to ask whether it has come
    monkeypatch.setattr(_speed, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(_speed, "PATIENCE", 0)
    runs = []
    assert _speed.shortest(lambda: runs.append("run"), lambda: runs.append("prepare")) == 2
    assert runs == ["run"] + ["prepare", "run"] * 3


def test_this_machine_has_roofs():
    pytest.importorskip("torch")
    roofs = _speed.measure_roofs()
    assert 1e8 < roofs.memory < 1e14
    assert all(1e8 < peak < 1e16 for peak in (roofs.float32, roofs.bfloat16, roofs.int8))
    import torch

    assert torch.get_num_threads() >= 1
    assert _speed.measure_roofs() is roofs


# --- the learner's layer ---


def layer_that(forward):
    import torch

    class QuantizedLinear(torch.nn.Module):
        @classmethod
        def from_float(cls, linear):
            made = cls()
            made.linear = linear
            return made

        def forward(self, x):
            return forward(self.linear(x))

    return QuantizedLinear


def broken(y):
    raise RuntimeError("oh dear")


def undone(y):
    raise NotImplementedError


BROKEN = {
    "raises": (broken, "<code>QuantizedLinear</code> raised RuntimeError: oh dear"),
    "undone": (undone, "<code>QuantizedLinear</code> is not done yet"),
    "None": (lambda y: None, "forward should return shape (1, 128), got NoneType"),
    "another shape": (lambda y: y[:, :3], "forward should return shape (1, 128)"),
}


@pytest.mark.parametrize(("forward", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_layer_is_reported_and_the_slider_lives_on(monkeypatch, forward, sentence):
    pytest.importorskip("torch")
    monkeypatch.setattr(_speed, "shortest", lambda run, *rest, **more: run() is None or 1e-3)
    works = [True]
    layer = layer_that(lambda y: y if works[0] else forward(y))
    explorer = LinearExplorer(128, 128, A100, _speed.Measured(128, 128, layer))
    good = explorer.picture.value
    works[0] = False
    explorer.controls["batch"].value = 2
    assert sentence.replace("(1, 128)", "(2, 128)") in explorer.readout.value
    assert explorer.result is None
    works[0] = True
    explorer.controls["batch"].value = 1
    assert explorer.picture.value == good
    explorer.controls["batch"].value = 2
    assert explorer.result.batch == 2


def test_a_class_without_from_float_is_reported(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(_speed, "shortest", lambda run, *rest, **more: 1e-3)
    monkeypatch.setattr(_speed, "measure_roofs", lambda: A100)
    explorer = explore_linear(128, 128, layer=int)
    assert "has no attribute" in explorer.readout.value


# --- pictures, and what is refused ---


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width >= 900
    assert "limited by memory" in bundle["text/plain"] and "0x" not in bundle["text/plain"]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("out_features", 0, ValueError),
        ("in_features", 100, ValueError),
        ("in_features", -128, ValueError),
        ("out_features", 128.0, TypeError),
        ("out_features", None, TypeError),
    ],
)
def test_a_layer_that_cannot_be_made_is_refused(name, value, kind):
    with pytest.raises(kind, match=name):
        explore_linear(**{name: value}, roofs=A100)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "1", None, True])
def test_a_roof_is_a_positive_number(value):
    with pytest.raises(ValueError, match="int8 must be a positive number"):
        Roofs(memory=1.0, float32=1.0, bfloat16=1.0, int8=value)
