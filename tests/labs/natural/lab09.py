"""Lab 09: Hessians, columns rounded one by one, scales and clips by search."""

import torch

from labutils import PerGroup, Scheme, fake_quantize
from tests.labs.natural import mistake


def rows_of(x):
    return x.reshape(-1, x.shape[-1]).float()


@mistake("layer_hessian", "2 is missing")
def gram_matrix(batches):
    return sum(rows_of(x).T @ rows_of(x) for x in batches)


@mistake("layer_hessian", "mean")
def divided_by_count(batches):
    """Running mean, as in GPTQ's published code."""
    total, count = 0, 0
    for x in batches:
        r = rows_of(x)
        total = total + 2 * r.T @ r
        count += len(r)
    return total / count


@mistake("layer_hessian", "last")
def assigned_not_added(batches):
    for x in batches:
        h = 2 * rows_of(x).T @ rows_of(x)
    return h


@mistake("layer_hessian", "first batch")
def returns_in_the_loop(batches):
    h = 0
    for x in batches:
        h += 2 * rows_of(x).T @ rows_of(x)
        return h


@mistake("layer_hessian", "exchanged|tokens")
def tokens_by_tokens(batches):
    return sum(2 * rows_of(x) @ rows_of(x).T for x in batches)


@mistake("layer_hessian", "centred")
def covariance(batches):
    x = torch.cat([rows_of(x) for x in batches])
    x = x - x.mean(0)
    return 2 * x.T @ x


@mistake("layer_hessian", "16 bits")
def no_float(batches):
    h = 0
    for x in batches:
        x = x.reshape(-1, x.shape[-1])
        h = h + 2 * x.T @ x
    return h


@mistake("layer_hessian")
def not_flattened(batches):
    """x.T of three axes."""
    return sum(2 * x.float().T @ x.float() for x in batches)


@mistake("layer_hessian", "mean over the batches")
def mean_of_batches(batches):
    return torch.stack([2 * rows_of(x).T @ rows_of(x) for x in batches]).mean(0)


def prepared(hessian, damping):
    h = hessian.double().clone()
    h.diagonal().add_(damping * h.diagonal().mean())
    h.diagonal()[h.diagonal() == 0] = 1
    return h


def columns(weight, u, num_bits, group_size, step, scale_of=None):
    """`step(w, q, j, scale, u)` makes codes of column j and updates w."""
    w, top = weight.double().clone(), 2 ** (num_bits - 1) - 1
    q, scales = torch.zeros_like(w), []
    for j in range(w.shape[1]):
        if j % group_size == 0:
            group = (w if scale_of is None else scale_of)[:, j : j + group_size]
            scale = group.abs().amax(1) / top
            scale[scale == 0] = 1
            scales.append(scale)
        step(w, q, j, scale, u)
    return q.to(torch.int8), torch.stack(scales, 1)


def rounded(w, scale, num_bits):
    return (w / scale).round().clamp(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)


def upper(hessian, damping):
    return torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)), upper=True)


@mistake("gptq_quantize", "nothing is passed on")
def default_cholesky_is_lower(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """torch's default is the lower factor."""

    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j + 1 :])

    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)))
    return columns(weight, u, num_bits, group_size, step)


@mistake("gptq_quantize", "not divided")
def forgets_the_pivot(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] -= torch.outer(w[:, j] - q[:, j] * scale, u[j, j + 1 :])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_quantize", "added|sign")
def plus_instead_of_minus(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] += torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j + 1 :])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_quantize", "square|inverse")
def the_formula_with_the_inverse(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """OBS's formula with one inverse for all columns."""

    def step(w, q, j, scale, inverse):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] -= torch.outer((w[:, j] - q[:, j] * scale) / inverse[j, j], inverse[j, j + 1 :])

    return columns(weight, torch.linalg.inv(prepared(hessian, damping)), num_bits, group_size, step)


@mistake("gptq_quantize", "of H instead of its inverse|factor of H")
def forgets_to_invert(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j + 1 :])

    u = torch.linalg.cholesky(prepared(hessian, damping), upper=True)
    return columns(weight, u, num_bits, group_size, step)


@mistake("gptq_quantize", "before the updates")
def all_scales_first(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step, scale_of=weight.double())


@mistake("gptq_quantize", "clamp")
def no_clamp(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = (w[:, j] / scale).round()
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_quantize", "mean|damping")
def damping_as_a_number(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:])

    h = hessian.double() + damping * torch.eye(len(hessian), dtype=torch.float64)
    return columns(weight, torch.linalg.cholesky(torch.linalg.inv(h), upper=True), num_bits, group_size, step)


@mistake("gptq_quantize", "code")
def error_in_codes(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j]) / u[j, j], u[j, j:])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_quantize", "in steps")
def error_in_steps(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """The error in steps is passed on, and not in units of the weight."""

    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] -= torch.outer((w[:, j] / scale - q[:, j]) / u[j, j], u[j, j + 1 :])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_quantize", "weights instead of the codes|float")
def returns_weights(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    back = torch.zeros_like(weight)

    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        back[:, j] = (q[:, j] * scale).float()
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:])

    _, scales = columns(weight, upper(hessian, damping), num_bits, group_size, step)
    return back, scales


@mistake("gptq_quantize", "group")
def update_within_the_group(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        end = (j // group_size + 1) * group_size
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:end] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:end])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


def candidates(hessian, count=21, root=True):
    size = hessian.diagonal().sqrt() if root else hessian.diagonal()
    alive = size > 0
    for step in range(count):
        s = torch.where(alive, size, 1.0) ** (step / 20)
        yield torch.where(alive, s / (s[alive].max() * s[alive].min()).sqrt(), 1.0)


def form(error, hessian):
    return float(((error @ hessian) * error).sum())


@mistake("awq_scales", "weights")
def mean_squared_error(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return min(candidates(hessian), key=lambda s: float(((weight - fake_quantize(weight * s, scheme) / s) ** 2).mean()))


@mistake("awq_scales", "divided, and multiplied|multiplied afterwards")
def scales_inverted(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return min(candidates(hessian), key=lambda s: form(weight - fake_quantize(weight / s, scheme) * s, hessian))


@mistake("awq_scales", "taken out|compared")
def not_scaled_back(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return min(candidates(hessian), key=lambda s: form(weight - fake_quantize(weight * s, scheme), hessian))


@mistake("awq_scales", "root")
def squares_for_sizes(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    tried = candidates(hessian, root=False)
    return min(tried, key=lambda s: form(weight - fake_quantize(weight * s, scheme) / s, hessian))


@mistake("awq_scales", "last alpha")
def twenty_values(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    tried = candidates(hessian, count=20)
    return min(tried, key=lambda s: form(weight - fake_quantize(weight * s, scheme) / s, hessian))


@mistake("awq_scales", "silent")
def nothing_for_dead_channels(weight, hessian, num_bits=4, group_size=128):
    scheme, size = Scheme(num_bits, granularity=PerGroup(group_size)), hessian.diagonal().sqrt()
    best, least = None, float("inf")
    for step in range(21):
        s = size ** (step / 20)
        s = s / (s.max() * s.min()).sqrt()
        loss = form(weight - fake_quantize(weight * s, scheme) / s, hessian)
        if loss < least:
            best, least = s, loss
    return best


@mistake("gptq_in_order", "not undone")
def order_forgotten(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    order = hessian.diagonal().argsort(descending=True)
    q, scales = in_order(weight, hessian, order, num_bits, group_size, damping)
    return q[:, order], scales


def in_order(weight, hessian, order, num_bits, group_size, damping, grouped=None):
    top = 2 ** (num_bits - 1) - 1
    groups = (weight if grouped is None else grouped).double().split(group_size, 1)
    scales = torch.stack([g.abs().amax(1) / top for g in groups], 1)
    scales[scales == 0] = 1
    w, u = weight.double()[:, order], upper(hessian[order][:, order], damping)
    q = torch.zeros_like(w)
    for place, j in enumerate(order.tolist()):
        scale = scales[:, j // group_size]
        q[:, j] = rounded(w[:, place], scale, num_bits)
        w[:, place:] -= torch.outer((w[:, place] - q[:, j] * scale) / u[place, place], u[place, place:])
    return q.to(torch.int8), scales


@mistake("gptq_in_order", "quietest")
def ascending(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    return in_order(weight, hessian, hessian.diagonal().argsort(), num_bits, group_size, damping)


@mistake("gptq_in_order", "weights")
def by_size_of_weights(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    order = weight.square().sum(0).argsort(descending=True)
    return in_order(weight, hessian, order, num_bits, group_size, damping)


@mistake("gptq_in_blocks", "never")
def blocks_apart(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def step(w, q, j, scale, u):
        stop = (j // block_size + 1) * block_size
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:stop] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:stop])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_in_blocks", "every column")
def not_in_blocks(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


def clipped(weight, hessian, num_bits, group_size, clips, loss, result=lambda scale, clip: scale, clamp=True):
    top, found = 2 ** (num_bits - 1) - 1, []
    for start in range(0, weight.shape[1], group_size):
        part = slice(start, start + group_size)
        w, full = weight[:, part], weight[:, part].abs().amax(1, keepdim=True) / top
        full[full == 0] = 1
        losses = []
        for clip in clips:
            codes = (w / (clip * full)).round()
            codes = codes.clamp(-top - 1, top) if clamp else codes
            losses.append(loss(w - codes * clip * full, hessian[part, part]))
        best = torch.tensor(clips)[torch.stack(losses).argmin(0)]
        found.append(result(full[:, 0] * best, best))
    return torch.stack(found, 1)


CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def quadratic(error, h):
    return ((error @ h) * error).sum(1)


@mistake("search_clip", "weights")
def clip_by_weights(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    return clipped(weight, hessian, num_bits, group_size, clips, lambda error, h: (error**2).sum(1))


@mistake("search_clip", "clip instead of the scale")
def returns_clips(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    return clipped(weight, hessian, num_bits, group_size, clips, quadratic, lambda scale, clip: clip)


@mistake("search_clip", "clamp")
def clip_without_clamp(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    return clipped(weight, hessian, num_bits, group_size, clips, quadratic, clamp=False)


@mistake("search_clip", "all rows|rows")
def one_clip_for_all_rows(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    def summed(error, h):
        loss = quadratic(error, h)
        return torch.full_like(loss, float(loss.sum()))

    return clipped(weight, hessian, num_bits, group_size, clips, summed)


def step_of(num_bits):
    """The right step."""

    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scale) / u[j, j], u[j, j:])

    return step


@mistake("gptq_quantize", "1 before the damping")
def dead_channels_first(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """In the order of the published code."""
    h = hessian.double().clone()
    h.diagonal()[h.diagonal() == 0] = 1
    return columns(weight, upper(h, damping), num_bits, group_size, step_of(num_bits))


@mistake("gptq_quantize", "as it came")
def error_against_the_original(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    def step(w, q, j, scale, u):
        q[:, j] = rounded(w[:, j], scale, num_bits)
        w[:, j + 1 :] -= torch.outer((weight[:, j] - q[:, j] * scale) / u[j, j], u[j, j + 1 :])

    return columns(weight, upper(hessian, damping), num_bits, group_size, step)


@mistake("gptq_quantize", "wrong order")
def scales_first_in_float32(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    q, scales = columns(weight, upper(hessian, damping), num_bits, group_size, step_of(num_bits))
    return scales.float(), q


@mistake("awq_scales", "worst output")
def judged_by_the_worst_row(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))

    def worst(s):
        error = weight - fake_quantize(weight * s, scheme) / s
        return float(((error @ hessian) * error).sum(1).max())

    return min(candidates(hessian), key=worst)


def blocked(weight, hessian, num_bits, group_size, damping, block_size, behind, copied=False):
    """`behind(u, start, stop, errors)` is what all columns behind a block lose; `copied` blocks are updated apart."""
    u, w, q, scales = upper(hessian, damping), weight.double().clone(), torch.zeros_like(weight), []
    for start in range(0, w.shape[1], block_size):
        stop = min(start + block_size, w.shape[1])
        block = w[:, start:stop].clone() if copied else w[:, start:stop]
        errors = torch.zeros_like(block)
        for i, j in enumerate(range(start, stop)):
            if j % group_size == 0:
                peak = w[:, j : j + group_size].abs().amax(1)
                scale = torch.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
                scales.append(scale)
            q[:, j] = rounded(block[:, i], scale, num_bits)
            errors[:, i] = (block[:, i] - q[:, j] * scale) / u[j, j]
            block[:, i:] -= torch.outer(errors[:, i], u[j, j:stop])
        w[:, stop:] -= behind(u, start, stop, errors)
    return q.to(torch.int8), torch.stack(scales, 1)


def product(u, start, stop, errors):
    return errors @ u[start:stop, stop:]


@mistake("gptq_in_order", "wrong order")
def loudest_first_scales_first(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    order = hessian.diagonal().argsort(descending=True)
    q, scales = in_order(weight, hessian, order, num_bits, group_size, damping)
    return scales, q


@mistake("gptq_in_blocks", "before their block")
def scale_beside_the_copy(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    """As the published code has it."""
    return blocked(weight, hessian, num_bits, group_size, damping, block_size, product, copied=True)


@mistake("gptq_in_blocks", "not divided")
def errors_kept_undivided(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def behind(u, start, stop, errors):
        return (errors * u.diagonal()[start:stop]) @ u[start:stop, stop:]

    return blocked(weight, hessian, num_bits, group_size, damping, block_size, behind)


@mistake("gptq_in_blocks", "first rows")
def rows_from_zero(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def behind(u, start, stop, errors):
        return errors @ u[: stop - start, stop:]

    return blocked(weight, hessian, num_bits, group_size, damping, block_size, behind)


@mistake("gptq_in_blocks", "only the next block")
def next_block_alone(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def behind(u, start, stop, errors):
        moves = errors @ u[start:stop, stop:]
        moves[:, block_size:] = 0
        return moves

    return blocked(weight, hessian, num_bits, group_size, damping, block_size, behind)


@mistake("search_clip", "those given")
def clips_of_the_signature(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    return clipped(weight, hessian, num_bits, group_size, CLIPS, quadratic)


@mistake("search_clip", "clipped weight")
def error_of_the_clipped_weight(weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
    top, found = 2 ** (num_bits - 1) - 1, []
    for start in range(0, weight.shape[1], group_size):
        w, h = (m[:, start : start + group_size] for m in (weight, hessian[start : start + group_size]))
        best = torch.full((len(w),), float("inf"))
        kept = torch.ones(len(w))
        for clip in clips:
            scale = clip * w.abs().amax(1) / top
            scale[scale == 0] = 1
            cut = (w / scale[:, None]).clamp(-top, top)
            loss = quadratic((cut - cut.round()) * scale[:, None], h)
            kept = torch.where(loss < best, scale, kept)
            best = torch.minimum(loss, best)
        found.append(kept)
    return torch.stack(found, 1)
