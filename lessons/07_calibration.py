# %% [markdown]
# # 07 · Calibration: where to clip
#
# **Time:** 60 minutes, stretch exercise 10 more. **You need:** labs 01 and 02, NumPy; for whole networks PyTorch.
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
from labutils.figures import Picture, new_figure
from labutils.palette import GOOD, INK, ORIGINAL, QUANTIZED, THEORY, WARN

# %% [markdown]
# ## Why
#
# Weights lie still: you can look at all of them and choose a scale. Activations are different for every input, and often
# the scale must be fixed before the first one comes. It is chosen on a **calibration set**, some inputs that stand for all
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
# On the left is the histogram, on a logarithmic axis; what lies in the orange area is clipped. On the right is the noise
# against the clip: from rounding, from clipping, and both. The marks are where four methods would clip. You will write
# three of them. The circle is what is measured at your slider.
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
# **Say why.** A bit more makes the steps half as wide, and rounding noise four times smaller, at every clip. What clipping
# costs does not depend on the bits. So the minimum moves to the right: with more bits, clip less. The marks of min-max and
# of the percentile do not move, since neither knows the bit width. At 4 bits the percentile is far better than min-max; at 8
# it is far worse.

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

# %%
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
panels[0].set(ylabel="noise", ylim=(1e-3, 2))
panels[0].legend(loc="upper right", ncols=2)
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
    "Left: noise of a Laplace source against the clip at 3, 4 and 6 bits; the minimum moves "
    "to larger clips. Right: best clips against bits, samples on the curves of theory.",
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
# A percentile knows nothing of bits or of errors. The next method does what the explorer does: it tries.
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
# The cell above has `in_range(x, low, high, num_bits, symmetric)`, which goes to the grid of a range and back. If you wrote
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
# ### Exercise 3: `kl_range` (20 minutes, ●●●)
#
# TensorRT made this one popular (Migacz, 2017). It does not ask how far values move, but how much the *histogram* changes:
# the range is best when the quantized values are distributed most like the original ones. "Most like" is the least
# **Kullback-Leibler divergence**, $\text{KL}(P \parallel Q) = \sum_j P_j \ln (P_j / Q_j)$, with $P$ the histogram before and
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
# Your three methods, on 16384 of the activations. They are run when you come to a bit width for the first time.


# %%
def own_percentile(x, num_bits):
    return percentile_range(x, 99.9)


explore_calibration(x, methods={"99.9%": own_percentile, "MSE": mse_range, "KL": kl_range})

# %% [markdown]
# ## Whole networks
#
# Now the ranges go to work: what enters each layer is quantized, the weights stay as they are. That is fake quantization
# (lab 05 multiplies integers); it tells what a range costs, not how fast it is. A **hook** sees what enters a layer, and may
# replace it:

# %%
import torch

from labutils import PerAxis

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


def calibrate(layers, make, run):
    """The range of what enters each layer during run(), by an estimator made by make()."""
    estimators = {name: make() for name in layers}

    def see(name, x):
        estimators[name].observe(x)  # returns nothing: x goes on unchanged

    with_inputs(layers, see, run)
    return {name: estimator.range() for name, estimator in estimators.items()}


def static(scheme, ranges):
    def see(name, x):
        return fake_quantize(x, scheme, qparams_of_range(*ranges[name], scheme, like=x))

    return see


# %% [markdown]
# **Static** quantization uses the ranges of a calibration set for ever. **Dynamic** quantization finds the range of what
# comes when it comes, here for each image. Seven layers, 256 training images to calibrate on, accuracy on the 540 test
# images, unsigned codes:

# %%
METHODS = {
    "min-max": lambda bits: calibration.MinMax(False),
    "average": lambda bits: calibration.MovingAverage(0.9, False),
    "99.9%": lambda bits: calibration.Percentile(99.9, False),
    "MSE": lambda bits: calibration.MSE(bits, False),
    "KL": lambda bits: calibration.KL(bits, False),
}


def run_calibration():
    with torch.no_grad():
        for batch in torch.from_numpy(images[:256]).split(32):
            model(batch)


BITS = (8, 4, 3, 2)
accuracy = {}
for bits in BITS:
    scheme = Scheme(bits, symmetric=False)
    for name, make in METHODS.items():
        ranges = calibrate(layers, lambda: make(bits), run_calibration)
        see = static(scheme, ranges)
        accuracy[name, bits] = with_inputs(layers, see, lambda: data.digits_accuracy(model))
    scheme = Scheme(bits, symmetric=False, granularity=PerAxis(0))
    accuracy["dynamic", bits] = with_inputs(
        layers, lambda _, x: fake_quantize(x, scheme), lambda: data.digits_accuracy(model)
    )
names = [*METHODS, "dynamic"]
print(f"float: {data.digits_accuracy(model):.1%}")
print("bits  " + "".join(f"{name:>9}" for name in names))
for bits in BITS:
    print(f"{bits:>4}  " + "".join(f"{accuracy[name, bits]:9.0%}" for name in names))

# %% [markdown]
# Read it from the top.
#
# - At **8 bits** the method does not matter, nor at 4: all differences are a few images. Choose the simplest.
# - At **3 and 2 bits** it is everything. Min-max wastes codes on rare large values. Of two bits, four levels, the range of
#   least squared error keeps nine images in ten, min-max four.
# - **Dynamic** ranges, one for each image, are min-max ranges of less data: better than static min-max, as one image seldom
#   has the largest value of all, and behind every static range that clips.
#
# So is `MSE` simply best? Per layer it should be, for that is what it minimises. On test images that it has not seen:

# %%
test, _ = data.digits("test")
entering = {}
with torch.no_grad():
    see = entering.__setitem__
    with_inputs(layers, see, lambda: model(torch.from_numpy(test[:256])))


def best_of(layers, entering, methods, bits, symmetric):
    """How often each method has the highest SQNR, and its mean over the layers."""
    ratios = {name: [] for name in methods}
    scheme = Scheme(bits, symmetric=symmetric)
    for layer in layers:
        for name, ranges in methods.items():
            back = static(scheme, ranges)(layer, entering[layer])
            ratios[name].append(sqnr_db(entering[layer], back))
    table = np.array(list(ratios.values()))
    wins = np.bincount(table.argmax(axis=0), minlength=len(methods))
    return dict(zip(methods, zip(wins.tolist(), table.mean(axis=1))))


print("bits " + "".join(f"{name:>16}" for name in METHODS))
for bits in (8, 3):
    ranges = {
        name: calibrate(layers, lambda: make(bits), run_calibration)
        for name, make in METHODS.items()
    }
    found = best_of(layers, entering, ranges, bits, symmetric=False)
    row = [f"best {wins}, {mean:4.1f} dB" for wins, mean in found.values()]
    print(f"{bits:>4}  " + "".join(f"{cell:>16}" for cell in row))

# %% [markdown]
# ### MiniLM
#
# A transformer is another matter. Its 36 linear layers see activations of both signs with strong outliers in a few channels
# (lab 08 looks at them closely). Integer kernels want a zero point of 0 for these, so the ranges are symmetric. Calibrated on
# 64 sentences, judged on 64 questions by the mean cosine between the embeddings before and after: 1 is perfect.

# %% tags=["nbval-ignore-output"]
from labutils.data.minilm import MiniLMMissing
from labutils.embeddings import mean_cosine

try:
    encoder = data.sentence_encoder()
    print("MiniLM is here.")
except (ImportError, MiniLMMissing) as missing:
    encoder = None
    print(f"The cells with MiniLM are skipped. {missing}")

# %% tags=["minilm"]
from labutils import PerGroup
from labutils.nn import linear_layers

SIGNED = {
    "min-max": lambda bits: calibration.MinMax(),
    "99.99%": lambda bits: calibration.Percentile(99.99),
    "99.9%": lambda bits: calibration.Percentile(99.9),
    "MSE": lambda bits: calibration.MSE(bits),
    "KL": lambda bits: calibration.KL(bits),
}
if encoder:
    linears = linear_layers(encoder.model)
    sentences = data.calibration_sentences()[:64]
    asked = [question for question, _ in data.questions()[:64]]
    exact = encoder.encode(asked)
    cosine, ranges = {}, {}
    for bits in (8, 6):
        for name, make in SIGNED.items():
            ranges[name, bits] = calibrate(
                linears, lambda: make(bits), lambda: encoder.encode(sentences)
            )
            see = static(Scheme(bits), ranges[name, bits])
            embeddings = with_inputs(linears, see, lambda: encoder.encode(asked))
            cosine[name, bits] = mean_cosine(exact, embeddings)
        for name, granularity in (("a batch", PerAxis(0)), ("a token", PerGroup(4096))):
            scheme = Scheme(bits, granularity=granularity)
            embeddings = with_inputs(
                linears,
                lambda _, x: fake_quantize(x, scheme),
                lambda: encoder.encode(asked),
            )
            cosine[name, bits] = mean_cosine(exact, embeddings)
