"""The report card: its numbers are those of the model, and text, table and figure say the same."""

import re
from itertools import count

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from labutils import PerGroup, Scheme, file_report_card, report, report_card
from labutils.models import quantize_model
from labutils.models.evaluation import side_by_side as module
from labutils.models.evaluation.side_by_side import side_by_side


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 256, bias=False)).eval()


@pytest.fixture
def small(model):
    return quantize_model(model, Scheme(4, granularity=PerGroup(32)))


@pytest.fixture
def card(model, small):
    return report_card(small, model, quality={"rows": lambda model: len(model[0].weight)}, name="<small>")


def test_its_numbers_are_bytes_over_values(card):
    floats = 4 * 100 * 64
    quantized = card.nbytes - floats
    assert card.float_bytes == 4 * (100 * 64 + 64 * 256)
    assert card.quantized_bits == 8 * quantized / (64 * 256)
    assert card.bits_per_weight == 8 * card.nbytes / (100 * 64 + 64 * 256)
    assert card.quality == {"rows": "100 (float: 100)"}


def test_text_table_and_figure_say_the_same(card):
    sizes = [f"{part.nbytes / 1e6:.3f}" for part in card.parts]
    for said in (card.text, card.html, card.figure.alt):
        assert all(size in said for size in sizes)
    assert "looked up, not multiplied" in card.text and "looked up, not multiplied" in card.html
    assert card.text.startswith("<small>") and "&lt;small&gt;" in card.html
    assert card.figure.png.startswith(b"\x89PNG")


def test_columns_of_the_text_are_aligned(card):
    head, *rows = card.text.splitlines()[-1 - len(card.parts) :]
    assert {row.index(part.form) for row, part in zip(rows, card.parts)} == {head.index("held as")}
    assert {re.search(r"0\.\d{3}", row).end() for row in rows} == {head.index("MB") + len("MB")}


def test_a_notebook_shows_table_and_picture_as_two_outputs(card, capsys):
    card._ipython_display_()
    assert capsys.readouterr().out == f"{card.text}\n{card.figure.alt}\n"
    assert 'src="data:image/png;base64,' in card._repr_html_()


def test_speed_is_the_median_of_ratios_of_one_run(model, small, monkeypatch):
    clock, seconds = [0.0], {id(model): 3.0, id(small): 2.0}
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    calls = count()

    def run(which):
        clock[0] += seconds[id(which)] * (50 if next(calls) in (0, 5) else 1)  # warming up, and one hiccup
        return which(torch.arange(10))

    card = report_card(small, model, run=run)
    assert card.speed == 1.5
    assert "1.50 times that of the float model" in card.text
    with torch.inference_mode():
        a, b = small(torch.arange(10)), model(torch.arange(10))
    cosine = nn.functional.cosine_similarity(a, b).mean()
    assert float(card.quality["cosine to float"]) == pytest.approx(float(cosine), abs=5.1e-5)


@pytest.mark.parametrize(
    "wrap", [lambda y: y, lambda y: (y, None), lambda y: {"logits": y}, lambda y: [{"a": y.numpy()}]]
)
def test_outputs_of_every_kind_are_compared(model, wrap):
    assert side_by_side(model, model, lambda model: wrap(model(torch.arange(10))))[1] == pytest.approx(1)


def test_a_card_without_a_reference_takes_the_dtype_of_the_rest(small):
    assert report_card(small).float_bytes == 4 * (100 * 64 + 64 * 256)
    assert report_card(small.to(torch.bfloat16)).float_bytes == 2 * (100 * 64 + 64 * 256)


def test_one_function_is_a_quality(small):
    assert report_card(small, quality=lambda model: torch.tensor(0.123456)).quality == {"quality": "0.1235"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"run": len}, ValueError, "reference must be the model in float"),
        ({"quality": lambda model: None}, TypeError, "quality must be a number, got None"),
        ({"quality": {"perplexity": lambda model: float("nan")}}, ValueError, "perplexity must be finite"),
        ({"reference": "float"}, TypeError, "must be an nn.Module, got str"),
    ],
)
def test_what_cannot_be_reported_is_refused(small, options, error, message):
    with pytest.raises(error, match=message):
        report_card(small, **options)


def test_outputs_that_cannot_be_compared_are_refused(model):
    other = nn.Sequential(nn.Embedding(100, 32))
    with pytest.raises(ValueError, match=r"other shapes: \(10, 256\) and \(10, 32\)"):
        side_by_side(model, other, lambda model: model(torch.arange(10)))
    with pytest.raises(TypeError, match="run must return a tensor, .* got NoneType"):
        side_by_side(model, model, lambda model: None)


def test_a_model_without_values_is_refused():
    with pytest.raises(ValueError, match="Sequential holds no values"):
        report_card(nn.Sequential())


# --- python -m labutils.report ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, model):
    from safetensors.torch import save_file

    (tmp_path / "small").mkdir()
    save_file(
        {f"a.{name}": tensor for name, tensor in model.state_dict().items()}, tmp_path / "small/model.safetensors"
    )
    return tmp_path / "small"


def test_a_folder_is_reported_as_text_and_as_a_page(folder, capsys):
    assert report.main([str(folder), "--html", str(folder.parent / "card.html")]) == 0
    assert capsys.readouterr().out == file_report_card(folder).text + "\n"
    assert "nothing is quantized" in file_report_card(folder).text
    assert "data:image/png" in (folder.parent / "card.html").read_text()


@pytest.mark.parametrize("wrong", ["nowhere", "cut.gguf", "card.html"])
def test_what_is_no_model_is_said_in_a_line(folder, wrong, capsys):
    (folder.parent / "cut.gguf").write_bytes(b"GG")
    (folder.parent / "card.html").touch()
    assert report.main([str(folder.parent / wrong)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and wrong in captured.err
