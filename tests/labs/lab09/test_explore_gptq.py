"""explore_gptq shows what the outputs lose while GPTQ goes from column to column."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labutils import PerGroup, Scheme, explore_gptq, fake_quantize
from labutils.labs.answers import gptq_quantize
from labutils.labs.lab09.explore_gptq import BITS, DAMPINGS
from tests.models.problems import problem

W, H = (m.float().numpy() for m in problem(16, 32, rows=300))


@pytest.fixture(scope="module")
def explorer():
    return explore_gptq(W, H, group_size=8)


def part_of(error):
    return np.sum((error @ H) * error) / np.sum((W @ H) * W)


@pytest.mark.parametrize("num_bits", BITS)
@pytest.mark.parametrize("damping", DAMPINGS[::2])
def test_at_the_end_the_readout_is_the_loss_of_the_codes(explorer, num_bits, damping):
    result = explorer.compute({"column": 32, "num_bits": num_bits, "damping": damping})
    q, scales = gptq_quantize(torch.tensor(W), torch.tensor(H), num_bits, 8, damping)
    error = (q * scales.repeat_interleave(8, 1)).numpy() - W
    nearest = fake_quantize(W, Scheme(num_bits, granularity=PerGroup(8))) - W
    assert result.lost == pytest.approx(part_of(error), rel=1e-3)
    assert result.lost_nearest == pytest.approx(part_of(nearest), rel=1e-3)
    assert result.moved == pytest.approx(np.sqrt(np.mean(error**2) / np.mean(nearest**2)), rel=1e-3)


def test_on_the_way_the_columns_to_come_make_up_for_those_that_are_rounded(explorer):
    """With little damping, no other values of the free columns would lose less."""
    for column in (8, 20):
        result = explorer.compute({"column": column, "num_bits": 3, "damping": 0.001})
        error = result.run.states[result.stop]
        best = -error[:, :column] @ H[:column, column:] @ np.linalg.inv(H[column:, column:])
        np.testing.assert_allclose(error[:, column:], best, atol=0.02 * np.abs(best).max())
        assert result.lost < result.lost_nearest


def test_errors_of_weights_grow_where_those_of_outputs_shrink_and_much_damping_is_rounding_to_nearest(explorer):
    end = {"column": 32, "num_bits": 3}
    little, much = (explorer.compute(end | {"damping": damping}) for damping in (0.01, 10.0))
    assert little.lost < 0.5 * little.lost_nearest and little.moved > 1.1
    assert much.moved == pytest.approx(1, abs=0.1)


def test_nothing_is_lost_before_the_first_column(explorer):
    result = explorer.compute({"column": 0, "num_bits": 4, "damping": 0.01})
    assert result.lost == result.lost_nearest == result.moved == 0


def test_the_cursor_moves_without_another_call():
    calls = []

    def counted(*args):
        calls.append(args)
        return gptq_quantize(*args)

    explorer = explore_gptq(W, H, counted, group_size=8)
    for column in (0, 5, 32):
        explorer.controls["column"].value = column
    assert len(calls) == 1
    weight, hessian, *numbers = calls[0]
    assert isinstance(weight, torch.Tensor) and isinstance(hessian, torch.Tensor)
    assert numbers == [3, 8, 0.01]


def test_many_rows_and_columns_are_thinned_out():
    weight, hessian = problem(100, 150)
    explorer = explore_gptq(weight, hessian)
    assert explorer.result.run.states.shape == (65, 24, 150)
    assert explorer.controls["column"].options[0] == 0 and explorer.controls["column"].options[-1] == 150


def undone(*args):
    raise NotImplementedError()


BROKEN = {
    "undone": (undone, "is not done yet"),
    "raises": (lambda *args: 1 / 0, "raised ZeroDivisionError"),
    "None": (lambda *args: None, "it returned None"),
    "codes of another shape": (lambda w, h, *args: (w[:2], w[:, :4]), "q has shape (2, 32)"),
    "one scale a row": (lambda w, h, *args: (w.round(), w[:, :1]), "scales has shape (16, 1), and should have (16, 4)"),
    "scales of 0": (lambda w, h, *args: (w.round(), 0 * w[:, :4]), "should be positive numbers"),
    "NaN": (lambda w, h, *args: (w * float("nan"), w[:, :4].abs()), "q holds NaN or Inf"),
}


@pytest.mark.parametrize("broken, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, broken, sentence):
    def explore(quantize):
        return explore_gptq(W, H, quantize, group_size=8)

    outlives(explore, gptq_quantize, broken, sentence, control="num_bits", step=1, time_limit=2)


@pytest.mark.parametrize(
    ("weight", "hessian", "error", "sentence"),
    [
        (None, H, TypeError, "got NoneType"),
        (W, H[:5, :5], ValueError, "hessian a row and a column for each"),
        (W[0], H, ValueError, "weight must have two axes"),
        (W * np.nan, H, ValueError, "weight must be finite"),
        (W, H * 0, ValueError, "a positive diagonal entry"),
        (W.astype(int), H, TypeError, "got dtype int64"),
    ],
    ids=str,
)
def test_what_cannot_be_explored_is_refused(weight, hessian, error, sentence):
    with pytest.raises(error, match=sentence):
        explore_gptq(weight, hessian)
