"""explore_cache: the bytes of a cache, and what keys and values in few bits cost."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from labutils import explore_cache
from labutils.data.stand_in import untrained_language_model
from labutils.labs import answers
from labutils.labs.lab12._text import evaluation_text
from labutils.labs.lab12.explore_cache import BITS, CONTEXTS, GROUP
from labutils.models import evaluation, kv_cache


@pytest.fixture(scope="module")
def small():
    return untrained_language_model()


@pytest.fixture(scope="module")
def explorer(small):
    return explore_cache(small)


def through_the_packed_cache(language, bits, keys):
    ids = torch.tensor(language.encode(evaluation_text())[:256])
    cache = kv_cache.QuantizedCache(language.model.config, bits, keys=keys, window=0, group_size=GROUP)
    with torch.no_grad():
        logits = language.model(input_ids=ids[None], past_key_values=cache).logits[0]
    return answers.perplexity([(logits, ids)])


@pytest.mark.parametrize("bits", BITS)
def test_perplexities_are_near_those_of_the_packed_cache(explorer, small, bits):
    """Near: a float16 scale is rounded up there, and rounding is not continuous."""
    result = explorer.compute({"num_bits": bits, "tokens": 512})
    for keys, found in (("channel", result.per_channel), ("token", result.per_token)):
        assert found == pytest.approx(through_the_packed_cache(small, bits, keys), rel=0.1 if bits < 4 else 0.02)


def test_at_8_bits_hardly_anything_is_lost(explorer, small):
    ids = small.encode(evaluation_text())[:256]
    in_float = evaluation.perplexity(small.model, ids, window=256)
    result = explorer.compute({"num_bits": 8, "tokens": 256})
    assert result.per_channel == pytest.approx(in_float, rel=0.005)
    assert result.per_token == pytest.approx(in_float, rel=0.005)


@pytest.mark.parametrize("tokens", CONTEXTS)
def test_bytes_are_those_of_the_formula(explorer, small, tokens):
    config = small.model.config
    for bits in BITS:
        result = explorer.compute({"num_bits": bits, "tokens": tokens})
        assert result.bytes == answers.kv_cache_bytes(
            tokens, bits, config.num_hidden_layers, config.num_key_value_heads, config.hidden_size // 4
        )
        assert result.bytes < result.bytes_float


def test_nothing_is_measured_while_a_slider_moves(explorer, monkeypatch):
    monkeypatch.setattr("labutils.labs.lab12.explore_cache._perplexity", lambda *args: pytest.fail("measured again"))
    for bits in BITS:
        explorer.controls["num_bits"].value = bits
        for tokens in CONTEXTS:
            explorer.controls["tokens"].value = tokens
            assert f"{tokens:,} tokens" in explorer._sizes_title.get_text()


def test_a_learners_function_gets_three_axes_and_both_ways_of_sharing(small):
    seen = set()

    def quantize(keys, values, num_bits):
        seen.add((keys.ndim, values.ndim, num_bits))
        return answers.quantize_kv(keys, values, num_bits)

    mine, theirs = explore_cache(small, quantize), explore_cache(small)
    assert {bits for _, _, bits in seen} == set(BITS)
    assert {axes for axes, *_ in seen} == {3}
    assert repr(mine) == repr(theirs)


def undone(keys, values, num_bits):
    raise NotImplementedError()


BROKEN = {
    "undone": (undone, "is not done yet"),
    "raises": (lambda k, v, b: 1 / 0, "raised ZeroDivisionError"),
    "None": (lambda k, v, b: None, "returned None"),
    "one of two": (lambda k, v, b: k, "keys, values"),
    "another shape": (lambda k, v, b: (k[:, :1], v), "keys have shape"),
    "an array": (lambda k, v, b: (k.numpy(), v), "should come back as a torch tensor"),
    "only small ones": (
        lambda k, v, b: (k, v) if len(k) == 2 and k.shape[1] == 4 else 1 / 0,
        "keys and values: division by zero",
    ),
}


@pytest.mark.parametrize("broken, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_sliders_live_on(small, broken, sentence):
    explorer = explore_cache(small, broken)
    assert sentence in explorer.readout.value
    explorer.controls["num_bits"].value = 8
    assert sentence in explorer.readout.value


@pytest.mark.parametrize("wrong", [None, "SmolLM2", 3])
def test_what_is_no_language_model_is_refused(wrong):
    with pytest.raises(TypeError, match="language must be a LanguageModel"):
        explore_cache(wrong)
