"""Train the digits network that ships with the course, fold its batch norm, and write it to one safetensors file.

    python tools/train_digits.py            # about a minute on two cores
    python tools/train_digits.py --check    # train again, and compare the accuracy with that of the shipped file

It trains on the training split and keeps the last epoch, so that the test split influences nothing.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn
from tqdm import tqdm

from labutils.data.digits import ARCHITECTURE, IMAGE_SHAPE, NETWORK_FILE, SPLIT, DigitsNetwork, digits

BATCH = 64
SAME_ACCURACY = 0.01  # two standard errors of an accuracy of 98.5% on 540 images


def float_network():
    """The network of ARCHITECTURE in torch, before its batch norm is folded."""
    layers, channels = nn.Sequential(), IMAGE_SHAPE[0]
    for name, (_, shape) in ARCHITECTURE.items():
        layers.add_module(name.replace(".", "_"), _layer(channels, shape))
        channels = shape[0] if shape else channels
    return layers


def _layer(channels, shape):
    if shape is None:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0])
    out, per_group, size, _ = shape
    conv = nn.Conv2d(channels, out, size, padding=size // 2, groups=channels // per_group, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


def shifted(images, generator):
    """Shift each image by -1, 0 or 1 pixels in both directions, and fill with black. (N, C, H, W) -> (N, C, H, W)"""
    n, _, h, w = images.shape
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    top, left = torch.randint(3, (2, n, 1, 1), generator=generator)
    rows, columns = top + torch.arange(h)[:, None], left + torch.arange(w)  # (N, H, 1), (N, 1, W)
    return padded[torch.arange(n)[:, None, None], :, rows, columns].movedim(-1, 1)


def train(epochs, seed):
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(seed)
    images, labels = map(torch.from_numpy, digits("train"))

    network = float_network()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    progress = tqdm(range(epochs), unit="epoch")
    for _ in progress:
        # The last, short batch is left out, because it would give batch norm noisy statistics.
        for batch in torch.randperm(len(images), generator=generator).split(BATCH)[: len(images) // BATCH]:
            logits = network(shifted(images[batch], generator))
            loss = nn.functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        progress.set_postfix(loss=f"{loss.item():.4f}")
    return network.eval()


def fold(network):
    """Fold batch norm into the convolutions, and return weights and biases: name -> float32 array.

    Batch norm after training is y = gamma * (conv(x) - mean) / sqrt(var + eps) + beta, a scale and a shift per channel,
    which can be moved into the convolution before it (Jacob et al., 2018, arXiv:1712.05877, equation 14).
    """
    weights = {}
    for name, (_, shape) in ARCHITECTURE.items():
        layer = network.get_submodule(name.replace(".", "_"))
        if shape:
            weight, bias = _folded(*layer[:2]) if isinstance(layer, nn.Sequential) else (layer.weight, layer.bias)
            weights |= {f"{name}.weight": weight.detach().numpy(), f"{name}.bias": bias.detach().numpy()}
    return weights


def _folded(conv, norm):
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # (C,)
    return conv.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


def trained(epochs, seed):
    """Train the network and fold it for NumPy; RuntimeError if the folded network computes other logits."""
    network = train(epochs, seed)
    folded = DigitsNetwork(fold(network))
    images, _ = digits("test")
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    difference = np.abs(folded.logits(images) - expected).max()
    if difference > 1e-4:
        raise RuntimeError(f"folding changed the logits by {difference:.1e}")
    print(f"largest logit {np.abs(expected).max():.1f}; folded NumPy and unfolded torch differ by {difference:.1e}")
    return folded


def serialized(network, epochs, seed):
    training = {
        "test_accuracy": network.accuracy(),
        "seed": seed,
        "epochs": epochs,
        "split": {"stratified": True, **SPLIT},
    }
    # A single entry of metadata: safetensors writes several in no fixed order, and the bytes must be reproducible.
    return save(dict(network.weights), metadata={"training": json.dumps(training)})


def write(path, epochs, seed):
    network = trained(epochs, seed)
    path.write_bytes(serialized(network, epochs, seed))
    print(f"{path}: {network.accuracy():.4f} of the test digits read right, {path.stat().st_size:,} bytes")


def check(path):
    """Train again with the epochs and seed in the file's metadata; return whether the accuracy is the same."""
    with safe_open(path, "np") as file:
        shipped = json.loads(file.metadata()["training"])
    network = trained(shipped["epochs"], shipped["seed"])
    accuracy = network.accuracy()
    reproduced = abs(accuracy - shipped["test_accuracy"]) <= SAME_ACCURACY
    identical = serialized(network, shipped["epochs"], shipped["seed"]) == path.read_bytes()
    print(f"shipped {shipped['test_accuracy']:.4f}, now {accuracy:.4f}: {'reproduced' if reproduced else 'DIFFERS'}")
    print(f"bytes: {'identical' if identical else 'different (other versions or another processor round otherwise)'}")
    return reproduced


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=NETWORK_FILE)
    parser.add_argument("--check", action="store_true", help="train --out again as its metadata says, write nothing")
    args = parser.parse_args()
    if args.check:
        sys.exit(not check(args.out))
    write(args.out, args.epochs, args.seed)


if __name__ == "__main__":
    main()
