"""explore_text: what a model says with rounded weights, in steps that never block."""

import asyncio
import itertools

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from labutils import PerGroup, Scheme, explore_text
from labutils.data.stand_in import untrained_language_model
from labutils.labs import answers
from labutils.labs.lab12._text import PROMPT, evaluation_text
from labutils.labs.lab12.explore_text import BITS, GROUP_SIZES, NEW_TOKENS
from labutils.models import QuantizedLinear, evaluation, quantize_model

BUSY = 'aria-busy="true"'


@pytest.fixture(scope="module")
def small():
    return untrained_language_model()


@pytest.fixture(scope="module")
def explorer(small):
    return explore_text(small)


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (2, 16), (4, 192)])
def test_perplexity_and_text_are_those_of_the_model_with_rounded_weights(explorer, small, bits, group):
    def rounded(layer):
        return QuantizedLinear(layer, Scheme(bits, granularity=PerGroup(group)))

    model = quantize_model(small.model, rounded, skip=["lm_head"])
    result = explorer.compute({"num_bits": bits, "group_size": group})
    ids = small.encode(evaluation_text())[:256]
    assert result.perplexity == pytest.approx(evaluation.perplexity(model, ids, window=256), rel=1e-4)
    assert result.text == evaluation.continuation(model, small.tokenizer, PROMPT, NEW_TOKENS)


def test_float_is_the_model_as_it_is(explorer, small):
    ids = small.encode(evaluation_text())[:256]
    assert explorer.float_perplexity == pytest.approx(evaluation.perplexity(small.model, ids, window=256), rel=1e-4)
    assert explorer.float_text == evaluation.continuation(small.model, small.tokenizer, PROMPT, NEW_TOKENS)


def test_the_model_is_left_as_it_is(explorer, small):
    before = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    explorer.compute({"num_bits": 2, "group_size": 64})
    assert all(torch.equal(before[name], tensor) for name, tensor in small.model.state_dict().items())


def test_steps_go_from_rounding_over_the_perplexity_to_the_text(explorer):
    results = list(explorer.steps({"num_bits": 5, "group_size": 32}))
    done = [result.done for result in results]
    assert done == sorted(done)
    assert results[0].perplexity is None
    known = [result for result in results if result.perplexity is not None]
    assert known[0].text == ""
    assert [result.tokens for result in known] == [*range(NEW_TOKENS + 1), NEW_TOKENS]
    assert all(b.text.startswith(a.text) or "\ufffd" in a.text for a, b in itertools.pairwise(known))


def test_every_state_can_be_listed_and_none_breaks_the_picture(explorer):
    for bits in BITS:
        explorer.controls["num_bits"].value = bits
        assert f"{bits} bits" in explorer._title.get_text()
    for group in GROUP_SIZES:
        explorer.controls["group_size"].value = group
        assert explorer.result.group_size == group


def test_in_a_kernel_a_moved_slider_does_not_wait(small):
    async def move():
        explorer = explore_text(small)
        explorer.controls["num_bits"].value = 8
        assert explorer.result.perplexity is None, "the first step, and no more"
        for _ in range(2000):
            await asyncio.sleep(0.002)
            if explorer.result.num_bits == 8 and BUSY not in explorer.readout.value:
                return explorer
        return pytest.fail("it never came")

    assert asyncio.run(move()).result.tokens == NEW_TOKENS


def undone(windows):
    raise NotImplementedError()


BROKEN = {
    "undone": (undone, "is not done yet"),
    "raises": (lambda windows: 1 / 0, "raised ZeroDivisionError"),
    "None": (lambda windows: None, "should be a number, but it is None"),
    "an array": (lambda windows: windows[0][0], "should be one number"),
    "negative": (lambda windows: -1.0, "should be a positive number"),
    "NaN": (lambda windows: float("nan"), "should be a positive number"),
}


@pytest.mark.parametrize("broken, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_measure_is_reported_and_the_slider_lives_on(small, broken, sentence):
    explorer = explore_text(small, broken)
    assert sentence in explorer.readout.value
    explorer.controls["num_bits"].value = 4
    assert sentence in explorer.readout.value


def test_a_measure_that_breaks_later_is_reported_and_can_be_mended(small):
    works = [True]

    def perplexity(windows):
        return answers.perplexity(windows) if works[0] else None

    explorer = explore_text(small, perplexity)
    good = explorer.picture.value
    works[0] = False
    explorer.controls["num_bits"].value = 4
    assert "None" in explorer.readout.value
    works[0] = True
    explorer.controls["num_bits"].value = 3
    assert explorer.picture.value == good


@pytest.mark.parametrize("wrong", [None, "SmolLM2", 3])
def test_what_is_no_language_model_is_refused(wrong):
    with pytest.raises(TypeError, match="language must be a LanguageModel"):
        explore_text(wrong)
