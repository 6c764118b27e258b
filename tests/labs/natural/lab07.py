"""Lab 07: ranges by calibration."""

import numpy as np

from tests.labs.natural import mistake


@mistake("percentile_range", "the percentile of x instead of \\|x\\|")
def percentile_of_x(x, percentile=99.9, symmetric=True):
    if symmetric:
        t = float(np.percentile(x, percentile))
        return -t, t
    rest = (100 - percentile) / 2
    return float(np.percentile(x, rest)), float(np.percentile(x, 100 - rest))


@mistake("percentile_range", "both|rest|half|twice|each side")
def all_of_the_rest_on_each_side(x, percentile=99.9, symmetric=True):
    if symmetric:
        t = float(np.percentile(np.abs(x), percentile))
        return -t, t
    return float(np.percentile(x, 100 - percentile)), float(np.percentile(x, percentile))


@mistake("percentile_range", "quantile|fraction|100")
def fraction_for_percent(x, percentile=99.9, symmetric=True):
    t = float(np.percentile(np.abs(x), percentile / 100))
    return -t, t


@mistake("percentile_range", "symmetric")
def symmetric_always(x, percentile=99.9, symmetric=True):
    t = float(np.percentile(np.abs(x), percentile))
    return -t, t


@mistake("percentile_range", "a range from zero")
def low_stays_positive(x, percentile=99.9, symmetric=True):
    if symmetric:
        return 0.0, float(np.percentile(np.abs(x), percentile))
    rest = (100 - percentile) / 2
    return float(np.percentile(x, rest)), float(np.percentile(x, 100 - rest))


FINE = np.linspace(0.02, 1, 50)


def lost(x, low, high, num_bits, symmetric, loss=lambda e: np.mean(e**2)):
    levels = 2 ** (num_bits - 1) - 1 if symmetric else 2**num_bits - 1
    step = (high if symmetric else high - low) / levels
    zero, least = (0, -levels) if symmetric else (np.round(-low / step), 0)
    return loss(x - (np.clip(np.round(x / step) + zero, least, levels) - zero) * step)


def search(x, num_bits, symmetric, fractions=FINE, loss=lambda e: np.mean(e**2), bits=None):
    low, high, peak = min(x.min(), 0), max(x.max(), 0), np.abs(x).max()
    if peak == 0:
        return 0.0, 0.0
    if symmetric:
        ranges = [(-f * peak, f * peak) for f in fractions]
    else:
        ranges = [(f * low, g * high) for f in fractions for g in fractions if g * high > f * low]
    best = ranges[int(np.argmin([lost(x, *ends, bits or num_bits, symmetric, loss) for ends in ranges]))]
    return float(best[0]), float(best[1])


COARSE = np.linspace(0.05, 1, 15)


@mistake("mse_range", "absolute|largest")
def absolute_error(x, num_bits=8, symmetric=True):
    return search(x, num_bits, symmetric, COARSE if not symmetric else FINE, lambda e: np.mean(np.abs(e)))


@mistake("mse_range", "8 bits")
def always_8_bits(x, num_bits=8, symmetric=True):
    return search(x, num_bits, symmetric, COARSE if not symmetric else FINE, bits=8)


@mistake("mse_range", "one factor|one fraction")
def one_fraction_for_both_ends(x, num_bits=8, symmetric=True):
    if symmetric:
        return search(x, num_bits, True)
    low, high = min(x.min(), 0), max(x.max(), 0)
    fractions = FINE
    best = fractions[np.argmin([lost(x, f * low, f * high, num_bits, False) for f in fractions])]
    return float(best * low), float(best * high)


@mistake("mse_range", "half|0.5|search starts|starts")
def search_from_one_half(x, num_bits=8, symmetric=True):
    return search(x, num_bits, symmetric, np.linspace(0.5, 1, 25))


@mistake("mse_range", "root|threshold alone")
def one_number(x, num_bits=8, symmetric=True):
    return search(x, num_bits, True)[1]


def kl(x, num_bits, num_bins, q_of=None, mask=None, values=np.abs):
    peak = float(np.abs(x).max())
    if peak == 0:
        return 0.0, 0.0
    v = values(x)
    counts = np.histogram(v[v != 0], num_bins, range=(0, peak))[0].astype(float)
    levels, best, least = 2 ** (num_bits - 1), num_bins, np.inf
    for keep in range(min(levels, num_bins), num_bins + 1):
        p = counts[:keep].copy()
        level = np.arange(keep) * levels // keep
        q = q_of(p, level) if q_of else spread(p, level)
        p[-1] += counts[keep:].sum()
        both = (p > 0) & (q > 0) if mask else p > 0
        if not q.sum() or not p.sum():
            continue
        with np.errstate(all="ignore"):
            d = np.sum((p / p.sum() * np.log(p / p.sum() / (q / q.sum())))[both])
        if d < least:
            best, least = keep, d
    t = best * peak / num_bins
    return -t, t


def spread(p, level):
    filled = p > 0
    return np.where(filled, (np.bincount(level, p) / np.maximum(np.bincount(level, filled), 1))[level], 0)


@mistake("kl_range", "empty bins")
def empty_bins_of_q_not_zeroed(x, num_bits=8, num_bins=2048):
    return kl(x, num_bits, num_bins, lambda p, level: (np.bincount(level, p) / np.bincount(level))[level])


@mistake("kl_range", "Q is 0|where Q|mask|infin")
def mask_of_both(x, num_bits=8, num_bins=2048):
    return kl(x, num_bits, num_bins, mask=True)


@mistake("kl_range", "\\|x\\|")
def signed_values(x, num_bits=8, num_bins=2048):
    return kl(x, num_bits, num_bins, values=lambda x: x)


@mistake("kl_range", "bins instead|number of bins")
def index_of_the_bin(x, num_bits=8, num_bins=2048):
    t = kl(x, num_bits, num_bins)[1] / (float(np.abs(x).max()) or 1) * num_bins
    return -t, t


def average(batches, momentum, ends, start=None):
    state = start
    for batch in batches:
        new = np.array(ends(batch), dtype=float)
        state = new if state is None else momentum * state + (1 - momentum) * new
    return float(state[0]), float(state[1])


@mistake("moving_average_range", "exchanged|upside|new|momentum")
def momentum_on_the_new(batches, momentum=0.9):
    return average(batches, 1 - momentum, lambda b: (b.min(), b.max()))


@mistake("moving_average_range", "start|zero|0")
def starts_at_zero(batches, momentum=0.9):
    return average(batches, momentum, lambda b: (b.min(), b.max()), np.zeros(2))


@mistake("moving_average_range", "symmetric|magnitude")
def magnitudes(batches, momentum=0.9):
    return average(batches, momentum, lambda b: (-np.abs(b).max(), np.abs(b).max()))


@mistake("moving_average_range", "mean|plain average|average of")
def plain_mean(batches, momentum=0.9):
    return float(np.mean([b.min() for b in batches])), float(np.mean([b.max() for b in batches]))


@mistake("moving_average_range", "0 |zero|includ")
def zero_always_in_the_range(batches, momentum=0.9):
    return average(batches, momentum, lambda b: (min(b.min(), 0), max(b.max(), 0)))
