"""The benchmarks run, compare like with like, and count right. What they measure is not tested: machines differ."""

import contextlib
import math

import numpy as np
import pytest

pytest.importorskip("nbgrader")
pytest.importorskip("torchao")
pytest.importorskip("playwright")
torch = pytest.importorskip("torch")

from benchmarks import (
    browser,
    decoding,
    encoding,
    explorer,
    grading,
    grids,
    imports,
    language,
    linear,
    memory,
    packing,
    quantize,
    tables,
    training,
)
from benchmarks.candidates import CANDIDATES, GRANULARITIES, run
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.data.stand_in import untrained_language_model


@pytest.mark.parametrize("name", GRANULARITIES)
def test_candidates_reconstruct_alike(name):
    x = torch.randn(256, 384, generator=torch.Generator().manual_seed(1))
    candidates = {candidate: make(GRANULARITIES[name], x.shape) for candidate, make in CANDIDATES.items()}
    assert quantize.disagreement(candidates, x, GRANULARITIES[name]) <= 1.001


def test_a_candidate_that_computes_something_else_is_refused():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    coarse = {"choose": lambda x, _: x.abs().max() / 7, "round": lambda x, scale: (x / scale).round() * scale}
    with pytest.raises(AssertionError, match="different things"):
        quantize.disagreement({"coarse": coarse}, x, GRANULARITIES["per tensor"])


def test_every_step_of_every_candidate_is_run_and_nothing_changes_the_input():
    x = torch.randn(64, 128)
    before = x.clone()
    for make in CANDIDATES.values():
        assert run(make(GRANULARITIES["groups of 32"], x.shape), x).shape == x.shape
    assert torch.equal(x, before)


def test_quantize_tables_have_a_row_for_each_granularity_and_phase():
    (_, whole), (_, phases) = quantize.tables(side=128, repeats=2)
    assert [row["granularity"] for row in whole] == list(GRANULARITIES)
    assert len(phases) == len(GRANULARITIES) * len(quantize.PHASES)
    for row in whole:
        assert all(row[name] > 0 for name in CANDIDATES)
        assert row["torchao / labutils"] == pytest.approx(row["torchao"] / row["labutils"])
    dequantizing = next(row for row in phases if row["phase"] == "dequantize")
    assert math.isnan(dequantizing["torch"]), "torch's fake-quantize makes no codes to dequantize"


def test_a_row_for_each_format_that_torchao_has():
    rows = grids.table(side=128, repeats=1)
    assert [row["format"] for row in rows] == list(grids.THEIRS)
    assert all(row["labutils"] > 0 and row["torchao"] > 0 for row in rows)


def test_packers_pack_the_same_codes():
    q = torch.randint(-8, 8, (16, 64), generator=torch.Generator().manual_seed(2), dtype=torch.int8)
    tasks = packing.tasks(q, torch.randn(16, 256))
    pack_int4 = tasks["pack_int4"]
    for name in ("labutils on NumPy", "torchao, its formula", "torchao pack_uint4"):
        assert np.array_equal(pack_int4[name](), pack_int4[packing.OURS]()), name
    assert torch.equal(packing.torch_pack_int32(torch.arange(-8, 0)), torch.tensor([0x76543210], dtype=torch.int32))
    for task, implementations in tasks.items():
        if task.startswith("unpack"):
            mask = 15 if "4" in task else 7
            expected = np.asarray(implementations[packing.OURS]()) & mask
            for name, unpack in implementations.items():
                assert np.array_equal(np.asarray(unpack()) & mask, expected), (task, name)
    for name, quantize_group in tasks["quantize_group, g128"].items():
        codes, scales = (np.asarray(part) for part in quantize_group())
        expected, steps = (np.asarray(part) for part in tasks["quantize_group, g128"][packing.OURS]())
        assert np.allclose(scales, steps, rtol=1e-5) and np.abs(codes - expected).max() <= 1, name


def test_the_packing_table_has_a_row_for_each_task_and_implementation():
    rows = packing.table(side=256, repeats=1)
    assert {row["what"] for row in rows} >= {"pack_int4", "unpack_int4", "quantize_group, g128"}
    assert all(row["ms"] > 0 for row in rows)
    assert all(row["of labutils"] == 1 for row in rows if row["by"] == packing.OURS)


def test_peak_memory_counts_what_is_held_and_forgets_the_process_that_asks():
    ballast = np.ones(2**24)  # 128 MiB here must not hide what is measured there
    mib = memory.peak_beyond_input("labutils", "per tensor", side=2048) / memory.MIB
    assert 19 < mib < 40, "the reconstruction takes 16 MiB and the codes 4"
    assert ballast.nbytes == 2**27


def test_all_linear_layers_compute_the_same_layer():
    torch.manual_seed(0)
    with torch.inference_mode():
        found = linear.disagreement(linear.candidates(torch.nn.Linear(256, 256)), torch.randn(32, 256))
    assert {name for names in linear.ROWS.values() for name in names} | {linear.FLOAT} == found.keys()
    for name, relative in found.items():
        assert relative < (0.1 if "int4" in name else 0.02), name  # 4 bits, 8 bits


def test_the_linear_tables_have_a_row_for_each_batch():
    eight, four = linear.tables(side=128, repeats=1, batches=(1, 3), threads=(1,))
    assert eight[0] == "8 bits: 128 x 128, 1 thread, times as fast as float32"
    assert [row["batch"] for row in eight[1]] == [row["batch"] for row in four[1]] == [1, 3]
    assert all(value > 0 for row in eight[1] + four[1] for value in row.values())


def test_the_encoding_table_says_what_each_model_keeps(trained):
    rows = {row["MiniLM"]: row for row in encoding.table(count=8, repeats=1)}
    assert float(rows[encoding.FLOAT]["mean cosine"]) == 1.0
    assert float(rows["labutils W8A8"]["mean cosine"]) > 0.99
    assert float(rows["labutils W8A8"]["MB"]) < 0.7 * float(rows[encoding.FLOAT]["MB"])


def test_all_language_models_that_decode_are_the_same_model():
    models = decoding.candidates(untrained_language_model().model)
    ids = torch.arange(100, 120)[None]
    with torch.inference_mode():
        logits = {name: model(ids).logits.float() for name, model in models.items()}
    exact = logits[decoding.FLOAT]
    for name, found in logits.items():
        bits = next((b for b in (2, 3, 4) if f"{b} bits" in name or f"int{b}" in name), 8)
        assert float((found - exact).norm() / exact.norm()) < {8: 0.15, 4: 0.6, 3: 1.0, 2: 1.3}[bits], name


def test_every_language_model_writes_in_every_round():
    written = []
    writers = {name: lambda tokens, name=name: written.append((name, tokens)) for name in "ab"}
    assert {name: len(seconds) for name, seconds in decoding.interleaved(writers, 1, 3, 5).items()} == {"a": 3, "b": 3}
    assert written == 4 * [("a", 5), ("b", 5)]  # the first round warms up
    found = {"seconds": {decoding.FLOAT: [4.0, 8.0, 2.0], "twice": [2.0, 4.0, 2.0]}}
    assert decoding.speed_up(found, "twice") == 2.0


def test_the_language_tables_measure_what_is_quantized():
    """An untrained model has little to lose: in 8 bits nothing happens, in whatever way they are chosen."""
    bench = language.Bench(untrained_language_model(), windows=1, length=64, calibrated=2)
    floats = bench.perplexity(bench.model)
    ((title, rows),) = language.weights(bench, {"8 bits": Scheme(8, granularity=PerGroup(32))})
    assert title == f"8 bits (float: {floats:.2f})"
    assert [row["weights"] for row in rows] == [start + rounding for start, rounding in language.MAIN]
    assert all(row["perplexity"] == pytest.approx(floats, rel=0.02) for row in rows)
    ((_, rows),) = language.cache(bench, widths=(8,))
    assert all(row["8 bits"] == pytest.approx(floats, rel=0.02) for row in rows)


def test_the_first_token_alone_is_left_out_of_the_calibration():
    bench = language.Bench(untrained_language_model(), windows=1, length=16, calibrated=2)
    seen = {name: [] for name in language.CALIBRATIONS}
    embedding = bench.model.get_input_embeddings()
    cached = [language.first_cached(bench.model, window[:, :1], window[:, 1:]) for window in bench.batches]
    for name, calibrate in language.CALIBRATIONS.items():
        with embedding.register_forward_pre_hook(lambda layer, args, name=name: seen[name].extend(args[0][0].tolist())):
            for batch in cached:
                calibrate(bench.model, batch)
    every, rest = seen.values()
    assert every == bench.batches.flatten().tolist()
    assert rest == bench.batches[:, 0, 1:].flatten().tolist()


def test_the_grading_table_has_a_row_for_each_way_to_grade(monkeypatch):
    seconds = {"nbgrader": 60.0, "--workers=1": 48.0, "--workers=2": 24.0}
    monkeypatch.setattr(grading, "course", lambda lab: contextlib.nullcontext("a course"))
    monkeypatch.setattr(grading, "hand_in", lambda *_: None)
    monkeypatch.setattr(grading, "graded", lambda _, command: seconds[{*command}.intersection(seconds).pop()])
    rows = grading.table(students=12)
    assert [row["s for a submission"] for row in rows] == [5, 4, 2]
    assert [row["times as fast"] for row in rows] == [1, 1.25, 2.5]


def test_every_explorer_update_computes_anew():
    rows = explorer.table(("explore_granularity", "explore_groups"), size=1000, repeats=1)
    assert [(row["explorer"], row["control"], row["updates"]) for row in rows] == [
        ("explore_granularity", "num_bits", 7),
        ("explore_granularity", "spread", 8),
        ("explore_granularity", "granularity", 3),
        ("explore_groups", "num_bits", 7),
        ("explore_groups", "group_size", 5),
    ]
    assert all(row["p95 ms"] >= row["median ms"] > 0 for row in rows)


@pytest.mark.parametrize("name", [name for name in explorer.NAMES if name not in explorer.OPENINGS])
def test_an_explorer_that_no_table_mentions_is_opened_over_values(name):
    assert explorer.opened(name, size=1000)._x.size == 1000


def test_stops_are_values_of_the_control_from_end_to_end():
    controls = explorer.opened("explore_granularity", size=100).controls
    assert explorer.stops(controls["num_bits"]) == list(range(2, 9))
    assert explorer.stops(controls["spread"]) == [1, 15, 29, 43, 58, 72, 86, 100]
    assert explorer.stops(controls["granularity"]) == ("tensor", "axis 0", "axis 1")


def test_setting_a_control_to_the_value_it_has_is_still_an_update():
    seen = []
    bits = explorer.opened("explore_bits", size=100)
    control = bits.controls["num_bits"]
    bits.picture.observe(lambda change: seen.append(control.value), names="value")
    explorer.update(control, control.value)
    assert seen[-1] == control.value
    assert len(seen) == 2


GRANULARITY = "opened('explore_granularity', 1000)"
SLOW = """
def slow(x, num_bits):
    time.sleep(0.4)
    return answers.quantize_asymmetric(x, num_bits)

explore_zero_point(np.linspace(-1, 1, 100), quantize=slow)
"""
COUNT = """
(area) => {
    window.pictures = 0;
    new MutationObserver(() => { window.pictures += 1 })
        .observe(area.querySelector('img'), {attributes: true, attributeFilter: ['src']});
}
"""


@pytest.fixture(scope="module")
def show(chromium):
    setup = f"{browser.SETUP}; import time; import numpy as np; from labutils import answers, explore_zero_point"
    with browser.explorers_in_browser(setup, SLOW, GRANULARITY) as show:
        yield show


@pytest.mark.browser
def test_every_control_is_timed_in_a_browser_and_sliders_are_dragged(show):
    controls = show(GRANULARITY).locator(browser.CONTROLS).all()
    rows = [browser.row(control, presses=3, drags=1) for control in controls]
    assert [row["control"] for row in rows] == ["bits", "spread ×", "scale per"]
    assert all(0 < row["median ms"] <= row["p95 ms"] for row in rows)
    assert [math.isnan(row["after a drag ms"]) for row in rows] == [False, False, True]


@pytest.mark.browser
def test_a_drag_over_a_slow_function_ends_on_the_last_value_without_backlog(show):
    area = show(SLOW)
    area.evaluate(COUNT)
    shift = area.locator(browser.CONTROLS).last
    browser.after_drags(shift, drags=1)  # raises where the picture at the end is another value's
    assert area.evaluate("() => window.pictures") < 15, "41 values lay under the mouse"


def test_import_labutils_is_light():
    light, numpy = imports.table(statements=("import labutils", "import numpy"), repeats=1)
    assert light["loads"].startswith("none of")
    assert numpy["loads"] == "numpy"


def test_a_table_is_markdown():
    rows = [{"what": "a", "ms": 1.234}, {"what": "b", "ms": float("nan")}]
    assert tables.markdown(rows).splitlines() == ["| what | ms |", "|---|---:|", "| a | 1.23 |", "| b | - |"]


def test_a_ratio_to_nothing_is_no_number():
    assert tables.ratio(3.0, 2.0) == 1.5
    assert math.isnan(tables.ratio(3.0, 0.0))


def test_training_has_a_row_of_shares_for_each_width():
    row = training.row(2, seeds=(0,))
    assert list(row) == ["bits", "float32 %", "max of the channel %", "least error %", "trained, seed 0 %"]
    assert row["bits"] == 2
    assert max(row["least error %"], row["max of the channel %"]) < row["trained, seed 0 %"] < 100
