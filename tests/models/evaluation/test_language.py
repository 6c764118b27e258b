"""Perplexity is exp of the mean loss of tokens, however windows fall; continuations are those of transformers."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from labutils import PerAxis, PerGroup, Scheme
from labutils.data import questions
from labutils.data.stand_in import untrained_language_model
from labutils.models import quantize_model
from labutils.models.evaluation import continuation, perplexity

TEXT = "Round to the nearest code, and multiply by the scale: what is lost is the error."


@pytest.fixture(scope="module")
def small():
    return untrained_language_model()


@pytest.fixture(scope="module")
def ids(small):
    return small.encode(TEXT)


def loss_of_token(model, ids, start, i):
    """The loss of token i, predicted from the tokens from `start` on: one model call for one token."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[start:i]])).logits[0, -1]
    return -float(torch.log_softmax(logits, dim=0)[ids[i]])


class Constant(torch.nn.Module):
    """A language model that answers with the same logits for every token."""

    def __init__(self, logits, context=1024):
        super().__init__()
        self.logits = torch.as_tensor(logits, dtype=torch.float32)
        self.embedding = torch.nn.Embedding(len(self.logits), 1)
        self.config = type("Config", (), {"max_position_embeddings": context})

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, **_):
        logits = self.logits.expand(*input_ids.shape, -1)
        return type("Output", (), {"logits": logits, "past_key_values": None})


# --- perplexity ---


@pytest.mark.parametrize("window", [2, 16, 79, 80, 81, 200])
def test_it_is_the_mean_loss_of_all_tokens_but_each_windows_first(small, ids, window):
    assert len(ids) == 80
    losses = [loss_of_token(small.model, ids, i - i % window, i) for i in range(len(ids)) if i % window]
    assert perplexity(small.model, ids, window) == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(16, 4), (16, 15), (16, 16), (30, 7), (200, 1)])
def test_with_a_stride_every_token_but_the_first_is_predicted_once(small, ids, window, stride):
    starts = range(0, len(ids), stride)
    first = [next(start for start in starts if i < start + window) for i in range(len(ids))]  # the window that has it
    losses = [loss_of_token(small.model, ids, start, i) for i, start in enumerate(first) if start < i]
    assert len(losses) == (75 if stride == window else 79)
    assert perplexity(small.model, ids, window, stride) == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_a_model_that_guesses_has_the_vocabularys_size():
    assert perplexity(Constant(np.zeros(7)), [0, 3, 6, 2]) == pytest.approx(7)


def test_a_model_that_is_sure_and_right_has_1_and_one_that_is_wrong_more_than_any_number():
    assert perplexity(Constant([100, 0, 0]), [0, 0, 0, 0]) == 1
    assert perplexity(Constant([1e4, 0, 0]), [0, 1, 1, 1]) == math.inf


def test_a_short_last_window_counts_by_its_tokens():
    """One window of 4 with 3 losses of a, one of 2 with 1 loss of b: (3a + b) / 4, and not the mean of means."""
    model = Constant([2.0, 0.0])
    a, b = -torch.log_softmax(model.logits, 0).double().numpy()
    assert perplexity(model, [0, 0, 0, 0, 0, 1], window=4) == pytest.approx(math.exp((3 * a + b) / 4))


def test_ids_may_be_of_any_library_and_stay_as_they_are(small, ids):
    expected = perplexity(small.model, ids, 16)
    for other in (np.array(ids, np.uint16), torch.tensor(ids, dtype=torch.int32)):
        before = other.copy() if isinstance(other, np.ndarray) else other.clone()
        assert perplexity(small.model, other, 16) == expected
        assert (other == before).all() and other.dtype == before.dtype


def test_a_bar_is_shown_if_asked(small, ids, capsys):
    perplexity(small.model, ids, 16)
    assert capsys.readouterr().err == ""
    perplexity(small.model, ids, 16, progress=True)
    assert "5/5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        ([1, 2, 257], {}, ValueError, "ids must be below the vocabulary's size, 257, and not negative, got 257"),
        ([1, -2, 3], {}, ValueError, "not negative, got -2"),
        ([], {}, ValueError, r"ids must be the token ids of one text, \(n,\), got shape \(0,\)"),
        ([[1, 2]], {}, ValueError, r"got shape \(1, 2\)"),
        ([5], {}, ValueError, "ids must hold at least 2 tokens"),
        ([0.5, 1.0], {}, TypeError, "ids must be whole numbers, got dtype float64"),
        ("text", {}, TypeError, "ids must be token ids, got str"),
        ([1, 2, 3], {"window": 1}, ValueError, "window must be at least 2, got 1"),
        ([1, 2, 3], {"window": 2.0}, TypeError, "window must be a whole number"),
        ([1, 2, 3], {"window": 257}, ValueError, "window must be at most the model's context of 256 tokens, got 257"),
        (
            [1, 2, 3],
            {"window": 8, "stride": 9},
            ValueError,
            "stride must be at most window, 8, or tokens would be left",
        ),
        ([1, 2, 3], {"window": 8, "stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_measured_is_an_error(small, ids, options, error, message):
    with pytest.raises(error, match=message):
        perplexity(small.model, ids, **{"window": 16, **options})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_an_error(value, small):
    with pytest.raises(ValueError, match="the model's logits hold NaN or Inf, in the window that begins at token 0"):
        perplexity(Constant([0, value, 0]), [0, 1, 2])
    with pytest.raises(ValueError, match="the model's logits hold NaN or Inf"):
        continuation(Constant([0.0] * 256 + [value]), small.tokenizer, "Hi")


@pytest.mark.parametrize("model", [None, "model", torch.nn.Linear(2, 2)])
def test_a_model_that_is_none_of_language_is_an_error(small, model):
    with pytest.raises(TypeError, match="model must be a language model of transformers, got"):
        perplexity(model, [1, 2, 3])
    with pytest.raises(TypeError, match="model must be a language model of transformers, got"):
        continuation(model, small.tokenizer, "Hi")


# --- a continuation ---


@pytest.mark.parametrize("prompt", ["H", TEXT])
def test_it_is_what_transformers_generates_greedily(small, prompt):
    ids = torch.tensor([small.encode(prompt)])
    generated = small.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
    assert continuation(small.model, small.tokenizer, prompt, 20) == small.decode(generated[0, ids.shape[1] :])


def test_it_ends_where_the_model_ends_it(small):
    logits = torch.zeros(257)
    logits[small.tokenizer.eos_token_id] = 1
    assert continuation(Constant(logits), small.tokenizer, "Hi") == ""


@pytest.mark.parametrize(
    ("prompt", "new", "error", "message"),
    [
        ("", 5, ValueError, "prompt must not be empty"),
        (None, 5, TypeError, "prompt must be a string, got NoneType"),
        (
            "x" * 252,
            5,
            ValueError,
            "prompt has 252 tokens, which with 5 new ones are more than the model's context of 256",
        ),
        ("Hi", 0, ValueError, "max_new_tokens must be at least 1, got 0"),
        ("Hi", 1.5, TypeError, "max_new_tokens must be a whole number"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_an_error(small, prompt, new, error, message):
    with pytest.raises(error, match=message):
        continuation(small.model, small.tokenizer, prompt, new)


def test_the_context_may_be_filled(small):
    continuation(small.model, small.tokenizer, "x" * 251, 5)


# --- the real model ---


@pytest.fixture(scope="module")
def answers(language):
    """Four windows of the course's own answers."""
    if "4-bit" not in language.source:
        pytest.skip(f"the numbers are those of the 4-bit weights: {language.source}")
    return language.encode(" ".join(answer for _, answer in questions()))[:2048]


@pytest.mark.slow
def test_the_real_models_perplexity(language, answers):
    assert perplexity(language.model, answers, 512) == pytest.approx(60.35, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "expected"),
    [(Scheme(8, granularity=PerAxis(0)), 60.44), (Scheme(4, granularity=PerGroup(32), symmetric=False), 71.9)],
    ids=["8 bits", "4 bits"],
)
def test_what_rounding_costs(language, answers, scheme, expected):
    assert perplexity(quantize_model(language.model, scheme), answers, 512) == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_the_real_model_goes_on_with_sense(language):
    text = continuation(language.model, language.tokenizer, "Once upon a time there was a little girl who", 8)
    assert text.startswith(" ") and len(text.split()) >= 7
