"""explore_smoothing shows what the scales under it do to a layer with outliers."""

import numpy as np
import pytest

from labutils import explore_smoothing
from labutils.labs.answers import smooth_scales
from labutils.labs.lab08.explore_smoothing import ALPHAS, BITS

rng = np.random.default_rng(0)
X = rng.normal(size=(90, 48)).astype(np.float32)
X[:, 7] *= 40
W = rng.normal(size=(32, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def explorer():
    return explore_smoothing(X, W)


@pytest.mark.parametrize("num_bits", BITS)
@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_the_readout_is_the_error_of_the_layers_output(explorer, alpha, num_bits):
    result = explorer.compute({"alpha": alpha, "num_bits": num_bits})
    scales = smooth_scales(np.abs(X).max(axis=0), W, alpha).astype(np.float64)
    limit = 2 ** (num_bits - 1) - 1
    x, w = X / scales, W * scales
    step, steps = np.abs(x).max() / limit, np.abs(w).max(axis=1, keepdims=True) / limit
    y = (np.round(x / step) * step) @ (np.round(w / steps) * steps).T
    exact = X.astype(np.float64) @ W.T
    sqnr = 10 * np.log10(np.mean(exact**2) / np.mean((exact - y) ** 2))
    assert result.sqnr_db == pytest.approx(sqnr, abs=0.05)  # float32 may decide a tie the other way
    assert result.activation_max == pytest.approx(np.abs(x).max(axis=0), rel=1e-4)
    assert result.weight_max == pytest.approx(np.abs(w).max(axis=0), rel=1e-4)


def test_the_curve_passes_through_every_setting_of_the_slider(explorer):
    for i, alpha in enumerate(ALPHAS[::5]):
        result = explorer.compute({"alpha": float(alpha), "num_bits": 6})
        assert result.curve_db[5 * i] == pytest.approx(result.sqnr_db, abs=0.05)


def test_curves_are_measured_before_a_slider_moves(monkeypatch):
    explorer, calls = explore_smoothing(X, W), []
    measure = explorer._quality
    monkeypatch.setattr(explorer, "_quality", lambda *args: calls.append(args) or measure(*args))
    for num_bits in BITS:
        explorer.compute({"alpha": 0.5, "num_bits": num_bits})
    assert len(calls) == len(BITS), "one for each state, at the slider's alpha"


def test_an_outlier_channel_is_worth_smoothing_and_scales_of_one_change_nothing(explorer):
    assert explorer.compute({"alpha": 0.5, "num_bits": 8}).sqnr_db > explorer.result.plain_db + 6
    idle = explore_smoothing(X, W, scales=lambda a, w, alpha: np.ones(48, np.float32))
    assert idle.result.sqnr_db == idle.result.plain_db


def test_a_learners_function_gets_what_came():
    torch = pytest.importorskip("torch")
    seen = []

    def scales(activation_max, weight, alpha):
        seen.append((type(activation_max), type(weight), alpha))
        return smooth_scales(activation_max, weight, alpha)

    tensors = explore_smoothing(torch.tensor(X).reshape(3, 30, 48), nn_parameter(torch, W), scales=scales)
    assert seen[0] == (torch.Tensor, torch.Tensor, 0.5)
    assert repr(tensors) == repr(explore_smoothing(X, W))


def nn_parameter(torch, w):
    return torch.nn.Parameter(torch.tensor(w))


def undone(*args):
    raise NotImplementedError()


BROKEN = {
    "undone": (undone, "is not done yet"),
    "raises": (lambda a, w, alpha: 1 / 0, "raised ZeroDivisionError"),
    "None": (lambda a, w, alpha: None, "scales should be an array, but it is None"),
    "a scale for each output": (lambda a, w, alpha: np.ones(32), "scales has shape (32,), and should have (48,)"),
    "0": (lambda a, w, alpha: np.zeros(48), "should be positive numbers"),
    "NaN": (lambda a, w, alpha: np.full(48, np.nan), "should be positive numbers"),
    "integers": (lambda a, w, alpha: np.ones(48, int), "scales should hold floats"),
}


@pytest.mark.parametrize("broken, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, broken, sentence):
    def explore(quantize):
        return explore_smoothing(X, W, scales=quantize)

    outlives(explore, smooth_scales, broken, sentence, control="alpha", step=0.4, time_limit=2)


@pytest.mark.parametrize(
    ("x", "w", "error", "sentence"),
    [
        (None, W, TypeError, "got NoneType"),
        (X.astype(int), W, TypeError, "got dtype int64"),
        (X[:, :5], W, ValueError, r"x must have shape \(..., 48\)"),
        (X, W[0], ValueError, "weight must have two axes"),
        (X * np.nan, W, ValueError, "x must be finite"),
        (X, W * np.inf, ValueError, "weight must be finite"),
        (X * 0, W, ValueError, "x needs a value that is not zero"),
        (X[:0], W, ValueError, "must not be empty"),
    ],
    ids=str,
)
def test_what_cannot_be_explored_is_refused(x, w, error, sentence):
    with pytest.raises(error, match=sentence), np.errstate(all="ignore"):
        explore_smoothing(x, w)
