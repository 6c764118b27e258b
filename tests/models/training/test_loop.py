"""Training on the grid wins back what rounding lost, the same way each time."""

import torch

from labutils import data
from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models.training import (
    prepare,
    train,
)
from tests.models.training.examples import images_and_labels


def test_training_on_the_grid_wins_back_at_least_half_of_what_rounding_lost(two_bits):
    _, (untrained, trained) = two_bits
    network = data.digits_network()
    weights = {n: w for n, w in network.weights.items() if n.endswith(".weight")}
    rounded = network.accuracy(
        {n: affine.fake_quantize(w, Scheme(2, granularity=PerAxis(0))) for n, w in weights.items()}
    )
    lost_from = max(untrained, rounded)
    assert trained - lost_from > 0.5 * (network.accuracy() - lost_from)


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    images, labels = images_and_labels()
    models = [prepare(data.digits_model(), images, num_bits=3) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6)):
        train(model, images, labels, epochs=1, seed=seed)
    first, again, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_fixed_scales_stay_and_learned_ones_move():
    images, labels = images_and_labels()
    for learn in (False, True):
        model = prepare(data.digits_model(), images, num_bits=3, learn_scales=learn)
        before = {name: p.clone() for name, p in model.named_parameters() if name.endswith("_scale")}
        train(model, images, labels, epochs=1)
        moved = [not torch.equal(before[name], p) for name, p in model.named_parameters() if name in before]
        assert all(moved) if learn else not any(moved)


def test_training_measures_before_and_after_each_epoch_and_ends_in_eval_mode_with_the_threads_it_found(capsys):
    images, labels = images_and_labels()
    threads = torch.get_num_threads()
    modes = []
    model = data.digits_model()
    measured = train(model, images, labels, epochs=2, measure=lambda m: modes.append(m.training) or len(modes))
    assert measured == [1, 2, 3] and modes == [False, False, False]
    assert not model.training and torch.get_num_threads() == threads
    shown = capsys.readouterr()
    assert "100%" in shown.out and shown.err == ""
