"""search_clip: every group of every row has the range with which its part of the outputs loses least."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import search_clip
from labutils.labs.lab09.search_clip import CLIPS, right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes
from tests.models.problems import problem


@given(st.integers(0, 1000), st.sampled_from([2, 3, 4]))
def test_each_group_alone_is_the_best_of_the_clips(seed, num_bits):
    weight, hessian = problem(5, 16, seed=seed)
    found, high = search_clip(weight, hessian, num_bits, 8), 2 ** (num_bits - 1) - 1
    for row in range(5):
        for g in range(2):
            w, h = weight[row, 8 * g : 8 * g + 8], hessian[8 * g : 8 * g + 8, 8 * g : 8 * g + 8]

            def lost(scale, w=w, h=h):
                e = w - (w / scale).round().clamp(-high - 1, high) * scale
                return float(e @ h @ e)

            assert lost(found[row, g]) <= min(lost(clip * w.abs().max() / high) for clip in CLIPS) * (1 + 1e-9)


W, H = problem(dtype=torch.float32)
BAD = {
    "no clips": ((W, H, 4, 8, ()), ValueError, ("clips must hold at least one",)),
    "a clip of 2": ((W, H, 4, 8, (2.0,)), ValueError, ("clip is a fraction",)),
    "another Hessian": ((W, H[:3, :3]), ValueError, ("hessian must have shape (20, 20)",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_has_no_clip_is_refused(args, kind, words):
    refuses(kind, words, search_clip, *args)


def ends(num_bits):
    return -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1


def loops(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    low, high = ends(num_bits)
    scales = []
    for row in weight:
        of_row = []
        for start in range(0, len(row), group_size):
            w, h = row[start : start + group_size], hessian[start : start + group_size, start : start + group_size]
            best, least = 1.0, float("inf")
            for clip in clips:
                scale = clip * float(w.abs().max()) / high
                if scale == 0:
                    continue
                e = w - (w / scale).round().clamp(low, high) * scale
                if (loss := float(e @ h @ e)) < least:
                    best, least = scale, loss
            of_row.append(best)
        scales.append(of_row)
    return torch.tensor(scales)


def running_best(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    low, high = ends(num_bits)
    groups = []
    for start in range(0, weight.shape[1], group_size):
        part = slice(start, start + group_size)
        w, h = weight[:, part], hessian[part, part]
        best, least = torch.ones(len(w)), torch.full((len(w),), float("inf"))
        for clip in clips:
            scale = (clip * w.abs().amax(1) / high).clamp_min(1e-38)
            e = w - (w / scale[:, None]).round().clamp(low, high) * scale[:, None]
            loss = torch.einsum("ni,ij,nj->n", e, h, e)
            best, least = torch.where(loss < least, scale, best), torch.minimum(loss, least)
        groups.append(torch.where(w.abs().amax(1) > 0, best, 1.0))
    return torch.stack(groups, 1)


def all_at_once(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    low, high = ends(num_bits)
    scales = []
    for w, h in zip(
        weight.split(group_size, 1),
        [hessian[i : i + group_size, i : i + group_size] for i in range(0, len(hessian), group_size)],
    ):
        full = w.abs().amax(1) / high
        full[full == 0] = 1
        tried = torch.outer(torch.tensor(clips), full)
        e = w - (w / tried[..., None]).round().clamp(low, high) * tried[..., None]
        scales.append(tried.gather(0, ((e @ h) * e).sum(-1).argmin(0, keepdim=True))[0])
    return torch.stack(scales, -1)


def scales_in_numpy(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    (low, high), w, h = ends(num_bits), weight.numpy().astype(float), hessian.numpy().astype(float)
    result = np.ones((len(w), -(-w.shape[1] // group_size)))
    for g in range(result.shape[1]):
        part = slice(g * group_size, (g + 1) * group_size)
        full = np.abs(w[:, part]).max(1) / high
        full = np.where(full > 0, full, 1)
        losses = []
        for clip in clips:
            s = (clip * full)[:, None]
            e = w[:, part] - np.clip(np.rint(w[:, part] / s), low, high) * s
            losses.append(((e @ h[part, part]) * e).sum(1))
        result[:, g] = full * np.array(clips)[np.argmin(losses, axis=0)]
    return result


def the_recipe(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    return right(weight, hessian, num_bits, group_size, clips)


RIGHT = [loops, running_best, all_at_once, scales_in_numpy, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("search_clip", answer)
