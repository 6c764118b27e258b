"""The digits and the network that reads them: what the lessons say about them holds, with NumPy alone."""

import json
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.datasets import load_digits

from labutils.data import digits, digits_network
from labutils.data.digits import NETWORK_FILE, DigitsNetwork, weight_shapes


@pytest.fixture(scope="module")
def network():
    return digits_network()


@pytest.fixture(scope="module")
def accuracy(network):
    """Of the trained weights on the test split: 540 images."""
    return network.accuracy()


@pytest.fixture(scope="module")
def unseen():
    return digits("test")


# --- the images ---


@pytest.mark.parametrize("split, count", [("train", 1257), ("test", 540)])
def test_a_split_holds_real_images_in_zero_to_one(split, count):
    images, labels = digits(split)
    assert images.shape == (count, 1, 8, 8) and images.dtype == np.float32
    assert labels.shape == (count,) and labels.dtype == np.int64
    assert (images.min(), images.max()) == (0, 1)
    assert np.array_equal(images * 16, np.rint(images * 16)), "a pixel is a count of 0 to 16, divided by 16"


def test_the_two_splits_are_the_whole_data_set_and_share_no_image():
    everything = load_digits().data
    assert len(np.unique(everything, axis=0)) == len(everything), "no image occurs twice, so rows tell images apart"
    both = np.concatenate([digits(split)[0].reshape(-1, 64) * 16 for split in ("train", "test")])
    assert np.array_equal(np.unique(both, axis=0), np.unique(everything, axis=0))
    assert len(both) == len(everything)


def test_images_keep_their_labels():
    pixels, labels = load_digits(return_X_y=True)
    label_of = {row.tobytes(): label for row, label in zip(pixels, labels)}
    for split in ("train", "test"):
        images, split_labels = digits(split)
        rows = (images.reshape(-1, 64) * 16).astype(pixels.dtype)
        assert [label_of[row.tobytes()] for row in rows] == split_labels.tolist()


def test_every_digit_has_the_same_share_of_both_splits():
    train, test = (np.bincount(digits(split)[1], minlength=10) for split in ("train", "test"))
    assert np.all(np.abs(test - 0.3 * (train + test)) <= 1)


def test_changing_the_images_in_hand_changes_nobody_elses():
    images, labels = digits("test")
    images[:], labels[:] = 0, 0
    assert digits("test")[0].max() == 1 and digits("test")[1].max() == 9


@pytest.mark.parametrize("split", ["validation", "", None, 0, ["test"]])
def test_a_split_that_does_not_exist_is_named(split):
    with pytest.raises(ValueError, match='"train" or "test", not ' + re.escape(repr(split))):
        digits(split)


# --- the network ---


def test_the_network_reads_at_least_98_percent_of_unseen_digits(accuracy):
    assert accuracy >= 0.98


def test_the_network_is_as_accurate_as_its_file_says(accuracy):
    with safe_open(NETWORK_FILE, "np") as file:
        training = json.loads(file.metadata()["training"])
    assert training["split"] == {"stratified": True, "test_size": 0.3, "random_state": 0}
    assert isinstance(training["seed"], int)
    assert abs(accuracy - training["test_accuracy"]) <= 1 / 540, "one image may sit on the fence"


def test_the_network_is_small(network):
    assert NETWORK_FILE.stat().st_size < 1_000_000
    assert sum(w.size for w in network.weights.values()) == 17_802
    assert {name: w.shape for name, w in network.weights.items()} == weight_shapes()
    assert all(w.dtype == np.float32 for w in network.weights.values())


def test_numpy_alone_runs_the_network():
    code = """
import sys

class NoTorch:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is not here")

sys.meta_path.insert(0, NoTorch())
import labutils.data
assert "sklearn" not in sys.modules and "safetensors" not in sys.modules, "importing the module is light"
print(labutils.data.digits_network().accuracy())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) >= 0.98


def torch_activations(images, weights):
    """The same network, written in torch."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    w = {name: torch.tensor(array) for name, array in weights.items()}
    x = torch.tensor(images)
    outputs = {"input": x}
    outputs["stem"] = x = F.relu6(F.conv2d(x, w["stem.weight"], w["stem.bias"], padding=1))
    for block in ("block1", "block2", "block3"):
        depthwise, pointwise = f"{block}.depthwise", f"{block}.pointwise"
        weight, bias = w[f"{depthwise}.weight"], w[f"{depthwise}.bias"]
        outputs[depthwise] = x = F.relu6(F.conv2d(x, weight, bias, padding=1, groups=x.shape[1]))
        outputs[pointwise] = x = F.relu6(F.conv2d(x, w[f"{pointwise}.weight"], w[f"{pointwise}.bias"]))
    outputs["pool"] = x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    outputs["head"] = F.linear(x, w["head.weight"], w["head.bias"])
    return {name: x.numpy() for name, x in outputs.items()}


@pytest.fixture(params=["trained", "random"])
def any_weights(request, network):
    if request.param == "trained":
        return dict(network.weights)
    rng = np.random.default_rng(0)
    return {
        name: (rng.normal(size=w.shape) / np.sqrt(max(w[0].size, 1))).astype(np.float32)
        for name, w in network.weights.items()
    }


@pytest.mark.parametrize("count", [1, 16, 17, 53])
def test_numpy_logits_are_torch_logits(network, any_weights, unseen, count):
    images = unseen[0][:count]
    logits = network.logits(images, any_weights)
    assert logits.shape == (count, 10) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, torch_activations(images, any_weights)["head"], rtol=0, atol=1e-4)


def test_numpy_activations_are_torch_activations(network, any_weights, unseen):
    images = unseen[0][:20]
    expected = torch_activations(images, any_weights)
    activations = network.activations(images, any_weights)
    assert list(activations) == list(expected)
    for name, activation in activations.items():
        assert activation.dtype == np.float32
        np.testing.assert_allclose(activation, expected[name], rtol=0, atol=1e-4, err_msg=name)


def test_relu6_bounds_what_leaves_every_layer_but_the_head(network, unseen):
    activations = network.activations(unseen[0])
    head = activations.pop("head")
    assert all(0 <= a.min() and a.max() <= 6 for a in activations.values())
    assert head.min() < 0 and head.max() > 6


def test_activations_are_the_readers_own(network, unseen):
    images = unseen[0][:2]
    activations = network.activations(images)
    for a in activations.values():
        a[:] = -1
    assert images.min() == 0
    assert network.activations(images)["stem"].min() >= 0


# --- quantizing its weights ---


def rounded(w, num_bits, per_channel):
    """Symmetric quantization and back, written out: the largest value of a tensor (or output channel) sets the step."""
    axes = tuple(range(1, w.ndim)) if per_channel else None
    step = np.abs(w).max(axis=axes, keepdims=True) / (2 ** (num_bits - 1) - 1)
    return np.rint(w / step) * step


@cache
def quantized_accuracy(network, num_bits, per_channel):
    kernels = {name: w for name, w in network.weights.items() if name.endswith(".weight")}
    return network.accuracy({name: rounded(w, num_bits, per_channel) for name, w in kernels.items()})


def noise(*accuracies, images=540):
    """Three standard errors of the difference between accuracies measured on so many images."""
    return 3 * np.sqrt(sum(p * (1 - p) for p in accuracies) / images)


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_eight_bits_cost_nothing(network, accuracy, per_channel):
    full, quantized = accuracy, quantized_accuracy(network, 8, per_channel)
    assert abs(full - quantized) <= noise(full, quantized)


def test_four_bits_cost_nothing_per_channel(network, accuracy):
    full, quantized = accuracy, quantized_accuracy(network, 4, per_channel=True)
    assert abs(full - quantized) <= noise(full, quantized)


@pytest.mark.parametrize("num_bits", [4, 3])
def test_a_scale_for_each_channel_saves_what_one_scale_for_the_tensor_loses(network, num_bits):
    tensor, channel = (quantized_accuracy(network, num_bits, per_channel) for per_channel in (False, True))
    assert channel - tensor > noise(channel, tensor)


def test_three_bits_per_tensor_collapse(network):
    assert quantized_accuracy(network, 3, per_channel=False) < 0.5


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_two_bits_are_too_few_either_way(network, per_channel):
    assert quantized_accuracy(network, 2, per_channel) < 0.5


# --- replacing weights ---


def test_weights_left_out_keep_their_trained_values(network, unseen):
    images = unseen[0][:20]
    shift = np.arange(10, dtype=np.float32)
    replaced = network.logits(images, {"head.bias": network.weights["head.bias"] + shift})
    np.testing.assert_allclose(replaced, network.logits(images) + shift, atol=1e-5)
    assert np.array_equal(network.logits(images, {}), network.logits(images))


def test_replacing_weights_leaves_the_network_as_it_was(network, unseen):
    images = unseen[0][:20]
    before = network.logits(images)
    network.logits(images, {name: np.zeros_like(w) for name, w in network.weights.items()})
    assert np.array_equal(network.logits(images), before)


def test_a_network_that_always_answers_zero_is_right_on_every_zero(network, unseen):
    share_of_zeros = np.mean(unseen[1] == 0)
    silent = {"head.weight": np.zeros((10, 128)), "head.bias": np.eye(10)[0]}
    assert network.accuracy(silent) == pytest.approx(share_of_zeros)


def test_accuracy_counts_the_images_it_is_given(network, unseen):
    images, _ = unseen
    answers = network.logits(images[:10]).argmax(axis=1)
    assert network.accuracy(None, images[:10], answers) == 1
    assert network.accuracy(None, images[:10], (answers + 1) % 10) == 0
    half = np.where(np.arange(10) < 5, answers, (answers + 1) % 10)
    assert network.accuracy(images=images[:10], labels=half.tolist()) == 0.5


def test_trained_weights_cannot_be_written_to(network):
    with pytest.raises(ValueError, match="read-only"):
        network.weights["head.bias"][0] = 1
    with pytest.raises(TypeError):
        network.weights["head.bias"] = np.zeros(10)
    assert digits_network() is network


def test_a_network_keeps_its_own_copy_of_the_weights_it_is_made_from(network):
    weights = {name: w.copy() for name, w in network.weights.items()}
    other = DigitsNetwork(weights)
    weights["head.bias"][:] = 0
    assert np.array_equal(other.weights["head.bias"], network.weights["head.bias"])


# --- what it refuses, and in which words ---

BIAS = np.zeros(10, np.float32)
IMAGE = np.zeros((1, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    "weights, error, says",
    [
        ({"head.weights": BIAS}, ValueError, "no weights named 'head.weights'; it has stem.weight, .*head.bias"),
        ({0: BIAS}, ValueError, "no weights named 0"),
        ({"head.bias": np.zeros((10, 1))}, ValueError, r"head.bias'\] must have the shape \(10\), not \(10, 1\)"),
        ({"stem.weight": np.zeros((32, 3, 3))}, ValueError, r"\(32, 1, 3, 3\), not \(32, 3, 3\)"),
        (
            {"head.bias": BIAS * np.nan},
            ValueError,
            r"bias'\] must be finite, but holds NaN or Inf \(shape \(10,\)",
        ),
        ({"head.bias": BIAS + np.inf}, ValueError, "must be finite"),
        ({"head.bias": BIAS.astype(np.int8)}, TypeError, "floating-point numbers, not ndarray of int8"),
        ({"head.bias": None}, TypeError, "floating-point numbers, not NoneType"),
        ({"head.bias": "0.5"}, TypeError, "floating-point numbers, not str"),
        (BIAS, TypeError, "must map names to arrays.*not ndarray of float32"),
        ("head.bias", TypeError, "must map names to arrays.*not str"),
    ],
)
def test_weights_that_do_not_fit(network, weights, error, says):
    for use in (network.accuracy, lambda w: network.logits(IMAGE, w), lambda w: network.activations(IMAGE, w)):
        with pytest.raises(error, match=says):
            use(weights)


@pytest.mark.parametrize(
    "images, error, says",
    [
        (IMAGE[0], ValueError, r"images must have the shape \(N, 1, 8, 8\), not \(1, 8, 8\)"),
        (IMAGE.reshape(1, 64), ValueError, r"\(N, 1, 8, 8\), not \(1, 64\)"),
        (np.zeros((1, 3, 8, 8)), ValueError, r"not \(1, 3, 8, 8\)"),
        (np.zeros((0, 1, 8, 8)), ValueError, r"not \(0, 1, 8, 8\)"),
        (IMAGE + np.nan, ValueError, r"images must be finite, but holds NaN or Inf \(shape \(1, 1, 8, 8\)"),
        (IMAGE.astype(np.uint8), TypeError, "images must be .* floating-point numbers, not ndarray of uint8"),
        (None, TypeError, "not NoneType"),
        ("seven.png", TypeError, "not str"),
    ],
)
def test_images_that_do_not_fit(network, images, error, says):
    for use in (network.logits, network.activations):
        with pytest.raises(error, match=says):
            use(images)


@pytest.mark.parametrize(
    "labels, error, says",
    [
        (None, ValueError, "images and labels together"),
        ([1, 2], ValueError, r"labels must have the shape \(1,\), one for each image, not \(2,\)"),
        ([[1]], ValueError, r"not \(1, 1\)"),
        ([1.0], TypeError, "array of integers, not list"),
        (["1"], TypeError, "array of integers, not list"),
    ],
)
def test_labels_that_do_not_fit(network, labels, error, says):
    with pytest.raises(error, match=says):
        network.accuracy(None, IMAGE, labels)


def test_labels_alone_are_not_enough(network):
    with pytest.raises(ValueError, match="images and labels together"):
        network.accuracy(labels=[1])


def test_a_network_needs_all_its_weights(network):
    weights = dict(network.weights)
    del weights["stem.bias"]
    with pytest.raises(ValueError, match="also needs weights named stem.bias"):
        DigitsNetwork(weights)
