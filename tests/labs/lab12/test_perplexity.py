"""perplexity: exp of the mean loss over all predicted tokens, whatever the windows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
F = torch.nn.functional

from labutils.labs.answers import perplexity
from labutils.labs.lab12.perplexity import HAND, HAND_TOKENS, right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes


def window(length, vocabulary=11, seed=0, size=3.0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(length, vocabulary, generator=random) * size
    return logits, torch.randint(0, vocabulary, (length,), generator=random)


@given(st.lists(st.integers(2, 12), min_size=1, max_size=4), st.integers(0, 99))
def test_it_is_torchs_cross_entropy_over_all_windows_together(lengths, seed):
    windows = [window(length, seed=seed + i) for i, length in enumerate(lengths)]
    losses = [F.cross_entropy(logits[:-1].double(), tokens[1:], reduction="none") for logits, tokens in windows]
    assert perplexity(windows) == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-9)


def test_the_hand_example_is_four():
    assert perplexity([(np.log(HAND), HAND_TOKENS)]) == pytest.approx(4, rel=1e-6)


@pytest.mark.parametrize("vocabulary", [2, 7, 300])
def test_a_model_that_knows_nothing_hesitates_among_all_words(vocabulary):
    logits, tokens = window(30, vocabulary)
    assert perplexity([(logits * 0 + 5, tokens)]) == pytest.approx(vocabulary)


@given(st.integers(0, 99))
def test_it_does_not_matter_what_is_added_to_a_row_or_how_windows_are_ordered(seed):
    one, two = window(9, seed=seed), window(4, seed=seed + 1)
    shifted = one[0] + 100 * torch.randn(9, 1, generator=torch.Generator().manual_seed(seed)), one[1]
    assert perplexity([two, shifted]) == pytest.approx(perplexity([one, two]), rel=1e-4)


def test_a_window_of_one_token_predicts_nothing():
    assert perplexity([window(8), window(1)]) == perplexity([window(8)])
    with pytest.raises(ValueError, match="must hold a token that is predicted"):
        perplexity([window(1)])


def test_what_was_thought_impossible_is_infinitely_perplexing_and_no_error():
    logits = torch.zeros(3, 4)
    logits[0, 1], logits[1, 2] = -2000, -2000
    assert perplexity([(logits, torch.tensor([0, 1, 2]))]) == math.inf


def test_the_library_runs_a_model_and_comes_to_the_same():
    pytest.importorskip("transformers")
    from labutils.data.stand_in import untrained_language_model
    from labutils.models import evaluation

    language = untrained_language_model()
    ids = torch.tensor(language.encode("Round to the nearest code, and multiply by the scale."))
    windows = []
    for part in ids.split(24):
        with torch.no_grad():
            windows.append((language.model(input_ids=part[None]).logits[0], part))
    assert len({len(part) for _, part in windows}) == 2, "the last window is shorter"
    assert perplexity(windows) == pytest.approx(evaluation.perplexity(language.model, ids, window=24), rel=1e-5)


LOGITS, TOKENS = np.zeros((3, 4), np.float32), np.zeros(3, int)
BAD = {
    "an array": ((LOGITS,), TypeError, ("windows must be a list", "an array of shape (3, 4)")),
    "None": ((None,), TypeError, ("windows must be a list", "None")),
    "no pair": (([LOGITS],), TypeError, ("a pair",)),
    "no window": (([],), ValueError, ("must hold a token",)),
    "no tokens": (([(LOGITS[:0], TOKENS[:0])],), ValueError, ("(0, 4)",)),
    "floats for tokens": (([(LOGITS, LOGITS[:, 0])],), TypeError, ("whole numbers", "float32")),
    "whole numbers for logits": (([(LOGITS.astype(int), TOKENS)],), TypeError, ("must be floats",)),
    "other lengths": (([(LOGITS, TOKENS[:2])],), ValueError, ("(3, 4) and (2,)",)),
    "a token beyond": (([(LOGITS, TOKENS + 4)],), ValueError, ("from 0 to 3, got 4 to 4",)),
    "a negative token": (([(LOGITS, TOKENS - 1)],), ValueError, ("got -1",)),
    "NaN": (([(LOGITS * np.nan, TOKENS)],), ValueError, ("finite",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_is_no_window_is_refused(args, kind, words):
    refuses(kind, words, perplexity, *args)


def with_cross_entropy(windows):
    total = sum(F.cross_entropy(logits[:-1], tokens[1:], reduction="sum") for logits, tokens in windows)
    return torch.exp(total / sum(len(tokens) - 1 for _, tokens in windows))


def concatenated(windows):
    logits = torch.cat([logits[:-1] for logits, _ in windows])
    tokens = torch.cat([tokens[1:] for _, tokens in windows])
    return F.cross_entropy(logits, tokens).exp().item()


def in_bits(windows):
    bits, count = 0.0, 0
    for logits, tokens in windows:
        for row, token in zip(logits, tokens[1:]):
            bits -= float(row.log_softmax(0)[token]) / math.log(2)
            count += 1
    return 2 ** (bits / count)


def geometric_mean(windows):
    logs = []
    for logits, tokens in windows:
        steady = logits.double() - logits.double().amax(1, keepdim=True)
        probabilities = steady.exp() / steady.exp().sum(1, keepdim=True)
        logs += [math.log(probabilities[t, tokens[t + 1]]) for t in range(len(tokens) - 1)]
    return np.exp(-np.mean(logs))


def in_numpy(windows):
    from scipy.special import log_softmax

    losses = []
    for logits, tokens in windows:
        logits, tokens = logits.numpy().astype(float), tokens.numpy()
        losses.append(-log_softmax(logits[:-1], axis=1)[np.arange(len(tokens) - 1), tokens[1:]])
    return float(np.exp(np.concatenate(losses).mean()))


def loss_of(logits, tokens):
    return F.cross_entropy(logits[:-1], tokens[1:], reduction="sum")


def weighted_means(windows):
    counts = torch.tensor([len(tokens) - 1.0 for _, tokens in windows])
    means = torch.stack([loss_of(*pair) / max(len(pair[1]) - 1, 1) for pair in windows])
    return ((means * counts).sum() / counts.sum()).exp()


def the_recipe(windows):
    return right(windows)


RIGHT = [with_cross_entropy, concatenated, in_bits, geometric_mean, in_numpy, weighted_means, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("perplexity", answer)
