"""Shared by all tests: repeatable examples, a temporary progress folder, a browser, trained models, a broken slider."""

import itertools
import os
import re

import pytest
from hypothesis import settings

from labutils.data import language_model, sentence_encoder
from labutils.data.minilm import MiniLMMissing
from labutils.data.smollm2 import LanguageModelMissing

# No deadline, because machines differ in speed; derandomized, so that a rerun draws the same examples.
settings.register_profile("course", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("quick", settings.get_profile("course"), max_examples=10)
settings.load_profile("course")


# The work that takes a worker longest first, so that none is left alone with it at the end. With `--dist loadscope` it
# is given out by the file or class.
LONGEST_FIRST = (
    "tests/browser/test_labs", "tests/site/test_site", "solutions/12", "solutions/09", "solutions/10", "solutions/08",
    "solutions/06", "solutions/07", "tests/classroom/", "tests/browser/", "tests/labs/test_natural_mistakes",
    "tests/tools/test_machines", "tests/labs/test_misconceptions", "tests/notebooks/", "solutions/13",
    "tests/formats/", "tests/course/test_hostile", "solutions/", "tests/models/", "tests/test_",
    "tests/course/test_explorer", "tests/data/", "tests/labs/lab",
)  # fmt: skip
# What `make quick` leaves out besides trained models: pictures, functions that hang, networks that are quantized or
# trained, labs about them, processes that are started, and of the wrong answers those that learners wrote.
SLOW = re.compile(
    r"test_explore|test_hostile|test_a_quantized_model_survives_every_copy|test_natural_mistakes|lab(05|06|09|12)/"
    r"|models/(test_(calibrated|architectures|conversion|awq|gptq|footprint)|cases|evaluation|kv_cache|rotation|training)"
    r"|data/test_(sentences|corpus|gguf)|test_(guard|stepped|doctor|shards|isolated)|missing_is_named|needs_no_torch|numpy_alone"
    r"|labs/.*(best_clip|QuantizedLinear|quantized_matmul|int8_linear|quantize_model|model_bytes|layer_sensitivity"
    r"|allocate_bits|percentile_range|mse_range|kl_range|fake_quantize_ste|awq_scales|gptq|search_clip|layer_hessian"
    r"|perplexity|quantize_kv|hadamard|rotate_linear|kv_cache_bytes|window_split)"
)
USES_A_MODEL = {"trained", "encoder", "language"}


def pytest_collection_modifyitems(items):
    items.sort(key=rank)
    for item in items:
        if SLOW.search(item.nodeid) or USES_A_MODEL & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")


def rank(item):
    """The place of a test's file in LONGEST_FIRST, or behind it."""
    places = (place for place, beginning in enumerate(LONGEST_FIRST) if item.nodeid.startswith(beginning))
    return next(places, len(LONGEST_FIRST))


COUNT = itertools.count()


@pytest.fixture(autouse=True)
def own_progress(monkeypatch, tmp_path_factory):
    """Keep progress in a place of this test's own, not in the user's. To make a folder for each would take longer."""
    monkeypatch.setenv("LABUTILS_PROGRESS", str(tmp_path_factory.getbasetemp() / f"progress-{next(COUNT)}"))


@pytest.fixture(scope="session")
def chromium():
    """Skip the test where there is no browser, except on CI."""
    from tools.browser import find_browser  # most tests do without playwright

    if find_browser() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium or Chrome on this machine")


@pytest.fixture(scope="session")
def trained():
    """MiniLM with its trained weights, not to be changed. Where it is missing, the test is skipped, but fails on CI."""
    return loaded(sentence_encoder)


@pytest.fixture(scope="session")
def language():
    """The language model with its trained weights, as `trained` has MiniLM."""
    return loaded(language_model)


def loaded(load):
    """What `load` returns; where a model is missing, the test is skipped, but fails on CI."""
    try:
        return load()
    except (MiniLMMissing, LanguageModelMissing, ImportError) as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
def encoder(trained):
    """MiniLM with a model that the test may change."""
    return sentence_encoder()


@pytest.fixture
def outlives(monkeypatch):
    """outlives(explore, working, broken, sentence): asserts that an explorer survives a function that breaks.

    While the function is `broken`, the readout holds `sentence` and the picture is another one; when it is `working`
    again, the picture is as before. The slider `control` is moved by `step`; a function that is slow when it works
    needs a longer `time_limit`, in seconds.
    """

    def outlives(explore, working, broken, sentence, control="num_bits", step=1, time_limit=0.2):
        monkeypatch.setattr("labutils.course.explorer.TIME_LIMIT", time_limit)
        works = [True]

        def function(*args):
            return (working if works[0] else broken)(*args)

        explorer = explore(quantize=function)
        slider = explorer.controls[control]
        start, good = slider.value, explorer.picture.value
        works[0] = False
        slider.value = start + step
        assert sentence in explorer.readout.value
        assert explorer.picture.value != good
        works[0] = True
        slider.value = start
        assert explorer.picture.value == good

    return outlives
