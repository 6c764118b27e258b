# %% [markdown]
# # 07 · Calibration: where to clip
#
# **Time:** 85 minutes; stretch: 10 more. **You need:** labs 01 and 02, NumPy; for whole networks PyTorch.
#
# At the end of this lab you can
#
# - draw what a range costs, rounding and clipping apart, and say where the sum is least,
# - choose a range by percentile, by squared error and by KL divergence, from data that do not fit into memory,
# - quantize a network's activations with fixed ranges, or with ranges found as they come, and say what each costs,
# - tell when a method that is best in a paper is worst on your tensor.

# %%
import numpy as np

from labutils import (
    Scheme,
    calibration,
    check,
    data,
    explore_calibration,
    fake_quantize,
    or_reference,
    predict,
    qparams_of_range,
    sqnr_db,
    theory,
)

# %% [markdown]
# ## Why
#
# Weights lie still: you can look at all of them and choose a scale. Activations are different for every input, and often
# the scale must be fixed before the first one comes. It is chosen on a **[calibration](../docs/glossary.md#calibration) set**, some inputs that stand for all
# others. Here are the activations after one layer of the digits network, for 64 images. They are quantized to 4 bits
# twice, once with the grid up to the largest of them, once with a grid that ends at half of it:

# %%
network = data.digits_network()
images, _ = data.digits("train")
x = network.activations(images[:64])["block2.pointwise"]


def in_range(x, low, high, num_bits, symmetric=True):
    """x on the grid of [low, high], and back."""
    scheme = Scheme(num_bits, symmetric=symmetric)
    return fake_quantize(x, scheme, qparams_of_range(low, high, scheme, like=x))


for part in (1, 0.5):
    end = part * float(x.max())
    print(f"up to {end:.2f}: SQNR {sqnr_db(x, in_range(x, -end, end, 4)):4.1f} dB")

# %% [markdown]
# Five decibels, most of what a whole bit is worth, for one number that was chosen better. Nothing else has changed. This
# lab is about choosing that number.

# %% [markdown]
# ## Play first
#
# On the left is the histogram, on a logarithmic axis; what lies in the orange area is clipped. On the right is the
# noise against the clip: from rounding, from clipping, and both. The marks are where four methods would clip: at the
# largest value ([min-max](../docs/glossary.md#min-max)), where 99.9% of the values lie below, where the squared error is least (MSE), and by KL
# divergence. You will write the last three. The circle is what is measured at your slider.
#
# **Predict** first.

# %%
explorer = explore_calibration(x)
at_8 = explorer.compute({"num_bits": 8, "clip": 1.0})
predict(
    "At 4 bits, which fraction of the largest activation is the best clip?",
    explorer.result.best_clip / float(x.max()),
    tolerance=0.1,
)

# %%
predict(
    "At 8 bits: how many decibels better than min-max is the 99.9th percentile? "
    "(Below 0 if it is worse.)",
    at_8.marks["99.9%"].sqnr_db - at_8.marks["min-max"].sqnr_db,
    unit="dB",
    tolerance=2,
)

# %% [markdown]
# **Drag** the clip from right to left at 4 bits, then the bits from 2 to 8. **Observe** how the dashed curve moves and the
# dotted one stays, and which marks move.

# %%
explorer

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>Why does the best clip move with the bits, and why do two of the marks stay where they are?</summary>
#
# A bit more makes the steps half as wide, and rounding noise four times smaller, at every clip. What clipping costs
# does not depend on the bits. So the minimum moves to the right: with more bits, clip less. The marks of min-max and
# of the percentile do not move, since neither knows the bit width. At 4 bits the percentile is far better than
# min-max; at 8 it is far worse.
#
# </details>

# %% [markdown]
# ## The minimum, computed
#
# If you know the distribution, you need no data. Let $f$ be the density of $x$, $c$ the clip, and $Q(x)$ the nearest level
# of the grid on $[-c, c]$. Then
#
# $$\text{noise}(c) = \underbrace{\int_{|x| \le c} (x - Q(x))^2 f(x)\,dx}_{\text{rounding, about } \Delta^2/12} +
# \underbrace{\int_{|x| > c} (|x| - c)^2 f(x)\,dx}_{\text{clipping}}, \qquad \Delta = \frac{c}{2^{b-1} - 1}.$$
#
# `theory` has both parts in closed form for two distributions: the Gaussian, and the **Laplace** distribution, $f(x) =
# e^{-|x|} / 2$, whose tails are heavier, as those of activations often are. Its minimum should be where samples have theirs.
# `calibration.MSE` finds that by trying; you will write it yourself in a moment. ACIQ (Banner et al., 2019) computes the
# clip from the same idea with two simplifications: $2^b$ steps in place of $2^b - 2$, and $\Delta^2/12$ everywhere.

# %%
from scipy.special import lambertw

rng = np.random.default_rng(0)
sources = {"Gaussian": rng.normal(size=10**6), "Laplace": rng.laplace(size=10**6)}
best_clip = {"Gaussian": theory.gaussian_best_clip, "Laplace": theory.laplace_best_clip}
print("        Gaussian, clip in σ        Laplace, clip in mean |x|")
print("bits    theory   a million         theory   a million   ACIQ")
clips = {name: [] for name in sources}
for num_bits in range(2, 9):
    row = []
    for name, samples in sources.items():
        found = calibration.MSE(num_bits).observe(samples).range()[1]
        clips[name].append(found)
        row.append(f"{best_clip[name](num_bits):8.2f} {found:10.1f}")
        assert abs(found / best_clip[name](num_bits) - 1) < 0.02
    aciq = lambertw(3 * 4**num_bits).real  # the root of 2c / (3 * 4^b) = 2 exp(-c)
    print(f"{num_bits:>4}  {row[0]}      {row[1]} {aciq:9.2f}")

# %% [markdown]
# They agree within 2% at every bit width. ACIQ clips later: by 40% at 2 bits, where its simplifications do not hold, and by
# less than 1% from 6 bits on. How much is lost by that?

# %%
for num_bits in (2, 3, 4, 8):
    ours, aciq = theory.laplace_best_clip(num_bits), lambertw(3 * 4**num_bits).real
    lost = [sum(theory.laplace_noise(num_bits, clip)) for clip in (ours, aciq)]
    print(f"{num_bits} bits: {10 * np.log10(lost[1] / lost[0]):.2f} dB lost by ACIQ's clip")

# %% Picture: noise against the clip, and the best clip against bits
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, ORIGINAL, QUANTIZED, THEORY, WARN

figure, panels = new_figure(columns=2, height=2.9)
clip = np.linspace(1, 16, 120)
for num_bits, colour in ((3, QUANTIZED), (4, ORIGINAL), (6, GOOD)):
    both = np.array([theory.laplace_noise(num_bits, c) for c in clip])
    panels[0].semilogy(clip, both.sum(axis=1), color=colour, label=f"{num_bits} bits")
    panels[0].semilogy(clip, both[:, 0], "--", color=colour, lw=1)
    best = theory.laplace_best_clip(num_bits)
    panels[0].plot(best, sum(theory.laplace_noise(num_bits, best)), "v", ms=9, color=colour)
panels[0].semilogy(clip, 2 * np.exp(-clip), ":", color=WARN, lw=2, label="clipping")
panels[0].set(title="Laplace: the minimum moves out", xlabel="clip, in mean |x|")
panels[0].set(ylabel="noise", ylim=(1e-4, 2))
panels[0].legend(loc="lower right", ncols=2)
bits = range(2, 9)
for name, colour in (("Laplace", QUANTIZED), ("Gaussian", ORIGINAL)):
    unit = np.std(sources[name])
    panels[1].plot(bits, [best_clip[name](b) / unit for b in bits], color=THEORY, lw=1)
    panels[1].plot(bits, np.array(clips[name]) / unit, "o", color=colour, label=name)
panels[1].set(
    title="Heavier tails are clipped later", xlabel="bits", ylabel="best clip (σ)"
)
panels[1].legend(loc="upper left")
Picture(
    figure,
    "Left: noise of a Laplace source against the clip at 3, 4 and 6 bits; the minimum moves from "
    "3.5 to 7.4 mean |x|. Right: best clips against bits, samples on the curves of theory; "
    "the Laplace source is clipped later than the Gaussian at every bit width.",
)

# %% [markdown]
# "Clip at 2.5 to 3 σ", as one lecture has it, is right for a Gaussian at 4 and 5 bits, and for little else.
#
# ## Build it
#
# Real tensors are neither Gaussian nor Laplace. All methods below look at the data. They return a **range**, `(low, high)`,
# from which lab 01 or lab 02 makes the scale.
#
# ### Exercise 1: `percentile_range` (8 minutes, ●○○)
#
# The range in which a given percentage of the values lie. The few largest are left outside, whatever they are.
#
# | | |
# |---|---|
# | input | `x`, a NumPy array of floats, any number of axes; `percentile`, in percent; `symmetric` |
# | result | `low, high`, two numbers |
# | `symmetric=True` | `(-t, t)`, where `percentile` percent of the *magnitudes* are at most `t` |
# | `symmetric=False` | the two ends apart; of the rest, `100 - percentile`, half lies below `low` and half above `high` |
# | between two values | any interpolation will do |
# | 0 | need not be in the range; the quantizer takes care of it (lab 02) |
#
# By hand, for $[0.5, -8, 1.5, -0.25, 3]$ and 75%: the magnitudes in order are 0.25, 0.5, 1.5, **3**, 8. Three quarters of
# the way from the first to the last is 3: the range is $(-3, 3)$. Apart, the values in order are -8, -0.25, 0.5, 1.5, 3, and
# 12.5% is half of the way from the first to the second: $-4.125$. From above, $2.25$.


# %%
def percentile_range(x, percentile=99.9, symmetric=True):
    """Return (low, high), the range in which `percentile` percent of x lie."""
    ### BEGIN SOLUTION
    if symmetric:
        threshold = np.percentile(np.abs(x), percentile)
        return -threshold, threshold
    rest = (100 - percentile) / 2
    low, high = np.percentile(x, [rest, 100 - rest])
    return low, high
    ### END SOLUTION


# %%
check(percentile_range)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Take a tensor with one outlier at -100 and no other. Which end has to move? Does your code see it?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# A symmetric range asks about magnitudes. For two ends, 99% inside leaves 1% outside: how much of it belongs to each end?
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $t = P_p(|x|)$. Apart: $P_{(100-p)/2}(x)$ and $P_{(100+p)/2}(x)$. `np.percentile` takes percent, `np.quantile` fractions.
#
# </details>
#
# A [percentile](../docs/glossary.md#percentile) knows nothing of bits or of errors. The next method does what the explorer does: it tries.
#
# ### Exercise 2: `mse_range` (15 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `x`, floats; `num_bits`; `symmetric` |
# | result | `low, high`: the range whose grid has the least mean squared error, **against `x` itself** |
# | `symmetric=True` | `(-c, c)`, on the grid of lab 01 |
# | `symmetric=False` | on the grid of lab 02; both ends are searched, and the range includes 0 |
# | precision | your error may be 5% above the best |
# | an all-zero `x` | `(0, 0)` |
#
# By hand, 1, 1, 1, 1, 3 at 2 bits (codes -2 to 1). On $(-3, 3)$ the scale is 3, the ones become 0, and the error is
# 4/5 = 0.8. On $(-1, 1)$ the ones are exact and 3 becomes 1: 4/5 again. On $(-1.4, 1.4)$ all become 1.4, and the
# error is $(4 \cdot 0.16 + 2.56) / 5 = 0.64$, the least.
#
# At the top stands `in_range(x, low, high, num_bits, symmetric)`, which goes to the grid of a range and back. If you wrote
# `best_clip` in lab 01, the symmetric half is the same search.


# %%
def mse_range(x, num_bits=8, symmetric=True):
    """Return (low, high), the range with the least mean squared error."""
    ### BEGIN SOLUTION

    def loss(ends):
        return np.mean((x - in_range(x, *ends, num_bits, symmetric)) ** 2)

    fractions = np.linspace(0.02, 1, 60)
    largest = float(np.abs(x).max())
    if symmetric:
        return min([(-f * largest, f * largest) for f in fractions], key=loss)
    first, last = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    # Cut at one magnitude first; then hold one end and move the other, in turns.
    low, high = min(
        [(max(first, -f * largest), min(last, f * largest)) for f in fractions], key=loss
    )
    for _ in range(2):
        low, high = min([(low, f * last) for f in fractions], key=loss)
        low, high = min([(f * first, high) for f in fractions], key=loss)
    return low, high
    ### END SOLUTION


# %%
check(mse_range)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write a function of one range that returns its error. Then there are only candidates to compare. Do not let a candidate be
# $(0, 0)$.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Symmetric: 60 fractions of max|x|. Apart: every pair would be 60 x 60. Instead cut both ends at one magnitude first, as if
# it were symmetric; then hold `low` and try values for `high`; hold that `high` and try values for `low`; and once more.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# error = mean of $(x - x')^2$ over *all* values, where $x'$ is the reconstruction. Over the values inside only, or against
# the clipped $x$, clipping costs nothing, and the narrowest range wins.
#
# </details>
#
# There are two grids here. `in_range` has every code, the one at $-2^{b-1}$ too, a level below $-c$. The theory above and
# `calibration.MSE` count the levels from $-c$ to $c$ only. At 2 bits that is three levels of four, and the best clip moves:

# %%
gauss = rng.normal(size=100_000).astype(np.float32)
ends = np.arange(0.8, 3, 0.05)
print("a Gaussian's best clip, in σ   -c to c   all codes")
for num_bits in (2, 3, 4):
    lost = [np.mean((gauss - in_range(gauss, -c, c, num_bits)) ** 2) for c in ends]
    best = ends[np.argmin(lost)]
    print(f"{num_bits} bits {theory.gaussian_best_clip(num_bits):31.2f} {best:11.2f}")

# %% [markdown]
# ### Exercise 3: `kl_range` (20 minutes, ●●●)
#
# TensorRT made this one popular (Migacz, 2017), and has since dropped it with all its calibrators, in favour of ranges written
# into the model. It does not ask how far values move, but how much the *histogram* changes:
# the range is best when the quantized values are distributed most like the original ones. "Most like" is the least
# **[Kullback-Leibler divergence](../docs/glossary.md#kl-divergence)**, $\text{KL}(P \parallel Q) = \sum_j P_j \ln (P_j / Q_j)$, with $P$ the histogram before and
# $Q$ after.
#
# The histogram of $|x|$ has `num_bins` bins from 0 to max|x|. Exact zeros are left out: 0 is on every grid. For each cut
# `n`, from $2^{b-1}$ (the number of levels of $|x|$) to `num_bins`:
#
# | | |
# |---|---|
# | kept | the first `n` bins |
# | $P$ | the kept bins; all that was cut off is added to the last of them, for that is where it saturates |
# | levels | bin `j` of the `n` belongs to level `j * levels // n` |
# | $Q$ | the kept bins *without* what was cut off: each level's sum is spread evenly over those of its bins that are not empty; empty bins stay 0 |
# | divergence | of $P$ and $Q$, each divided by its sum; where $P_j = 0$ the term is 0; where only $Q_j = 0$ it is infinite |
#
# | | |
# |---|---|
# | input | `x`, floats; `num_bits`; `num_bins`, at least $2^{b-1}$ |
# | result | `(-t, t)`, where $t$ is the end of the last kept bin at the least divergence (half a bin more or less will do) |
# | an all-zero `x` | `(0, 0)` |
#
# By hand, the counts 6, 4, 4, 2, 0, 0, 1, 0, 1 and 2 levels, cut at `n = 4`. What is cut off is 2, so $P$ is 6, 4, 4, 4 over
# 18. Level 0 holds 6 + 4, level 1 holds 4 + 2: $Q$ is 5, 5, 3, 3 over 16. The divergence is 0.021. At `n = 9` nothing is cut
# off: level 0 has bins 0 to 4, of which four are not empty, level 1 bins 5 to 8 and two: $Q$ is 4, 4, 4, 4, 0, 0, 1, 0, 1 over
# 18, and the divergence 0.058. At `n = 5` bin 4 is empty, but two values were cut off onto it: infinite.


# %%
def kl_range(x, num_bits=8, num_bins=2048):
    """Return (-t, t), after which the histogram of |x| changes least."""
    ### BEGIN SOLUTION
    magnitudes = np.abs(x[x != 0]).astype(np.float64)
    if magnitudes.size == 0:
        return 0.0, 0.0
    counts, edges = np.histogram(magnitudes, num_bins, range=(0, magnitudes.max()))
    levels = 2 ** (num_bits - 1)
    divergences = []
    for n in range(levels, num_bins + 1):
        kept, filled = counts[:n], counts[:n] > 0
        p = kept.astype(np.float64)
        p[-1] += counts[n:].sum()
        level = np.arange(n) * levels // n
        share = np.bincount(level, kept) / np.maximum(np.bincount(level, filled), 1)
        q = np.where(filled, share[level], 0)
        held = p > 0
        if np.all(q[held] > 0):
            p, q = p[held] / p.sum(), q[held] / q.sum()
            divergences.append(np.sum(p * np.log(p / q)))
        else:
            divergences.append(np.inf)
    threshold = edges[levels + np.argmin(divergences)]
    return -threshold, threshold
    ### END SOLUTION


# %%
check(kl_range)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write the divergence of one cut first, and try it on the nine counts above: 0.021 at 4, 0.058 at 9.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `np.bincount(level, kept)` sums the counts of each level; the same with 0 or 1 for empty or not counts its bins. Their
# quotient, taken at `level`, is $Q$ before the empty bins are set to 0. Sum the divergence only where $P$ is not 0.
#
# </details>
# <details><summary>Hint 3: a trap</summary>
#
# $P$ has what was cut off, $Q$ has not. If both have it or neither, then at `n = levels` each bin is a level of its own, $P =
# Q$, and the divergence is 0: always the narrowest range.
#
# </details>
#
# ### More data than memory
#
# Your functions see all values at once. A calibration set passes by in batches, and a layer of a language model has
# gigabytes of activations. The estimators of `labutils.calibration` have one interface, `observe(x)` for each batch and
# `range()` at the end, and keep only two numbers or a histogram. A histogram needs its width before the first batch, when
# nobody knows the largest value. Here is what they do about it:

# %%
histogram = calibration.Histogram(num_bins=8)  # 8 below zero, 8 above
for batch in ([0.1, 0.4, 0.7], [0.2, -0.3], [3.1], [0.5, 0.6]):
    histogram.add(np.array(batch))
    print(f"bins of {histogram.width:<7}{histogram.counts}")

# %% [markdown]
# When a value does not fit, neighbouring bins merge until it does. Widths are powers of two, so merged bins hold exactly
# what wider ones would have held from the start, in whatever order the batches come. Your functions in one pass, and the
# estimators on 16 batches, for the activations above, asymmetric where it is offered. Until your functions pass, the
# cells from here on use the course's own.

# %%
percentile, mse, kl = (
    or_reference(percentile_range),
    or_reference(mse_range),
    or_reference(kl_range),
)

batches = np.array_split(x, 16)
pairs = {
    "min-max": (lambda x: (x.min(), x.max()), calibration.MinMax(False)),
    "99.9%": (
        lambda x: percentile(x, symmetric=False),
        calibration.Percentile(99.9, False),
    ),
    "MSE, 4 bits": (lambda x: mse(x, 4, symmetric=False), calibration.MSE(4, False)),
    "KL, 4 bits": (lambda x: kl(x, 4), calibration.KL(4)),
}
print("               one pass          16 batches")
for name, (one_pass, estimator) in pairs.items():
    for batch in batches:
        estimator.observe(batch)
    ends = [f"({low:5.1f}, {high:4.1f})" for low, high in (one_pass(x), estimator.range())]
    print(f"{name:<14} {'     '.join(ends)}")

# %% [markdown]
# In a long run one bad batch must not go unnoticed. NaN would spoil a histogram silently. Here it is named:

# %%
estimator = calibration.MinMax()
try:
    for i in range(1000):
        batch = x[:2].copy()
        if i == 417:
            batch[0, 3, 5, 5] = np.nan
        estimator.observe(batch)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Drag your own code
#
# Your three methods, on 16384 of the activations. They are run when you come to a bit width for the first time. KL
# clips elsewhere than before. Its minimum is shallow, and on few values the number of bins decides where it lies: see
# the cell below the explorer.


# %%
def own_percentile(x, num_bits):
    return percentile_range(x, 99.9)


explore_calibration(x, methods={"99.9%": own_percentile, "MSE": mse_range, "KL": kl_range})

# %%
sample = np.append(x.ravel()[::17], x.max())  # as the explorer takes it
for name, values in (("all values", x), ("the sample", sample)):
    ends = ", ".join(f"{kl(values, 4, bins)[1]:.1f}" for bins in (2048, 1024, 512))
    print(f"KL on {name}, with 2048, 1024 and 512 bins: {ends}")

# %% [markdown]
# ## Whole networks
#
# Now the ranges go to work: what enters each layer is quantized, the weights stay as they are. That is fake quantization
# (lab 05 multiplies integers); it tells what a range costs, not how fast it is. A **hook** sees what enters a layer, and may
# replace it:

# %%
import torch

from labutils import PerAxis, PerTensor

model = data.digits_model()
layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "weight")}
del layers["stem"]  # the image itself: 17 shades of grey are quantized already


def with_inputs(layers, see, run):
    """Call run() while see(name, x) gets what enters each layer, and may return other x."""
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: see(name, args[0]))
        for name, layer in layers.items()
    ]
    try:
        return run()
    finally:
        for hook in hooks:
            hook.remove()


def calibrate(layers, methods, bits, run):
    """Method -> layer -> the range of what enters it during run(); all methods watch one run."""
    estimators = {
        method: {name: make(bits) for name in layers} for method, make in methods.items()
    }

    def see(name, x):
        for each in estimators.values():
            each[name].observe(x)  # nothing is returned: x goes on unchanged

    with_inputs(layers, see, run)
    return {
        method: {name: estimator.range() for name, estimator in each.items()}
        for method, each in estimators.items()
    }


def static(scheme, ranges):
    """Quantize what enters each layer onto the grid of its range."""

    def see(name, x):
        return fake_quantize(x, scheme, qparams_of_range(*ranges[name], scheme, like=x))

    return see


def dynamic(scheme):
    """Quantize what enters each layer onto the grid of its own range, found as it comes."""
    return lambda name, x: fake_quantize(x, scheme)


# %% [markdown]
# **[Static](../docs/glossary.md#static-range)** quantization uses the ranges of a calibration set for ever. **[Dynamic](../docs/glossary.md#dynamic-range)** quantization finds the range of what
# comes when it comes, here for each image. Seven layers, 256 training images to calibrate on, accuracy on the 540 test
# images, unsigned codes. ("Average" is a range whose ends follow the batches slowly: the stretch exercise.)

# %%
METHODS = {
    "min-max": lambda bits: calibration.MinMax(False),
    "average": lambda bits: calibration.MovingAverage(0.9, False),
    "99.9%": lambda bits: calibration.Percentile(99.9, False),
    "MSE": lambda bits: calibration.MSE(bits, False),
    "KL": lambda bits: calibration.KL(bits, False),
}
BITS = (8, 4, 3, 2)


def run_training_images():
    with torch.no_grad():
        for batch in torch.from_numpy(images[:256]).split(32):
            model(batch)


def accuracy_with(see):
    return with_inputs(layers, see, lambda: data.digits_accuracy(model))


accuracy = {}
for bits in BITS:
    scheme = Scheme(bits, symmetric=False)
    for name, ranges in calibrate(layers, METHODS, bits, run_training_images).items():
        accuracy[name, bits] = accuracy_with(static(scheme, ranges))
    each_image = Scheme(bits, symmetric=False, granularity=PerAxis(0))
    accuracy["dynamic", bits] = accuracy_with(dynamic(each_image))

names = [*METHODS, "dynamic"]
print(f"in float: {data.digits_accuracy(model):.0%}")
print("bits  " + "".join(f"{name:>9}" for name in names))
for bits in BITS:
    print(f"{bits:>4}  " + "".join(f"{accuracy[name, bits]:9.0%}" for name in names))

# %% Picture: accuracy by method at 8, 3 and 2 bits
figure, panel = new_figure(height=3.0)
places = np.arange(len(names))
for bits, colour, size in ((8, THEORY, 10), (3, ORIGINAL, 9), (2, QUANTIZED, 9)):
    heights = [100 * accuracy[name, bits] for name in names]
    panel.plot(places, heights, "o", ms=size, color=colour, label=f"{bits} bits")
panel.set_xticks(places, labels=names)
panel.set(title="The fewer the bits, the more the range decides", ylim=(25, 104))
panel.set(ylabel="read correctly (%)")
panel.legend(loc="lower right", ncols=3)
Picture(
    figure,
    "Accuracy by method at 8, 3 and 2 bits: equal at 8 bits; at 2 bits min-max and the moving "
    "average read less than 40%, dynamic ranges 54%, 99.9% and KL 73%, MSE 88%.",
)

# %% [markdown]
# Read the table from the top.
#
# - At **8 and 4 bits** the method does not matter: all differences are a few images. Choose the simplest.
# - At **3 and 2 bits** it is everything. Min-max spends its codes on rare large values. With two bits, four levels, the range
#   of least squared error still reads most digits, and min-max little more than a third.
# - **Dynamic** ranges, one for each image, are min-max ranges of less data: better than static min-max, since one image
#   seldom has the largest value of all, and behind every static range that clips.
#
# ### Is MSE the best?
#
# In each layer it should be, for that is what it minimises. On 256 test images, which the ranges have not seen:

# %%
test, _ = data.digits("test")
entering = {}
with torch.no_grad():
    with_inputs(layers, entering.__setitem__, lambda: model(torch.from_numpy(test[:256])))


def compare(entering, ranges, scheme):
    """For each method: in how many layers it is the best, up to 0.1 dB, and its mean SQNR."""
    table = np.array(
        [
            [
                sqnr_db(x, static(scheme, ranges[method])(layer, x))
                for layer, x in entering.items()
            ]
            for method in ranges
        ]
    )
    wins = (table > table.max(axis=0) - 0.1).sum(axis=1)
    return [f"{w}, {mean:.1f} dB" for w, mean in zip(wins, table.mean(axis=1))]


print("layers in which it is best (up to 0.1 dB), and mean SQNR")
print("bits " + "".join(f"{name:>13}" for name in METHODS))
for bits in (8, 3):
    ranges = calibrate(layers, METHODS, bits, run_training_images)
    row = compare(entering, ranges, Scheme(bits, symmetric=False))
    print(f"{bits:>4} " + "".join(f"{cell:>13}" for cell in row))

# %% [markdown]
# At 3 bits it is alone in front in all seven layers. At 8 bits the moving average is as good: there is next to nothing to
# gain by clipping, and what was best for 256 training images need not be for others. The percentile stands out: at 8 bits
# it is seven decibels behind, as in the explorer. And yet the accuracy at 8 bits is the same: 37 dB are enough.
#
# ### A transformer
#
# MiniLM has 36 linear layers. Their inputs have both signs, and strong outliers in a few channels (lab 08 looks at them).
# Many integer kernels want a zero point of 0 here, so the ranges are symmetric. They are calibrated on 64 sentences and
# judged on 64 questions, by the mean cosine between the embeddings before and after: 1 is perfect.

# %% tags=["nbval-ignore-output"]
from labutils.data.minilm import MiniLMMissing
from labutils.models import mean_cosine

try:
    encoder = data.sentence_encoder()
    print("MiniLM is here.")
except (ImportError, MiniLMMissing) as missing:
    encoder = None
    print(f"The cells with MiniLM have nothing to show: {missing}")

# %% tags=["minilm"]
from labutils import PerGroup
from labutils.models import linear_layers

SIGNED = {
    "min-max": lambda bits: calibration.MinMax(),
    "99.99%": lambda bits: calibration.Percentile(99.99),
    "99.9%": lambda bits: calibration.Percentile(99.9),
    "MSE": lambda bits: calibration.MSE(bits),
    "KL": lambda bits: calibration.KL(bits),
}
ROW = PerGroup(4096)  # one group is a whole row: the activations of a token

if encoder:
    linears = linear_layers(encoder.model)
    sentences = data.calibration_sentences()[64:128]
    asked = [question for question, _ in data.questions()[:64]]
    exact = encoder.encode(asked)

    def cosine_with(see):
        return mean_cosine(exact, with_inputs(linears, see, lambda: encoder.encode(asked)))

    def run_sentences():
        encoder.encode(sentences)

    print("bits " + "".join(f"{name:>9}" for name in SIGNED) + "   dynamic, each token")
    minilm_ranges = {}
    for bits in (8, 6):
        scheme = Scheme(bits)
        minilm_ranges[bits] = calibrate(linears, SIGNED, bits, run_sentences)
        row = [cosine_with(static(scheme, found)) for found in minilm_ranges[bits].values()]
        row.append(cosine_with(dynamic(Scheme(bits, granularity=ROW))))
        print(f"{bits:>4} " + "".join(f"{cosine:9.2f}" for cosine in row))

# %% tags=["minilm"]
if encoder:
    entering = {}
    with_inputs(linears, entering.__setitem__, lambda: encoder.encode(asked[:32]))
    print("layers in which it is best (up to 0.1 dB), and mean SQNR")
    print("bits " + "".join(f"{name:>13}" for name in SIGNED))
    for bits in (8, 6):
        row = compare(entering, minilm_ranges[bits], Scheme(bits))
        print(f"{bits:>4} " + "".join(f"{cell:>13}" for cell in row))

# %% [markdown]
# Here the order of the methods is another one, and it changes between 8 and 6 bits.
#
# - **MSE** is best in most layers, at both widths. The model does not follow: the 99.99th percentile, more than a
#   decibel behind on average, gives embeddings as good. Squared error weighs all values alike. The model does not.
# - **The 99.9th percentile**, the best of the fixed rules on the digits, is the worst of all at 8 bits. It clips the
#   outliers, and in a transformer they are not noise: the network uses them. At 6 bits it is almost as good as MSE, since
#   rounding costs still more.
# - **KL**, made for 8 bits on networks of another kind, is behind min-max at 8 bits and ahead of it at 6.
# - **Dynamic ranges for each token** beat all static ones: an outlier then spoils its own token only.
#
# So there is no best method, only a best one for a tensor, a bit width and a task, and you have to measure.

# %% [markdown]
# ## In the wild
#
# **A percentile that cannot lose.** You met it in lab 02. A published script compares min-max with the 99th
# percentile on 1000 values, ten of them outliers. For the percentile it clips the tensor first, quantizes, and then
# compares with the *clipped* tensor:

# %%
rng = np.random.default_rng(42)
tensor = rng.normal(scale=2, size=1000)
tensor[rng.integers(0, 1000, 10)] = rng.normal(scale=50, size=10)
low, high = percentile(tensor, 99)
clipped = np.clip(tensor, low, high)
back = in_range(clipped, low, high, 8)
whole = in_range(tensor, -np.abs(tensor).max(), np.abs(tensor).max(), 8)
print(f"min-max:                          {sqnr_db(tensor, whole):5.1f} dB")
print(f"99%, against the clipped tensor:  {sqnr_db(clipped, back):5.1f} dB")
print(f"99%, against the tensor:          {sqnr_db(tensor, back):5.1f} dB")
for num_bits in (8, 4, 3):
    scores = [
        sqnr_db(tensor, in_range(tensor, *ends, num_bits))
        for ends in (
            calibration.MinMax().observe(tensor).range(),
            (low, high),
            mse(tensor, num_bits),
        )
    ]
    print(
        f"{num_bits} bits: min-max {scores[0]:4.1f} dB, "
        f"99% {scores[1]:4.1f} dB, MSE {scores[2]:4.1f} dB"
    )

# %% [markdown]
# The script concludes that the percentile is better by several decibels. Against the tensor that was given, it is far worse:
# most of the signal was in the ten values that it threw away. What is compared must be what comes out with what went in.
# At 4 and 3 bits it loses still, if by less, and the best range is another one.
#
# **Zeros in a histogram.** KL looks at the whole distribution. After a ReLU half of it is one bin. NVIDIA's
# pytorch-quantization therefore overwrites the count of the first bin with that of the second. Without such a rule:

# %%
magnitudes = np.abs(x).ravel()
with_zeros, edges = np.histogram(magnitudes, 2048)
cut = calibration.best_cut(with_zeros, 0, 8)
for name, end in (("with zeros", edges[cut]), ("without zeros", kl(x, 4)[1])):
    ratio = sqnr_db(x, in_range(x, -end, end, 4))
    print(f"{name:<14} up to {end:.2f}, SQNR {ratio:4.1f} dB")

# %% [markdown]
# **An answer that depends on the neighbours.** With one dynamic range for the batch, what the network says of an image
# depends on which other images came along. With a range for each image it does not:

# %%
from functools import partial

batch = torch.from_numpy(test[:32])
for name, granularity in (("each batch", PerTensor()), ("each image", PerAxis(0))):
    see = dynamic(Scheme(3, symmetric=False, granularity=granularity))
    with torch.no_grad():
        together = with_inputs(layers, see, partial(model, batch))
        alone = torch.cat(
            [with_inputs(layers, see, partial(model, one)) for one in batch.split(1)]
        )
    change = float((together - alone).abs().mean())
    print(f"a range for {name}: logits change by {change:.1f} on average")

# %% [markdown]
# **What libraries do by default.** torch's `HistogramObserver` searches a range of least squared error on 2048 bins;
# `MovingAverageMinMaxObserver` has a momentum of 0.99; TensorRT's calibrator for 8 bits was KL, deprecated since 10.1 and gone from the Python interface of 11; ONNX Runtime starts with
# min-max and offers percentiles and KL too; for language models most tools use dynamic ranges for each token.
#
# ## In practice
#
# The range is searched for you by torch's `HistogramObserver`: batches in, scale and zero point out, by least squared error on a
# histogram. (It lives in `torch.ao.quantization`, which is deprecated; torchao's static layers take any scale, yours too:
# `Int8StaticActivationInt8WeightConfig(act_quant_scale=...)`.) At 8 and at 4 bits:

# %%
from torch.ao.quantization import HistogramObserver

for num_bits in (8, 4):
    last = 2**num_bits - 1
    observer = HistogramObserver(dtype=torch.quint8, quant_min=0, quant_max=last)
    for batch in torch.from_numpy(x).split(4):
        observer(batch)
    end = last * float(observer.calculate_qparams()[0])
    own = mse(x, num_bits, symmetric=False)[1]
    levels = [sqnr_db(x, in_range(x, 0, e, num_bits, False)) for e in (end, own)]
    print(f"{num_bits} bits: torch ends at {end:.1f}, {levels[0]:.1f} dB;", end=" ")
    print(f"yours at {own:.1f}, {levels[1]:.1f} dB")

# %% [markdown]
# At 4 bits yours is 2 dB better. The observer's search counts 256 levels, whatever `quant_max` says, since it looks at the dtype:
# so its range is the same at both widths. Try what you rely on, at the bits that you use.
#
# ## Stretch
#
# ### Exercise 4: `moving_average_range` (8 minutes, ●○○)
#
# During training there is no end of the data, and early batches say little about later ones. Then both ends follow the
# batches slowly.
#
# | | |
# |---|---|
# | input | `batches`, a list of arrays, at least one; `momentum`, from 0 up to below 1 |
# | result | `low, high` |
# | the first batch | is taken as it is |
# | each later one | end = momentum · end + (1 - momentum) · end of the batch, for the minimum and for the maximum apart |
#
# By hand, momentum 0.75, batches that reach from -1 to 1 and from -2 to 3: low = 0.75 · -1 + 0.25 · -2 = -1.25, high = 0.75 · 1
# + 0.25 · 3 = 1.5.


# %%
def moving_average_range(batches, momentum=0.9):
    """Return (low, high), moving averages of the batches' ends."""
    ### BEGIN SOLUTION
    low, high = float(batches[0].min()), float(batches[0].max())
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * float(batch.min())
        high = momentum * high + (1 - momentum) * float(batch.max())
    return low, high
    ### END SOLUTION


# %%
check(moving_average_range)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What would the average be after one batch if you started at 0?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Keep two numbers. Set them from the first batch; then every further batch pulls each a little towards its own end.
#
# </details>

# %%
average = or_reference(moving_average_range)

stream = np.array_split(x, 16)
spiked = [batch.copy() for batch in stream]
spiked[4][0, 0, 0, 0] = 60  # one value of 262144, in one of 16 batches
for name, batches in (("as it was", stream), ("one spike", spiked)):
    whole = np.concatenate(batches)
    ends = {
        "min-max": whole.max(),
        "moving average": average(batches)[1],
        "99.9%": percentile(whole, symmetric=False)[1],
        "MSE": mse(whole, 4, symmetric=False)[1],
    }
    print(f"{name}: " + ", ".join(f"{method} {end:.1f}" for method, end in ends.items()))

# %% [markdown]
# A spike stays in min-max for ever. The moving average forgets it, a tenth with each batch. A percentile never noticed, and
# the error at 4 bits says that it is not worth its steps.

# %% [markdown]
# ## Interview questions
#
# <details><summary>What is calibration, and why do weights need none?</summary>
#
# Choosing the range of activations from sample inputs, before others come. Weights are all there: their range is computed
# from themselves. (Whether to clip them is the same question as here.)
#
# </details>
# <details><summary>Static or dynamic ranges: what speaks for which?</summary>
#
# Static ranges cost nothing at run time and can be folded into the next layer's arithmetic, but must fit inputs that nobody
# has seen. Dynamic ranges fit, and cost a pass over the activations for their largest value; for each token they also keep an
# outlier from spoiling the others.
#
# </details>
# <details><summary>Why does the best clip grow with the bit width?</summary>
#
# A bit more makes rounding noise four times smaller at every clip and leaves clipping noise as it is. The balance of the two
# moves towards less clipping: for a Gaussian from 1.2 σ at 2 bits to 3.9 σ at 8.
#
# </details>
# <details><summary>A colleague reports that the 99th percentile gives 48 dB at 8 bits. What do you ask?</summary>
#
# Compared with what? Against the clipped tensor, any percentile looks good: what was cut off is not in the comparison.
#
# </details>
# <details><summary>The range of least squared error is best in each layer. Is it best for the model?</summary>
#
# Not always. Squared error weighs all values alike, and the network may depend on a few large ones. On MiniLM a range that
# was worse in nearly every layer gave embeddings as good. Compare what the model says.
#
# </details>
# <details><summary>Your calibration set has a million batches. What do you keep in memory?</summary>
#
# Two numbers for min-max, a histogram for all else. When a value does not fit, bins merge in pairs.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - A range trades rounding noise against clipping noise. The minimum moves out with the bits: for 8 bits clip little, for 4
#   and fewer a lot.
# - Percentiles know nothing of the bit width. MSE measures what you pay; KL compares histograms, and depends on their bins.
# - Compare with the tensor that went in, never with the clipped one.
# - A histogram whose bins merge has the same counts in one pass and in a thousand batches.
# - No method wins everywhere. On the digits at 2 bits, MSE; on MiniLM, dynamic ranges for each token. Measure the task.
