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


# Written without a look at the tables of misconceptions.


@mistake("percentile_range")
def percentile_symmetric_halved(x, percentile=99.9, symmetric=True):
    """The symmetric range takes (100 + p) / 2 of the magnitudes: half as much is left outside."""
    if symmetric:
        t = np.percentile(np.abs(x), (100 + percentile) / 2)
        return -t, t
    return np.percentile(x, (100 - percentile) / 2), np.percentile(x, (100 + percentile) / 2)


@mistake("percentile_range")
def percentile_sort_in_place(x, percentile=99.9, symmetric=True):
    """x.sort() sorts the caller's array."""
    if symmetric:
        t = np.percentile(np.abs(x), percentile)
        return -t, t
    x.sort(axis=-1)
    return np.percentile(x, (100 - percentile) / 2), np.percentile(x, (100 + percentile) / 2)


@mistake("percentile_range", "the percentile of x instead of \\|x\\|")
def percentile_of_values(x, percentile=99.9, symmetric=True):
    """The symmetric range takes the percentile of x, not of |x|: outliers below are not seen."""
    if symmetric:
        t = np.percentile(x, percentile)
        return -t, t
    return np.percentile(x, (100 - percentile) / 2), np.percentile(x, (100 + percentile) / 2)


@mistake("percentile_range", "each end loses the whole rest")
def percentile_both_tails(x, percentile=99.9, symmetric=True):
    """Apart, leaves 100 - percentile outside at each end: twice as much in all."""
    if symmetric:
        t = np.percentile(np.abs(x), percentile)
        return -t, t
    return np.percentile(x, 100 - percentile), np.percentile(x, percentile)


@mistake("percentile_range", "percent where a fraction is meant")
def percentile_as_fraction(x, percentile=99.9, symmetric=True):
    """np.quantile with percent: an error, since it wants fractions."""
    if symmetric:
        t = np.quantile(np.abs(x), percentile)
        return -t, t
    return np.quantile(x, (100 - percentile) / 2), np.quantile(x, (100 + percentile) / 2)


def _clipped(x, clip, num_bits):
    """x on the grid of [-clip, clip], and back: what the versions below search with."""
    qmax = 2 ** (num_bits - 1) - 1
    return np.clip(np.round(x / (clip / qmax)), -qmax - 1, qmax) * (clip / qmax)


def _in_range(x, low, high, num_bits, symmetric):
    """x on the grid of a range, and back."""
    if symmetric:
        return _clipped(x, high, num_bits)
    qmax = 2**num_bits - 1
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / qmax
    zero_point = np.round(-low / scale)
    return (np.clip(np.round(x / scale) + zero_point, 0, qmax) - zero_point) * scale


def _lost(x, low, high, num_bits, symmetric):
    return np.mean((x - _in_range(x, low, high, num_bits, symmetric)) ** 2)


def _search(x, num_bits, symmetric, lost=_lost, fractions=np.linspace(0.01, 1, 100)):  # noqa: B008
    """A right search, for the versions that go wrong elsewhere."""
    peak = np.abs(x).max()
    if peak == 0:
        return 0.0, 0.0
    x = x.astype(np.float64)
    if symmetric:
        best = min(fractions * peak, key=lambda c: lost(x, -c, c, num_bits, True))
        return -best, best
    least, most = min(x.min(), 0), max(x.max(), 0)
    ends = [(max(-c, least), min(c, most)) for c in fractions * peak]
    low, high = min(ends, key=lambda e: lost(x, *e, num_bits, False))
    for _ in range(2):
        high = min([high, *(fractions * most)], key=lambda h: lost(x, low, h, num_bits, False) if h > low else np.inf)
        low = min([low, *(fractions * least)], key=lambda v: lost(x, v, high, num_bits, False) if high > v else np.inf)
    return low, high


@mistake("mse_range")
def mse_zero_gives_one(x, num_bits=8, symmetric=True):
    """An all-zero x gives (-1, 1) where (0, 0) is due."""
    return _search(x, num_bits, symmetric) if x.any() else (-1.0, 1.0)


@mistake("mse_range")
def mse_range_without_zero(x, num_bits=8, symmetric=True):
    """Apart, the range is the part of the data only: for all-positive data low is above 0."""
    low, high = _search(x, num_bits, symmetric)
    return (low, high) if symmetric else (max(low, x.min()), min(high, x.max()))


@mistake("mse_range")
def mse_no_zero_case(x, num_bits=8, symmetric=True):
    """Forgets the all-zero x: nan errors, and min takes the first candidate; apart, min of an empty list raises."""
    if x.any():
        return _search(x, num_bits, symmetric)
    ends = [(-c, c) for c in np.linspace(0, 1, 50) * np.abs(x).max() if c > 0]
    return min(ends, key=lambda e: _lost(x, *e, num_bits, symmetric))


@mistake("mse_range")
def mse_coarse(x, num_bits=8, symmetric=True):
    """Only four candidates: 0.25, 0.5, 0.75, 1."""
    return _search(x, num_bits, symmetric, fractions=np.array([0.25, 0.5, 0.75, 1.0]))


@mistake("mse_range", "min-max")
def mse_min_max(x, num_bits=8, symmetric=True):
    """Does not search: the range of the data."""
    peak = np.abs(x).max()
    return (-peak, peak) if symmetric else (min(x.min(), 0), max(x.max(), 0))


def _divergences(counts, levels, change=""):
    """The divergence at each cut; `change` names the one thing that a version below has wrong."""
    found = {}
    for n in range(levels, len(counts) + (change != "last cut missing")):
        kept = counts[:n].astype(float)
        p, q_from = kept.copy(), kept
        if change != "nothing added":
            p[-1] += counts[n:].sum()
        if change == "Q with the cut":
            q_from = p
        level = np.arange(n) * levels // n
        if change == "ceil width":
            level = np.minimum(np.arange(n) // -(-n // levels), levels - 1)
        filled = (kept > 0) if change != "empty bins filled" else np.ones(n, bool)
        total = np.bincount(level, q_from, levels)
        number = np.bincount(level, filled, levels)
        q = np.where(filled, (total / np.maximum(number, 1))[level], 0)
        if change != "not normalized":
            p, q = p / p.sum(), q / max(q.sum(), 1e-300)
        if change == "exchanged":
            p, q = q, p
        if change == "smoothed":
            q = q + 1e-4
        at = p > 0
        if change == "zeros dropped":
            at &= q > 0
        with np.errstate(divide="ignore"):
            found[n] = np.sum(p[at] * np.log(p[at] / q[at]))
    return found


@mistake("kl_range")
def kl_zero_case(x, num_bits=8, num_bins=2048):
    """Forgets the all-zero x: the histogram of nothing raises."""
    magnitudes = np.abs(x[x != 0])
    counts, edges = np.histogram(magnitudes, num_bins, (0, magnitudes.max()))
    found = _divergences(counts, 2 ** (num_bits - 1))
    n = min(found, key=found.get)
    return -edges[n], edges[n]


def _kl(x, num_bits, num_bins, change="", end=lambda n, width: n * width, zeros=False, levels=None):
    magnitudes = np.abs(x[x != 0]) if not zeros else np.abs(x).ravel()
    if not np.any(magnitudes):
        return 0.0, 0.0
    counts, edges = np.histogram(magnitudes, num_bins, (0, float(magnitudes.max())))
    found = _divergences(counts, levels or 2 ** (num_bits - 1), change)
    t = end(min(found, key=found.get), edges[1])
    return -t, t


@mistake("kl_range")
def kl_last_cut_missing(x, num_bits=8, num_bins=2048):
    """range(levels, num_bins) never tries the whole range."""
    return _kl(x, num_bits, num_bins, "last cut missing")


@mistake("moving_average_range")
def average_first_twice(batches, momentum=0.9):
    """Loops over batches[:-1]: the first batch comes twice, and the last one never."""
    low, high = batches[0].min(), batches[0].max()
    for batch in batches[:-1]:
        low = momentum * low + (1 - momentum) * batch.min()
        high = momentum * high + (1 - momentum) * batch.max()
    return low, high


@mistake("moving_average_range")
def average_in_wrong_name(batches, momentum=0.9):
    """Copy and paste: high is updated from low."""
    low, high = batches[0].min(), batches[0].max()
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * batch.min()
        high = momentum * low + (1 - momentum) * batch.max()
    return low, high


@mistake("moving_average_range")
def average_bias_corrected(batches, momentum=0.9):
    """Adam's correction: starts at 0 and divides by 1 - momentum ** n."""
    low = high = 0.0
    for batch in batches:
        low = momentum * low + (1 - momentum) * batch.min()
        high = momentum * high + (1 - momentum) * batch.max()
    correction = 1 - momentum ** len(batches)
    return low / correction, high / correction


@mistake("moving_average_range", "starts at zero")
def average_from_zero(batches, momentum=0.9):
    """Starts at 0, 0 in place of the first batch."""
    low = high = 0.0
    for batch in batches:
        low = momentum * low + (1 - momentum) * batch.min()
        high = momentum * high + (1 - momentum) * batch.max()
    return low, high


@mistake("moving_average_range", "momentum on the wrong side")
def average_momentum_turned(batches, momentum=0.9):
    """Momentum and its complement are exchanged."""
    low, high = batches[0].min(), batches[0].max()
    for batch in batches[1:]:
        low = (1 - momentum) * low + momentum * batch.min()
        high = (1 - momentum) * high + momentum * batch.max()
    return low, high
