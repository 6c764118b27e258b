# %% [markdown]
# # 11 · Grids that are not integers: FP8, MXFP4, NVFP4, NF4
#
# **Time:** 105 minutes; stretch: 15 more. **You need:** lab 04, NumPy, and PyTorch for the casts and activations; labs
# 05 and 08 help.
#
# At the end of this lab you can
#
# - write down every number of a small float format, with its subnormal numbers and its end, from two bit counts,
# - round to any grid as the standards say: to the nearest, ties to the even code, saturating,
# - compute the scales of MXFP4 and the two levels of NVFP4, and what each costs in bits and decibels,
# - say why 8-bit integers beat FP8 on weights, and from which outlier on it is the other way round,
# - tell which part of a format is its grid, and which its scale.

# %%
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from labutils import (
    E2M1,
    E4M3,
    E5M2,
    E8M0,
    FP8,
    MXFP4,
    MXFP8,
    NF4,
    NVFP4,
    PerGroup,
    Scheme,
    check,
    data,
    explore_grids,
    fake_quantize,
    or_reference,
    predict,
    sqnr_db,
)
from labutils.arrays.block_formats import FORMATS, bits_per_weight
from labutils.arrays.grids import FLOAT16

# %% [markdown]
# The matrix is the one of lab 04, from the sentence encoder MiniLM. Where MiniLM cannot be had, a matrix of the digits
# network stands in: everything works, but numbers in the text will differ from yours.

# %% tags=["nbval-ignore-output"]
matrix = data.feed_forward_weight("encoder.layer.1.output.dense.weight")
weights = matrix.array  # (384, 1536)
print(matrix)

# %% [markdown]
# ## Why
#
# Every grid so far was evenly spaced. Weights are not: most are near zero. This is the same matrix at 4 bits a code:

# %% tags=["minilm"]
for name in ("INT4 g32", "NF4 g64", "NVFP4"):
    scheme = FORMATS[name]
    price = bits_per_weight(scheme, weights.shape)
    level = sqnr_db(weights, fake_quantize(weights, scheme))
    print(f"{name:<9} {price:.2f} bits per weight, {level:.1f} dB")

# %% [markdown]
# At the same price, 1.0 and 1.5 dB more: a sixth and a quarter of a bit for each weight, for nothing but other
# numbers. This is how models ship in 2026: FP8 and NVFP4 run in the hardware of NVIDIA's current cards, MXFP4 is an
# open standard, and NF4 is how large models are fine-tuned on small cards. All of them are lab 04 with *another
# grid*, and with scales that are themselves on a grid. The four choices stay: grid, who shares a scale, range,
# symmetry.

# %% [markdown]
# ## Play first
#
# On the left, each vertical line is a number that the format has; the filled shape is where the values of the matrix
# are, each divided by the end of the grid of its block. Values in the light bands lie beyond the grid. On the right
# is the quality against what a value costs: a curve for each format, from blocks of 256 (left end) to blocks of 16
# (right end).
#
# **Predict** first. INT4 has 15 numbers: 0 and ±1 to ±7. Three of them lie within a quarter of the way to the end. FP4,
# the grid of MXFP4 and NVFP4, has 15 as well: 0, ±0.5, ±1, ±1.5, ±2, ±3, ±4, ±6.

# %%
fp4 = np.unique(E2M1.levels)
predict(
    "How many of FP4's 15 numbers lie within a quarter of the way to its end?",
    np.count_nonzero(np.abs(fp4) <= 6 / 4),
    tolerance=0,
)

# %%
predict(
    "NVFP4 stores a scale of 8 bits for each block of 16. How many bits does a value cost?",
    4 + 8 / 16,
    unit="bits",
    tolerance=0.01,
)

# %% [markdown]
# **Drag** the block size with each format. **Observe** which curves rise to the right, and which stop rising. Then
# compare INT8 with MXFP8.

# %% tags=["minilm"]
explorer = explore_grids(weights)
explorer

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>FP4 and NF4 have as many numbers as INT4. Why are they ahead of it at 4 bits?</summary>
#
# They have their numbers where the values are, most of them near zero.
#
# </details>

# %% [markdown]
# Two riddles are left. MXFP4 has the same numbers as NVFP4, and smaller blocks hardly help it: something else holds it
# back. And at 8 bits the crowd of numbers near zero is no help at all: INT8 is 5 to 14 dB ahead. You will find out
# both.

# %% [markdown]
# ## Build it
#
# ### A float of a few bits
#
# A float is sign, exponent and [mantissa](../docs/glossary.md#mantissa). **[E2M1](../docs/glossary.md#e2m1)** has one bit for the sign, two for the exponent and one for the
# mantissa. With the exponent field $e$, the mantissa field $m$ and $\text{bias} = 2^{E-1} - 1$, which is 1 here:
#
# $$\text{value} = \begin{cases} (1 + m / 2^M) \cdot 2^{e - \text{bias}} & e > 0 \\ (m / 2^M) \cdot 2^{1 - \text{bias}} & e = 0
# \end{cases}$$
#
# The second line is for **[subnormal](../docs/glossary.md#subnormal)** numbers: no leading 1, and the exponent of $e = 1$. They fill the gap between 0
# and the first normal number. By hand, all eight codes of E2M1 without the sign:
#
# | code | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
# |---|---|---|---|---|---|---|---|---|
# | bits $e\,m$ | 00 0 | 00 1 | 01 0 | 01 1 | 10 0 | 10 1 | 11 0 | 11 1 |
# | value | 0 | 0.5 · 1 | 1 · 1 | 1.5 · 1 | 1 · 2 | 1.5 · 2 | 1 · 4 | 1.5 · 4 |
# | | 0 | 0.5 | 1 | 1.5 | 2 | 3 | 4 | 6 |
#
# Some formats give up their last codes. **[E4M3](../docs/glossary.md#e4m3)** gives up one: where all bits are 1 it is NaN, so the largest number
# is 448, one code before. **[E5M2](../docs/glossary.md#e5m2)** follows IEEE 754: the largest exponent holds infinity and NaN, and no numbers.
#
# ### Exercise 1: `float_grid` (12 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `exponent_bits` $E$ and `mantissa_bits` $M$, both from 1 on; `specials` |
# | `specials` | `"none"`: every code is a number. `"nan"`: the last code is not. `"ieee"`: no code with the largest exponent is |
# | result | floats, one axis: the values of the codes 0, 1, 2, ... without a sign, as many as are numbers |
# | order | the mantissa is in the lowest $M$ bits of a code; so the values ascend |


# %%
def float_grid(exponent_bits, mantissa_bits, specials="none"):
    """Return the numbers without a sign of a small float format, by ascending code."""
    ### BEGIN SOLUTION
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    exponent = codes >> mantissa_bits
    fraction = codes % 2**mantissa_bits / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    normal = (1 + fraction) * 2.0 ** (exponent - bias)
    subnormal = fraction * 2.0 ** (1 - bias)
    levels = np.where(exponent > 0, normal, subnormal)
    reserved = {"none": 0, "nan": 1, "ieee": 2**mantissa_bits}[specials]
    return levels[: len(levels) - reserved]
    ### END SOLUTION


# %%
check(float_grid)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Write down the codes as whole numbers from 0 on. Which of their bits are the mantissa, and which operation cuts them
# off?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `codes >> mantissa_bits` is the exponent field, `codes % 2**mantissa_bits` the mantissa field. Compute both formulas
# for all codes, and choose between them where the exponent field is 0. At the end, cut off the codes that are no
# numbers: 0, 1, or all $2^M$ with the largest exponent.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))`. Write 2.0 and not
# 2: NumPy refuses integers to negative powers.
#
# </details>

# %%
grid_of = or_reference(float_grid)

shown = {
    "INT4": np.arange(8) / 7,
    "FP4: E2M1": grid_of(2, 1) / 6,
    "FP6: E2M3": grid_of(2, 3) / 7.5,
    "FP6: E3M2": grid_of(3, 2) / 28,
    "FP8: E4M3": grid_of(4, 3, "nan") / 448,
}

# %% Picture: the numbers of five grids
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, INK, ORIGINAL, QUANTIZED, THEORY, WARN

figure, panel = new_figure(8.5, 2.9)
for row, levels in enumerate(shown.values()):
    color = THEORY if row == 0 else QUANTIZED
    panel.vlines(
        levels, -row - 0.3, -row + 0.3, color=color, lw=0.7 if len(levels) > 40 else 1.5
    )
panel.set_yticks(-np.arange(len(shown)), list(shown))
panel.grid(False)
panel.set(
    title="Each halving towards 0 is divided as finely as the one before",
    xlabel="number / end of the grid",
)
Picture(
    figure,
    "The numbers without a sign of five grids on a line from 0 to 1. Those of INT4 are "
    "evenly spaced, those of the floats are denser and denser towards 0.",
)

# %% [markdown]
# Between a power of two and the next there are always $2^M$ numbers. More exponent bits reach further down; more
# mantissa bits divide each octave more finely. At the lower end the subnormal numbers are evenly spaced, and with
# *one* exponent bit the others go on with the same spacing:

# %%
print("E1M2:", grid_of(1, 2), " evenly spaced: integers, halved")
for name, exponent_bits, mantissa_bits, specials in (
    ("E4M3", 4, 3, "nan"),
    ("E5M2", 5, 2, "ieee"),
    ("float16", 5, 10, "ieee"),
):
    levels = grid_of(exponent_bits, mantissa_bits, specials)
    print(
        f"{name:<8} {len(levels):>6} numbers, {levels[1]:.3g} is the smallest, "
        f"{levels[-1]:g} the largest"
    )

# %% [markdown]
# ### The nearest number
#
# Rounding to a grid with gaps of all sizes: find the two numbers between which a value lies, and take the nearer one.
# Half way between, the standards take the one with the **even code**, and so alternate between up and down. Beyond
# the last number a quantizer **saturates**: the last number it is.
#
# By hand, on E2M1:
#
# | $x$ | 0.7 | -1.2 | 2.5 | -5 | 9 |
# |---|---|---|---|---|---|
# | between | 0.5 and 1 | 1 and 1.5 | 2 and 3 | 4 and 6 | beyond 6 |
# | the middle | 0.75 | 1.25 | **2.5** | **5** | |
# | result | 0.5 | -1 | 2 (code 4) | -4 (code 6) | 6 |
#
# ### Exercise 2: `round_to_grid` (12 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `x`, an array of floats of any shape; `levels`, numbers without a sign, ascending from 0, as `float_grid` gives them |
# | result | floats, shape of `x`: the nearest level, with the sign of the value |
# | half way between two levels | the one whose code (its place in `levels`) is even |
# | beyond the last level | the last level |
# | your input | stays as it is |


# %%
def round_to_grid(x, levels):
    """Return what is nearest to each value of x among the levels and their negatives."""
    ### BEGIN SOLUTION
    magnitude = np.abs(x)
    middles = (levels[1:] + levels[:-1]) / 2
    code = np.searchsorted(middles, magnitude)  # half way, it gives the lower of the two
    tie = np.isin(magnitude, middles)
    code = np.where(tie & (code % 2 == 1), code + 1, code)
    return np.copysign(levels[code], x)
    ### END SOLUTION


# %%
check(round_to_grid)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Forget signs and ties. For which values is 1.5 the nearest number of E2M1? From where to where?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# What counts are the borders, half way between neighbours: a value's code is how many borders lie below it.
# `np.searchsorted` counts them. Work on magnitudes, and put the signs back at the end. A value beyond the last border
# has the last code by itself.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# With `side="left"`, the default, a value *on* a border gets the lower code. Where that code is odd, the even one is
# one above: add 1 there. `np.isin` tells which values are on a border, `np.copysign` gives the sign.
#
# </details>

# %%
rounded = or_reference(round_to_grid)

sizes = np.geomspace(1e-4, 1, 4000)  # as parts of the end of the grid
relative = {}
for name, levels in (
    ("INT8", np.arange(128.0)),
    ("E4M3", grid_of(4, 3, "nan")),
    ("E5M2", grid_of(5, 2, "ieee")),
):
    end = levels[-1]
    error = np.abs(rounded(sizes * end, levels) / end - sizes) / sizes
    relative[name] = error.reshape(40, 100).max(axis=1)  # the largest, in 40 ranges

# %% Picture: the largest relative error against the size of a value
figure, panel = new_figure(8.5, 3.2)
for (name, largest), color in zip(relative.items(), (THEORY, QUANTIZED, WARN)):
    panel.loglog(sizes[50::100], largest, color=color)
    panel.annotate(
        name,
        (sizes[-1], largest[-1]),
        (6, 0),
        textcoords="offset points",
        va="center",
        color=color,
    )
panel.set(
    title="An integer keeps the absolute error, a float the relative one",
    xlabel="value / end of the grid",
    ylabel="largest relative error",
    xlim=(1e-4, 2.2),
)
Picture(
    figure,
    "The largest relative error against the size of a value. For INT8 it falls from 1 at "
    "small values to 0.004 at the end of the grid. For E4M3 it is flat at 0.06, for E5M2 "
    "at 0.11, over several powers of ten.",
)

# %% [markdown]
# Near its end INT8 has a finer step than E4M3: 1/127 of the end against 32/448 = 1/14. For values a hundred times
# smaller it is the other way round. So the question is how much of the data is how small, compared with its largest
# value. For a Gaussian with one outlier, by the formula of lab 01: INT8's noise is $(\max|x| / 127)^2 / 12$, so
#
# $$\text{SQNR} = 20 \log_{10} \frac{127 \sqrt{12}\,\sigma}{\max|x|},$$
#
# 6 dB less for each doubling of the outlier. E4M3 loses next to nothing, as long as small values do not fall below
# its smallest numbers. It has 31.6 dB or so on a Gaussian.

# %%
predict(
    "At what outlier, in standard deviations, does INT8 fall to E4M3's 31.6 dB?",
    127 * np.sqrt(12) / 10 ** (31.6 / 20),
    unit="standard deviations",
    tolerance=1.5,
)

# %%
gaussian = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
outliers = np.array([4.5, 6, 8, 11, 16, 32, 64, 128, 256])
curves = {"INT8": [], "E4M3": [], "E5M2": []}
for outlier in outliers:
    x = np.append(np.clip(gaussian, -4.4, 4.4), np.float32(outlier))
    for name, scheme in (
        ("INT8", Scheme(8)),
        ("E4M3", Scheme(grid=E4M3)),
        ("E5M2", Scheme(grid=E5M2)),
    ):
        back = fake_quantize(x, scheme)
        curves[name].append(sqnr_db(x[:-1], back[:-1]))  # of all but the outlier

# %% Picture: SQNR against one outlier
figure, panel = new_figure(8.5, 3.2)
for (name, curve), color in zip(curves.items(), (THEORY, QUANTIZED, WARN)):
    panel.semilogx(outliers, curve, "o-", base=2, ms=4, color=color)
    panel.annotate(
        name,
        (outliers[-1], curve[-1]),
        (8, 0),
        textcoords="offset points",
        va="center",
        color=color,
    )
panel.plot(outliers, 20 * np.log10(127 * np.sqrt(12) / outliers), ":", color=INK, lw=1)
panel.set_xticks(outliers, [f"{outlier:g}" for outlier in outliers])
panel.set(
    title="INT8 is ahead until the largest value is 11 or 12 standard deviations away",
    xlabel="the outlier, in standard deviations of the others",
    ylabel="SQNR of the others (dB)",
    xlim=(4, 450),
)
Picture(
    figure,
    "SQNR of Gaussian values against the size of one outlier among them. INT8 falls by 6 "
    "dB for each doubling, from 40 dB; E4M3 stays at 31 to 32 dB and E5M2 at 26. INT8 and "
    "E4M3 cross between 11 and 12.",
)

# %%
for name, curve in curves.items():
    print(
        f"{name}: {curve[0]:.0f} dB at {outliers[0]:g}, {curve[3]:.0f} dB at 11, "
        f"{curve[-1]:.0f} dB at {outliers[-1]:g}"
    )

# %% [markdown]
# That is all there is to "integer or float?" at 8 bits. At an ordinary 4.5 standard deviations E4M3 pays 8 dB for its
# insurance. E5M2 pays 6 dB more for a range that the scale gives anyway: it is used for gradients, hardly for
# weights.
#
# **Saturate or overflow?** A quantizer saturates. A *cast* may not:

# %% tags=["nbval-ignore-output"]
import torch

values = [448.0, 463.0, 465.0, 1000.0]
print("E4M3, rounded here:     ", rounded(np.array(values), grid_of(4, 3, "nan")))
print(
    "E4M3, torch's cast:     ", torch.tensor(values).to(torch.float8_e4m3fn).float().numpy()
)
try:
    import ml_dtypes  # the small floats of JAX

    with np.errstate(all="ignore"):
        print(
            "E4M3, ml_dtypes' cast:  ",
            np.array(values).astype(ml_dtypes.float8_e4m3fn).astype(float),
        )
except ImportError:
    print("E4M3, ml_dtypes' cast:   not installed here; it gives NaN above 464")
print(
    "E5M2, torch's cast:     ",
    torch.tensor([57344.0, 61440.0, 1e5]).to(torch.float8_e5m2).float().numpy(),
)

# %% [markdown]
# 464 is half way from 448 to 480, which would be the next number, but is NaN. torch 2.13 saturates in E4M3 (on a CPU,
# older versions give NaN), JAX's cast gives NaN above 464, and the cast to E5M2 overflows to infinity in both. The
# OFP8 standard allows either. One value that is a little larger than all others in a calibration set is enough.
# **Clamp, then cast**, as in lab 02.

# %% [markdown]
# ### A power of two for each block
#
# **[MXFP4](../docs/glossary.md#mxfp4)** (OCP's microscaling standard) is E2M1 in blocks of 32, with a scale in **[E8M0](../docs/glossary.md#e8m0)**: eight bits of exponent,
# no sign, no mantissa. So a scale is a power of two. The rule of the standard: the exponent of the block's largest
# magnitude, rounded down, less the exponent of the largest power of two on the grid, which is 4 = $2^2$.
#
# $$\text{scale} = 2^{\lfloor \log_2 \max|x| \rfloor - 2}$$
#
# By hand, two blocks of four:
#
# | block | largest | its exponent | scale | the largest, in steps |
# |---|---|---|---|---|
# | 0.5, -3, 1.25, 2 | 3 = 1.5 · 2 | 1 | $2^{-1}$ = 0.5 | 6 |
# | 0.07, 0.1, -0.11, 0 | 0.11 = 1.76 · 2⁻⁴ | -4 | $2^{-6}$ = 0.015625 | 7.04, which saturates at 6 |
#
# ### Exercise 3: `mxfp4_scales` (8 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `x`, floats of any shape; `block_size`, which divides its last axis |
# | result | floats, shape `(*x.shape[:-1], number of blocks in a row)`: a power of two for each block |
# | a block of zeros | scale 1 |
# | tiny blocks | no scale is below $2^{-127}$, E8M0's smallest number |


# %%
def mxfp4_scales(x, block_size=32):
    """Return the scale of each block along the last axis, by OCP's rule."""
    ### BEGIN SOLUTION
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    _, exponent = np.frexp(peaks)  # peak = part * 2^exponent, with a part from 0.5 on
    scales = np.maximum(2.0 ** (exponent - 1 - 2), 2.0**-127)
    return np.where(peaks == 0, 1, scales)
    ### END SOLUTION


# %%
check(mxfp4_scales)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is `np.floor(np.log2(3.0))`? And of 0.11? Which rounding goes down for negative numbers, too?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Give the blocks an axis of their own, as in lab 04, and take the largest magnitude along it. Its exponent, less 2,
# is the exponent of the scale. Only then look at blocks of zeros, whose logarithm is minus infinity, and at the lower
# end.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `2.0 ** (np.floor(np.log2(peaks)) - 2)`. In float32 `log2` of a number just below a power of two is rounded up to
# it; `np.frexp` takes the exponent out of the bits instead, and counts it one higher.
#
# </details>

# %% tags=["minilm"]
scales_of = or_reference(mxfp4_scales)


def blocks_of(x, size):
    return x.reshape(*x.shape[:-1], -1, size)


def quantized(x, scales, size, levels):
    """x on a grid, with a scale for each block."""
    steps = blocks_of(x, size) / scales[..., None]
    return (rounded(steps, levels) * scales[..., None]).reshape(x.shape)


E2M1_LEVELS = grid_of(2, 1)
scales = scales_of(weights, 32)
mine = quantized(weights, scales, 32, E2M1_LEVELS)
print(
    "the same as labutils' MXFP4:",
    np.allclose(mine, fake_quantize(weights, MXFP4), rtol=1e-6, atol=0),
)
peaks = np.abs(blocks_of(weights, 32)).max(axis=-1)
print(
    "scales:",
    ", ".join(
        f"2^{k:g} for {n}" for k, n in zip(*np.unique(np.log2(scales), return_counts=True))
    ),
)

# %% tags=["minilm"]
beyond = peaks / scales > 6
print(f"{beyond.mean():.0%} of the blocks have values that saturate")

# %% [markdown]
# The largest magnitude of a block lies anywhere from 4 to 8 steps, and the grid ends at 6. Rounding the scale *up*
# would avoid it. Which is better?

# %% tags=["minilm"]
up = quantized(weights, np.where(beyond, 2 * scales, scales), 32, E2M1_LEVELS)
exact = quantized(weights, peaks / 6, 32, E2M1_LEVELS)
for name, back in (("rounded down, OCP", mine), ("rounded up", up), ("any float", exact)):
    print(f"scale {name:<18} SQNR {sqnr_db(weights, back):5.1f} dB")

# %% tags=["minilm"]
# 0: the largest is a power of two; 1: nearly the next one
where = np.log2(peaks / scales) - 2
bins = np.linspace(0, 1, 13)
by_place = {}
for name, back in (("down", mine), ("up", up), ("any float", exact)):
    noise = blocks_of((weights - back) ** 2, 32).mean(axis=-1)
    levels = 10 * np.log10(blocks_of(weights**2, 32).mean(axis=-1) / noise)
    by_place[name] = [
        np.median(levels[(where >= low) & (where < high)]) for low, high in pairwise(bins)
    ]

# %% Picture: SQNR of blocks against the place of their largest magnitude tags=["minilm"]
figure, panel = new_figure(8.5, 3.0)
at = 2 ** ((bins[1:] + bins[:-1]) / 2 + 2)
for (name, curve), color in zip(by_place.items(), (QUANTIZED, WARN, THEORY)):
    panel.plot(at, curve, "o-", ms=3.5, color=color)
    panel.annotate(
        name,
        (at[-1], curve[-1]),
        (8, 0),
        textcoords="offset points",
        va="center",
        color=color,
    )
panel.axvline(6, color=INK, lw=0.8, ls=":")
panel.annotate(
    "end of the grid",
    (6, panel.get_ylim()[0]),
    (-5, 8),
    textcoords="offset points",
    ha="right",
    fontsize=8,
)
panel.set(
    title="A power of two fits only the blocks that happen to end near 6 steps",
    xlabel="largest magnitude of the block, in steps of OCP's scale",
    ylabel="SQNR, median of blocks (dB)",
    xlim=(4, 8.9),
)
Picture(
    figure,
    "SQNR of blocks against the place of their largest magnitude between 4 and 8 steps. "
    "With a scale of any float it is flat. With powers of two it is as good near 6 steps "
    "and worse elsewhere: rounded down it falls steeply beyond 6.5, rounded up it jumps "
    "down at 6.",
)

# %% [markdown]
# A power of two may be off by up to a factor of 2. What that costs an **evenly spaced** grid can be computed: rounded
# up, a scale is
# $2^u$ times too large, with $u$ anywhere from 0 to 1. The noise grows by the mean of $2^{2u}$:

# %% tags=["minilm"]
loss = 10 * np.log10(3 / (2 * np.log(2)))  # the integral of 4^u from 0 to 1
print(f"predicted, evenly spaced: {loss:.2f} dB = {loss / 6.02:.2f} bits")
for name, grid in (("INT4", {"num_bits": 4}), ("E2M1", {"grid": E2M1})):
    costs = []
    for scale_up in (True, False):
        any_float = Scheme(granularity=PerGroup(32), scale_grid=FLOAT16, **grid)
        power = Scheme(granularity=PerGroup(32), scale_grid=E8M0, scale_up=scale_up, **grid)
        back = [fake_quantize(weights, scheme) for scheme in (any_float, power)]
        costs.append(sqnr_db(weights, back[0]) - sqnr_db(weights, back[1]))
    up_text, down_text = (f"{cost:.1f} dB = {cost / 6.02:.1f} bits" for cost in costs)
    print(f"measured, {name}: rounded up {up_text}, rounded down {down_text}")

# %% [markdown]
# Half a bit for integers. FP4 pays 0.3 bits, since a float grid is the same at every power of two: only its two ends
# move. A scale in E8M0 is 8 bits shorter than one in float16, a quarter of a bit for each weight in blocks of 32:
# that is about what it costs. The rest is speed: to scale by a power of two is to add exponents.

# %% [markdown]
# ### Two levels of scales
#
# **[NVFP4](../docs/glossary.md#nvfp4)** has E2M1, too, in blocks of 16 with scales in **E4M3**. These have three bits of mantissa, and fit much
# better. But E4M3 only reaches from 0.002 to 448, and the scales of a tensor may be anything. So there is one more
# scale, a float32 for the whole tensor, that moves the largest block scale to 448:
#
# $$\text{tensor scale} = \frac{\max|x|}{6 \cdot 448} \qquad
# \text{scale} = \text{E4M3}\!\left(\frac{\max|\text{block}|}{6 \cdot \text{tensor scale}}\right) \qquad
# q = \text{E2M1}\!\left(\frac{x}{\text{scale} \cdot \text{tensor scale}}\right)$$
#
# By hand: a tensor of two blocks, whose largest magnitudes are 26.88 and 0.6. The tensor scale is 26.88 / 2688 =
# 0.01. The first block's scale is 26.88 / 6 / 0.01 = 448. The second's is 0.6 / 6 / 0.01 = 10, which E4M3 has. There
# -0.3 becomes -0.3 / (10 · 0.01) = -3, 0.2 becomes 2, and 0.02 becomes 0.2, so 0.
#
# ### Exercise 4: `nvfp4_quantize` (12 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `x`, floats of any shape; its last axis is a multiple of 16 |
# | result | `q, scales, tensor_scale` |
# | `q` | floats, shape of `x`: numbers of E2M1 (not their codes) |
# | `scales` | floats, shape `(*x.shape[:-1], number of blocks in a row)`: numbers of E4M3 |
# | no scale is 0 | where it would round to 0 (zeros, or a tiny block) it is $2^{-9}$, E4M3's smallest number |
# | `tensor_scale` | one positive number; 1 where all of `x` is 0 |
#
# The two grids are there, and your `round_to_grid`, or the course's until yours passes, is `rounded`.

# %%
E2M1_LEVELS, E4M3_LEVELS = grid_of(2, 1), grid_of(4, 3, "nan")


# %%
def nvfp4_quantize(x):
    """Return q, scales, tensor_scale: x is about q * its block's scale * tensor_scale."""
    ### BEGIN SOLUTION
    blocks = x.reshape(*x.shape[:-1], -1, 16)
    tensor_scale = np.abs(x).max() / (6 * 448) or 1.0
    scales = rounded(np.abs(blocks).max(axis=-1) / 6 / tensor_scale, E4M3_LEVELS)
    scales = np.maximum(scales, 2.0**-9)
    q = rounded(blocks / (scales[..., None] * tensor_scale), E2M1_LEVELS)
    return q.reshape(x.shape), scales, tensor_scale
    ### END SOLUTION


# %%
check(nvfp4_quantize)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which block has the scale 448? What is its scale, times the tensor scale, times 6?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# From the outside to the inside: the scale of the tensor first; then the scales of the blocks, in units of it, on
# their grid; then the values, in units of *rounded* scale times tensor scale, on theirs. Each step uses what the one
# before it has rounded.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `rounded(peaks / 6 / tensor_scale, E4M3_LEVELS)`, then `np.maximum(..., 2.0**-9)`. `rounded(blocks / (scales[...,
# None] * tensor_scale), E2M1_LEVELS)`, and back to the shape of `x`.
#
# </details>

# %% tags=["minilm"]
quantize = or_reference(nvfp4_quantize)


def restored(q, scales, tensor_scale):
    return q * np.repeat(scales, 16, axis=-1) * tensor_scale


print("weights times   two levels   scales in E4M3 alone")
for factor in (1e-4, 1e-2, 1, 1e4):
    x = weights * np.float32(factor)
    two = sqnr_db(x, restored(*quantize(x)))
    one = sqnr_db(x, fake_quantize(x, replace(NVFP4, tensor_scale=False)))
    print(f"{factor:>13g} {two:9.1f} dB {one:19.1f} dB")
exact = fake_quantize(weights, Scheme(grid=E2M1, granularity=PerGroup(16)))
print(f"with float32 scales, 6 bits per weight: {sqnr_db(weights, exact):.1f} dB")

# %% [markdown]
# For these weights, as they are, one level would do. Divided by a hundred, their scales lie below E4M3's smallest
# number, 0.002; times ten thousand, the largest lie beyond 448. The second level makes the format independent of the
# unit, and costs one float. With the block scales in float32 it would be 0.1 dB better, for 1.5 bits more: eight bits
# of scale are enough, if they are the right eight.

# %% [markdown]
# ### A grid made for a Gaussian
#
# **[NF4](../docs/glossary.md#nf4)** (QLoRA) is no float at all, but a table of 16 numbers. The idea: weights look Gaussian, so place the numbers
# at *quantiles* of a Gaussian, so that each would be used by about as many of its values. Two conditions: there must be an exact 0,
# and the ends are -1 and 1, so that the scale is max|x|.
#
# The quantile $\Phi^{-1}(p)$ is the value below which a share $p$ of all lies. At $p = 0$ and 1 it is infinite, so
# the table stays away from both by $d = \frac14 \left(\frac1{2^b} + \frac1{2^b - 1}\right)$. Below 0 there is one
# number less than above it, because of the 0: the probabilities are $2^{b-1}$ evenly spaced ones from $d$ to
# $\frac12$, and $2^{b-1} + 1$ from $\frac12$ to $1 - d$, with $\frac12$ in both (and kept once). Divide by the
# largest.
#
# By hand, at 2 bits: $d$ = (1/4 + 1/3) / 4 = 0.1458.
#
# | $p$ | 0.1458 | 0.5 | 0.6771 | 0.8542 |
# |---|---|---|---|---|
# | $\Phi^{-1}(p)$ | -1.0545 | 0 | 0.4596 | 1.0545 |
# | / 1.0545 | -1 | 0 | 0.4358 | 1 |
#
# ### Exercise 5: `normal_float` (8 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `num_bits` $b$, from 2 on |
# | result | floats, shape $(2^b,)$, ascending from -1 to 1, one of them exactly 0 |
#
# Python's `NormalDist().inv_cdf(p)` is $\Phi^{-1}(p)$, for one probability at a time; it is imported above.


# %%
def normal_float(num_bits=4):
    """Return the 2^num_bits numbers of NormalFloat, ascending."""
    ### BEGIN SOLUTION
    half = 2 ** (num_bits - 1)
    d = (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    below = np.linspace(d, 0.5, half)[:-1]
    above = np.linspace(0.5, 1 - d, half + 1)[1:]
    quantile = NormalDist().inv_cdf
    values = [quantile(p) for p in below] + [0.0] + [quantile(p) for p in above]
    return np.array(values) / values[-1]
    ### END SOLUTION


# %%
check(normal_float)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `np.linspace` makes evenly spaced probabilities. How many of the 16 numbers are below 0, and how many above?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Make the two sides apart, each without its 1/2, and put an exact 0.0 between them. At 4 bits: 7 numbers below, the
# 0, 8 above.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `np.linspace(d, 0.5, half)[:-1]` and `np.linspace(0.5, 1 - d, half + 1)[1:]`, with `half` = $2^{b-1}$; the quantile
# of each; all divided by the last.
#
# </details>

# %%
table = or_reference(normal_float)(4)
print("off from the published table by at most", f"{np.abs(table - NF4.levels).max():.0e}")

# %% Picture: the numbers of NF4, E2M1 and INT4
figure, panel = new_figure(8.5, 2.7)
line = np.linspace(-1, 1, 400)
# where the table ends, in standard deviations
end = NormalDist().inv_cdf(1 - (1 / 16 + 1 / 15) / 4)
panel.fill_between(line, np.exp(-((line * end) ** 2) / 2), color=ORIGINAL, alpha=0.35, lw=0)
panel.vlines(table, 0, 1.05, color=GOOD, lw=1.5)
panel.vlines(np.unique(E2M1.levels) / 6, -0.35, -0.05, color=QUANTIZED, lw=1.5)
panel.vlines(np.arange(-7, 8) / 7, -0.75, -0.45, color=THEORY, lw=1.5)
panel.set_yticks([0.5, -0.2, -0.6], ["NF4", "E2M1", "INT4"])
panel.grid(False)
panel.set(
    title="NF4's numbers follow the density of a Gaussian",
    xlabel="number / end of the grid",
)
Picture(
    figure,
    "The numbers of NF4 over the density of a Gaussian: close together at 0, wide apart "
    "at the ends, and one more above 0 than below. Underneath those of E2M1, also denser "
    "at 0, and of INT4, evenly spaced.",
)

# %% [markdown]
# ## Drag your own code
#
# The same explorer, running your `round_to_grid` (but for NF4, whose numbers are not the same on both sides of 0).

# %% tags=["minilm"]
explore_grids(weights, round_to_grid=round_to_grid)

# %% [markdown]
# ## See it on real tensors
#
# All 36 linear layers of MiniLM's encoder, and what enters two of them while 32 sentences go through. Where MiniLM is
# missing, an untrained transformer with outliers put in by hand stands in.

# %% tags=["nbval-ignore-output"]
from labutils import outliers as observing
from labutils.models import linear_layers

torch.set_num_threads(1)
try:
    encoder = data.sentence_encoder()
    print("MiniLM")
except LookupError as missing:
    from labutils.data.stand_in import untrained_encoder

    encoder = untrained_encoder()
    print(f"An untrained transformer stands in for MiniLM: {missing}")

matrices = [
    layer.weight.detach().numpy() for layer in linear_layers(encoder.model).values()
]
LAYERS = ("encoder.layer.1.intermediate.dense", "encoder.layer.1.output.dense")
with observing.observe(encoder.model, keep=LAYERS) as seen:
    encoder.encode(data.calibration_sentences()[:32])
activations = [seen.inputs[name].numpy() for name in LAYERS]  # (tokens, channels)

# %% tags=["minilm"]
formats = {
    "INT4 g128": FORMATS["INT4 g128"],
    "INT4 g64": replace(FORMATS["INT4 g32"], granularity=PerGroup(64)),
    "INT4 g32": FORMATS["INT4 g32"],
    "INT4 g16": FORMATS["INT4 g16"],
    "NF4 g64": FORMATS["NF4 g64"],
    "MXFP4": MXFP4,
    "NVFP4": NVFP4,
    "FP8": FP8,  # E4M3, a scale for each row
    "MXFP8": MXFP8,
    "INT8": FORMATS["INT8"],  # a scale for each row
}
table = {}  # name: (bits, mean SQNR of the weights, mean SQNR of the activations)
for name, scheme in formats.items():
    kept = [
        [sqnr_db(x, fake_quantize(x, scheme)) for x in tensors]
        for tensors in (matrices, activations)
    ]
    table[name] = bits_per_weight(scheme, weights.shape), *map(np.mean, kept)
print("format        bits   weights   activations")
for name, (price, of_weights, of_activations) in table.items():
    print(f"{name:<10} {price:7.2f} {of_weights:6.1f} dB {of_activations:10.1f} dB")

# %% Picture: SQNR against bits per value, weights and activations tags=["minilm"]
figure, panels = new_figure(8.5, 3.6, columns=2)
offsets = {"INT4 g16": (5, -10)}
for panel, column, title in zip(
    panels, (1, 2), ("Weights: NF4 and NVFP4 lead", "Activations: NVFP4 is alone")
):
    for name, row in list(table.items())[:7]:
        color = THEORY if name.startswith("INT") else QUANTIZED
        panel.plot(row[0], row[column], "o", ms=6, color=color)
        panel.annotate(
            name,
            (row[0], row[column]),
            (-8, -3) if name == "NVFP4" else offsets.get(name, (8, -3)),
            textcoords="offset points",
            ha="right" if name == "NVFP4" else "left",
            fontsize=8.5,
        )
    panel.set(title=title, xlabel="bits per value, scales counted", xlim=(4.05, 5.35))
panels[0].set_ylabel("SQNR (dB)")
Picture(
    figure,
    "SQNR against bits per value at 4 bits. On weights NF4 and NVFP4 lie above the line of "
    "INT4's group sizes, MXFP4 just below it. On activations NVFP4 is far above all "
    "others.",
)


# %% tags=["minilm"]
def ahead(first, second, column):
    return f"{first} is {table[first][column] - table[second][column]:+.1f} dB ahead of {second}"


for column, of in ((1, "weights"), (2, "activations")):
    print(f"{of}:")
    for pair in (
        ("NVFP4", "MXFP4"),
        ("NF4 g64", "INT4 g32"),
        ("NVFP4", "INT4 g32"),
        ("INT8", "FP8"),
    ):
        print("  ", ahead(*pair, column))

# %% [markdown]
# On weights: NVFP4 is far ahead of MXFP4, which INT4 in groups of 64 beats at the same price; NF4 is ahead of INT4 at
# equal bits (a float32 scale for 64 against a float16 one for 32), and INT8 far ahead of FP8. On activations INT8
# with a scale for each token has *lost* its lead. The law above says when: where the largest value of a row is more
# than 11 times its standard deviation.


# %% tags=["minilm"]
def reach(rows):
    """How far the largest value of each row is, in root mean squares of the row."""
    return np.abs(rows).max(axis=1) / np.sqrt(np.mean(rows**2, axis=1))


print("                              median reach   beyond 11    INT8    FP8")
for name, x in (("weights, layer 1 output", weights), *zip(LAYERS, activations)):
    far = reach(x)
    levels = [sqnr_db(x, fake_quantize(x, scheme)) for scheme in (FORMATS["INT8"], FP8)]
    name = name.removeprefix("encoder.").removesuffix(".dense")
    print(
        f"{name:<28} {np.median(far):12.1f} {np.mean(far > 11):11.0%} {levels[0]:8.1f} "
        f"{levels[1]:6.1f} dB"
    )

# %% [markdown]
# The share of all rows is not the whole story: the tokens with large outliers also carry most of the noise. With
# *one* scale for all tokens (lab 08's static quantization), the gap is wide:

# %% tags=["minilm"]
for name, x in zip(LAYERS, activations):
    levels = [
        sqnr_db(x, fake_quantize(x, scheme)) for scheme in (Scheme(8), Scheme(grid=E4M3))
    ]
    print(
        f"{name.removeprefix('encoder.'):<28} INT8 {levels[0]:.1f} dB, E4M3 "
        f"{levels[1]:.1f} dB"
    )

# %% [markdown]
# This is why FP8 is popular although integers are better on weights: it needs no care. Lab 08's smoothing and lab
# 12's rotations take care, and then integers win on activations, too.

# %% [markdown]
# ## In the wild
#
# **Who runs what.** NVIDIA's Hopper and AMD's MI300 multiply FP8; Blackwell and MI350 also MXFP4, and Blackwell
# NVFP4. NF4 has no hardware: bitsandbytes looks each code up and multiplies in 16 bits, which saves memory and not
# arithmetic. On a CPU all of these are simulated, as here.
#
# **Not all MXFP4 is the same.** The standard's rounding down is its default, and libraries offer others: torchao has
# a parameter for it (FLOOR, CEIL, EVEN, RCEIL). Files say nothing about it, and need not: scales are stored, so
# readers agree whatever the writer did. But two writers do not:

# %% tags=["minilm"]
ocp, covering = (
    fake_quantize(weights, replace(MXFP4, scale_up=scale_up)) for scale_up in (False, True)
)
differ = np.any(blocks_of(ocp != covering, 32), axis=-1)
print(f"blocks that come out differently: {differ.mean():.0%}")
print(
    f"SQNR: {sqnr_db(weights, ocp):.1f} dB rounded down, {sqnr_db(weights, covering):.1f} "
    f"dB rounded up"
)

# %% [markdown]
# Rounded up nothing saturates, and the mean error is about the same. Which is better for a model is an open question: a
# large weight that is cut off by a quarter may hurt more than its share of the mean squared error. When you compare
# two "MXFP4" results, ask for the rule.
#
# **One name, two formats.** AMD's MI300 has an E4M3 of its own: bias 8, no negative zero, largest number 240. Same
# name, same bits, other numbers:

# %%
x = torch.tensor([1.0, -0.4, 100.0])
byte = x.to(torch.float8_e4m3fn)
print("stored as E4M3:  ", byte.float().tolist())
print("read as MI300's: ", byte.view(torch.float8_e4m3fnuz).float().tolist())

# %% [markdown]
# A checkpoint that was written for the one and read as the other has all weights halved: 6 dB, and no error message.
# vLLM doubles the scales when it loads such a checkpoint there. This is also where the "240" comes from that some
# texts give as the largest number of E4M3.
#
# **A published mistake: FP8 without its clamp.** Static FP8 in transformers divided by a calibrated scale and cast
# (pull request 42775, December 2025). A token larger than all of the calibration set became NaN, and a line further
# down replaced NaN by 0: no error, no NaN, and a wrong model. Reproduced with a cast that does not saturate, as
# torch's on a CPU was then:


# %%
def cast_to_e4m3(x):
    """Without saturation: what rounds beyond 448 is NaN."""
    return np.where(np.abs(x) > 464, np.nan, rounded(x, E4M3_LEVELS))


x = np.array([0.5, -2.0, 3.0, 4.3])
scale = 3.0 / 448  # the largest value of the calibration set was 3
cast = cast_to_e4m3(x / scale) * scale
hidden = np.nan_to_num(cast, nan=0.0)
clamped = cast_to_e4m3(np.clip(x / scale, -448, 448)) * scale
for name, y in (
    ("x", x),
    ("cast", cast),
    ("NaN to 0", hidden),
    ("clamp, then cast", clamped),
):
    print(f"{name:<17}", " ".join(f"{value:6.2f}" for value in y))

# %% [markdown]
# The largest value, which mattered most, is gone; clamped, it is 3.

# %% [markdown]
# ## In practice
#
# In torchao each of these formats is a kind of tensor, with the codes in its bytes and the scales beside them. (They are among its
# prototypes.) On a CPU it computes in floats, on Blackwell with the hardware. Does it choose the same numbers as this course?

# %%
import logging

logging.disable(logging.WARNING)  # torchao tells of its kernels for other machines
try:
    from torch import float4_e2m1fn_x2, float8_e4m3fn
    from torchao.prototype.mx_formats import mx_tensor, nvfp4_tensor
except ImportError:
    print("Needs torchao, 0.18 or later: pip install torchao")
else:
    w = torch.tensor(weights)
    scale = nvfp4_tensor.per_tensor_amax_to_scale(w.abs().max())
    for name, theirs in (
        ("MXFP4", mx_tensor.MXTensor.to_mx(w, float4_e2m1fn_x2)),
        ("MXFP8", mx_tensor.MXTensor.to_mx(w, float8_e4m3fn)),
        ("NVFP4", nvfp4_tensor.NVFP4Tensor.to_nvfp4(w, per_tensor_scale=scale)),
    ):
        ours = fake_quantize(weights, FORMATS[name])
        print(name, np.array_equal(theirs.dequantize(torch.float32).numpy(), ours))

# %% [markdown]
# Every one of 589,824 numbers, in all three.

# %% [markdown]
# ## Stretch
#
# ### Exercise 6: `kmeans_codebook` (12 minutes, ●●○)
#
# NF4 is made for a Gaussian. A better table for *your* values can be found: place $2^b$ values anywhere, and repeat
# until nothing moves: each value moves to the mean of the data that is nearest to it (Lloyd's method; k-means on a
# line).
#
# | | |
# |---|---|
# | input | `x`, floats of any shape, with at least $2^b$ different values; `num_bits` $b$ |
# | result | floats, shape $(2^b,)$, ascending: each is the mean of what is nearest to it |
# | a value to which nothing is nearest | stays where it is |
# | where to start | spread over all of the data, such as evenly: from a bad start Lloyd's method ends badly |
# | when to stop | another round would lower the mean squared error by less than 1% |
#
# By hand: -8, -8, -1, 1, 4, 5, 8 at 2 bits, from -8, -2.67, 2.67, 8 on. Nearest to them are {-8, -8}, {-1}, {1, 4, 5}
# and {8}; the means are -8, -1, 3.33, 8. Now 1 is nearer to -1: {-1, 1} and {4, 5}, and the means are -8, 0, 4.5, 8.
# Nothing moves any more.


# %%
def kmeans_codebook(x, num_bits=4):
    """Return the 2^num_bits values, ascending, that keep most of x."""
    ### BEGIN SOLUTION
    flat = x.reshape(-1).astype(np.float64)
    values = np.linspace(flat.min(), flat.max(), 2**num_bits)
    for _ in range(100):
        place = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
        count = np.bincount(place, minlength=len(values))
        total = np.bincount(place, weights=flat, minlength=len(values))
        values = np.where(count > 0, total / np.maximum(count, 1), values)
    return values
    ### END SOLUTION


# %%
check(kmeans_codebook)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# You have half of it: the place of the nearest value, from the borders half way between neighbours.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `np.bincount(place, weights=x)` is the sum of what is nearest to each value, `np.bincount(place)` how many these
# are. Their quotient is where the values move. A hundred rounds are enough.
#
# </details>

# %% tags=["minilm"]
from labutils import Codebook
from labutils import kmeans_codebook as kmeans_of_groups

units = blocks_of(weights, 64) / np.abs(blocks_of(weights, 64)).max(axis=-1, keepdims=True)
fitted = or_reference(kmeans_codebook)(units[::8], 4)
weighed = kmeans_of_groups(weights, 4, PerGroup(64))
for name, grid in (
    ("INT4", Scheme(4).grid),
    ("E2M1", E2M1),
    ("NF4", NF4),
    ("fitted, each group alike", Codebook(fitted, range=1.0)),
    ("fitted, by their scales", weighed),
):
    back = fake_quantize(weights, Scheme(grid=grid, granularity=PerGroup(64)))
    print(f"{name:<25} {sqnr_db(weights, back):.1f} dB")

# %% [markdown]
# The first fit is *worse* than NF4: it minimizes the error of x / max|x|, in which every group counts alike. What
# counts is the error of x, and there a group weighs as much as its squared scale. Say so to Lloyd's method (each mean
# becomes a weighted one; `labutils.kmeans_codebook` does that), and the table beats NF4. From evenly spaced to
# fitted, the grid is worth 2.6 dB: less than half a bit.

# %% [markdown]
# ## Interview questions
#
# <details><summary>INT8 or FP8 for the weights of a model?</summary>
#
# INT8, as far as the error goes: with a scale for each row the largest weight is mostly 4 to 6 standard deviations
# away, where integers are ahead by 6 to 9 dB. FP8 where the hardware has no fast INT8 path, or where activations are FP8
# anyway.
#
# </details>
# <details><summary>Why does E4M3 end at 448 and not at 480 or 240?</summary>
#
# Exponent 15 - 7 = 8, so 256 times up to 1.875 would be 480; that one code is NaN, and 1.75 · 256 = 448 is the last.
# An IEEE format would give up the whole exponent 15 and end at 240.
#
# </details>
# <details><summary>MXFP4 and NVFP4 have the same numbers. Why is NVFP4 2 dB better?</summary>
#
# Its scales: with three bits of mantissa they fit each block, where a power of two is off by up to a factor of 2.
# That is most of it; blocks of 16 in place of 32 are the rest, and cost a quarter of a bit.
#
# </details>
# <details><summary>What are subnormal numbers good for in a format of 4 bits?</summary>
#
# In E2M1 only 0.5 is one, and 0 itself. Without it the smallest number would be 1, a sixth of the largest, and
# everything below half of that would become 0.
#
# </details>
# <details><summary>Why does NF4 have to have an exact 0?</summary>
#
# Padding, pruned weights and dead channels are 0 and must stay 0, or every one of them adds a small error of the same
# sign (lab 02). The price is that the table is not the same on both sides.
#
# </details>
# <details><summary>A vendor says "4-bit". What do you ask?</summary>
#
# Which grid, which block size, which grid of scales, and whether the bits per weight count them: 4.125 to 5 here. And
# whether activations are 4 bits as well.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - A format is a grid and a rule for its scales. The grid says where the numbers are, the scale what they stand for.
# - A float keeps the relative error, an integer the absolute one. At 8 bits they cross where the largest value is 11
#   standard deviations away.
# - Subnormal numbers fill the gap at 0; E4M3 ends at 448. Clamp, then cast.
# - A scale that is a power of two costs integers half a bit, FP4 about 0.3. E4M3 scales cost next to nothing, with
#   one float for the tensor.
# - At equal bits, NF4 and NVFP4 are 0.6 to 1.5 dB better than INT4 on weights: a tenth to a quarter of a bit. On
#   activations NVFP4 is 5 dB better.
