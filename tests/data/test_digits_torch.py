"""The digits network as a torch module is the NumPy network, in layers that can be swapped and trained."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from labutils.data import digits, digits_accuracy, digits_model, digits_network
from labutils.data.digits import ARCHITECTURE


@pytest.fixture
def model():
    return digits_model()


@pytest.fixture(scope="module")
def unseen():
    return digits("test")


def logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def test_the_module_says_what_the_numpy_network_says(model, unseen):
    expected = digits_network().logits(unseen[0])
    np.testing.assert_allclose(logits(model, unseen[0]), expected, rtol=0, atol=1e-4)
    assert digits_accuracy(model) == pytest.approx(digits_network().accuracy(), abs=1 / 540)


def test_layers_have_the_names_of_the_architecture(model):
    layers = {name: layer for name, layer in model.named_modules() if list(layer.parameters(recurse=False))}
    assert list(layers) == [name for name, (_, shape) in ARCHITECTURE.items() if shape]
    kinds = {name: type(layer) for name, layer in layers.items()}
    assert {name for name, kind in kinds.items() if kind is nn.Conv2d} == {
        "stem",
        "block1.depthwise",
        "block2.depthwise",
        "block3.depthwise",
    }
    assert all(kind is nn.Linear for name, kind in kinds.items() if "pointwise" in name or name == "head")
    assert sum(p.numel() for p in model.parameters()) == 17_802


def test_a_swapped_layer_is_used(model, unseen):
    images = unseen[0][:20]
    before = logits(model, images)
    model.block2.pointwise = nn.Sequential(model.block2.pointwise, nn.Identity())
    assert np.array_equal(logits(model, images), before)
    model.block2.pointwise = nn.Linear(64, 64)
    assert not np.allclose(logits(model, images), before)


def test_each_model_is_the_readers_own(model, unseen):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert digits_accuracy(digits_model()) >= 0.98
    assert digits_network().accuracy() >= 0.98


def test_a_model_survives_copies_and_files(model, unseen):
    images, expected = unseen[0][:20], logits(model, unseen[0][:20])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(logits(other, images), expected)
    other.load_state_dict({name: torch.zeros_like(w) for name, w in other.state_dict().items()})
    other.load_state_dict(model.state_dict())
    assert np.array_equal(logits(other, images), expected)


def test_every_weight_learns(model, unseen):
    images, labels = map(torch.from_numpy, unseen)
    nn.functional.cross_entropy(model(images[:50]), labels[:50]).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_accuracy_counts_the_images_it_is_given(model, unseen):
    images = unseen[0][:10]
    answers = logits(model, images).argmax(axis=1)
    assert digits_accuracy(model, images, answers) == 1
    half = np.where(np.arange(10) < 5, answers, (answers + 1) % 10)
    assert digits_accuracy(model, images, half) == 0.5


@pytest.mark.parametrize("training", [True, False])
def test_accuracy_is_of_the_network_in_eval_mode_and_leaves_its_mode_alone(unseen, training):
    model = nn.Sequential(digits_model(), nn.Dropout(0.9)).train(training)
    assert digits_accuracy(model) >= 0.98
    assert model.training is training


@pytest.mark.parametrize("given", [{"images": np.zeros((1, 1, 8, 8), np.float32)}, {"labels": [1]}])
def test_accuracy_needs_images_and_labels_together(model, given):
    with pytest.raises(ValueError, match="images and labels together"):
        digits_accuracy(model, **given)


def test_the_data_is_there_without_torch():
    code = "import labutils.data, sys; assert 'torch' not in sys.modules; assert 'digits_model' in dir(labutils.data)"
    subprocess.run([sys.executable, "-c", code], check=True)
