"""Accuracy of the digits network at few bits: rounded after training, and trained with fake quantization."""

import contextlib
import io

import torch

from labutils import data
from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models import training

BITS = (4, 3, 2)
SEEDS = (0, 1, 2)


def table(progress=lambda rounds, title: rounds):
    """A row for each bit width of the weights: test accuracies in percent. Activations have 8 bits."""
    return [row(num_bits) for num_bits in progress(BITS, "training")]


def row(num_bits, seeds=SEEDS):
    """Accuracy after rounding with either choice of scale, and after training with each seed."""
    network = data.digits_network()
    images, labels = map(torch.from_numpy, data.digits("train"))
    scheme = Scheme(num_bits, granularity=PerAxis(0))
    kernels = {name: w for name, w in network.weights.items() if name.endswith(".weight")}
    largest = network.accuracy({name: fake_quantize(w, scheme) for name, w in kernels.items()})
    cells = {"bits": num_bits, "float32 %": 100 * network.accuracy(), "max of the channel %": 100 * largest}
    for seed in seeds:
        model = training.prepare(data.digits_model(), images, num_bits)
        with contextlib.redirect_stdout(io.StringIO()):
            curve = training.train(model, images, labels, seed=seed, measure=data.digits_accuracy)
        cells |= {"least error %": 100 * curve[0], f"trained, seed {seed} %": 100 * curve[-1]}
    return cells
