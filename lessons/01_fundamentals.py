# %% [markdown]
# # 01 · Fundamentals: grid, scale, error
#
# **Time:** 75 minutes; stretch: 25 more. **You need:** lab 00, NumPy; no PyTorch.
#
# At the end of this lab you can
#
# - write symmetric quantization and its inverse, for any bit width,
# - say how large the error will be before you measure it: at most $\Delta/2$, on average $\Delta^2/12$, 6 dB a bit,
# - explain what one outlier does, and when it pays to clip it,
# - recognise four ways in which quantizers are written or tested wrongly.

# %%
import numpy as np

from labutils import (
    check,
    data,
    explore_bits,
    explore_clipping,
    or_reference,
    predict,
    theory,
)

network = data.digits_network()
weights = network.weights["block3.pointwise.weight"].reshape(128, 64)  # trained, float32

# %% [markdown]
# ## Why
#
# The network of lab 00 keeps 17 802 numbers in 32 bits each. Do its weights need them? Round every weight to one of 255
# values, and count how many of the 540 test images are still read correctly:

# %%
from labutils import Scheme, fake_quantize

matrices = {name: w for name, w in network.weights.items() if w.ndim > 1}  # not the biases
rounded = {name: fake_quantize(w, Scheme(num_bits=8)) for name, w in matrices.items()}
print(f"weights in 32 bits: {network.accuracy():.1%}")
print(f"weights in  8 bits: {network.accuracy(rounded):.1%}")

# %% [markdown]
# Three quarters of the memory were not needed. This lab is about how that rounding works, and how to predict what it
# costs.

# %% [markdown]
# ## Play first
#
# The explorer below shows 8192 trained weights (blue) and the same weights on a [grid](../docs/glossary.md#grid) of few values (orange). Each orange
# block is one value of the grid: it is as wide as the step between values and as high as its share of the weights. On
# the right is the quality as a *signal to quantization noise ratio*, [SQNR](../docs/glossary.md#sqnr), in decibels: 10 dB more is a tenth of the
# noise power, 20 dB more is a hundredth.
#
# **Predict** first.

# %%
predict(
    "Each bit less makes the grid twice as coarse. By how many decibels does the SQNR drop for one bit?",
    10 * np.log10(4),
    unit="dB",
    tolerance=0.5,
)

# %%
explorer = explore_bits(weights)
drop = [
    explorer.compute({"num_bits": 8, "outlier": outlier}).sqnr_db for outlier in (1, 10)
]
predict(
    "One of the 8192 weights, the largest, is made 10 times larger. By how many decibels does the SQNR drop at 8 bits?",
    drop[0] - drop[1],
    unit="dB",
    tolerance=2,
)

# %% [markdown]
# **Drag** the bits down to 2, then back to 8. Then drag the [outlier](../docs/glossary.md#outlier) up. **Observe** the number of codes in
# use. (The diamond is that weight. Beyond the others, where the picture is shaded, the axis is squeezed, so that you can
# follow it.)

# %%
explorer

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>Why do 8191 weights suffer, when only one was changed?</summary>
#
# The grid must reach as far as the largest weight. Make that one ten times larger, and all steps become ten times
# longer: the other 8191 weights share a tenth of the codes.
#
# </details>

# %% [markdown]
# You will build the grid now, and come back to outliers.

# %% [markdown]
# ## Build it
#
# ### The grid and the scale
#
# A *[symmetric](../docs/glossary.md#symmetric-quantization)* quantizer of $b$ bits has the [integer **codes**](../docs/glossary.md#integer-code) $q = -2^{b-1}, \dots, 2^{b-1}-1$. The code $q$ stands for
# the value $q \cdot \Delta$. The step $\Delta$ is called the **[scale](../docs/glossary.md#scale)**, and the largest magnitude gets the largest code:
#
# $$\text{scale} = \frac{\max|x|}{2^{b-1}-1} \qquad q = \operatorname{clamp}\!\left(\operatorname{round}\!\left(\frac{x}{\text{scale}}\right),\, -2^{b-1},\, 2^{b-1}-1\right) \qquad x' = q \cdot \text{scale}$$
#
# By hand, at 8 bits, where the largest code is 127:
#
# | | | | | |
# |---|---|---|---|---|
# | $x$ | -1.013 | 0.3 | 0.786 | **2.54** |
# | scale | | | | 2.54 / 127 = 0.02 |
# | $x$ / scale | -50.65 | 15 | 39.3 | 127 |
# | $q$ | -51 | 15 | 39 | 127 |
# | $x' = q \cdot$ scale | -1.02 | 0.3 | 0.78 | 2.54 |
# | error $x - x'$ | 0.007 | 0 | 0.006 | 0 |
#
# No error is larger than half a step, 0.01.
#
# ### Exercise 1: `quantize_symmetric` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `x`, a NumPy array of floats, any shape; `num_bits` from 2 to 16 |
# | result | `q, scale` |
# | `q` | the shape of `x`; `int8` up to 8 bits, `int16` above; codes in $[-2^{b-1}, 2^{b-1}-1]$ |
# | `scale` | one positive number for the whole array |
# | rounding | to the nearest integer; ties as you like (`np.round` takes the even one) |
# | an all-zero `x` | codes 0, any positive scale: take 1 |
# | tiny values | no smallest scale: `1e-9 * x` has the same codes as `x` |
# | your input | stays as it is |


# %%
def quantize_symmetric(x, num_bits=8):
    """Return (q, scale): the integer codes of x, and the one scale they share."""
    ### BEGIN SOLUTION
    quant_max = 2 ** (num_bits - 1) - 1
    largest = np.abs(x).max()
    scale = largest / quant_max if largest > 0 else np.float32(1)
    q = np.clip(np.round(x / scale), -quant_max - 1, quant_max)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale
    ### END SOLUTION


# %%
check(quantize_symmetric)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Four lines: the largest code, the scale, the codes, the cast. Work the example above through by hand and compare after
# each line.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# The scale is a length: how much one step is worth. `x / scale` is then a number of steps, which you round. Only when
# the numbers are whole and in range is it safe to cast them to an integer dtype.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $\text{scale} = \max|x| / (2^{b-1} - 1)$, or 1 where that is 0. `np.abs`, `np.round`, `np.clip` and `.astype` are all
# you need.
#
# </details>

# %% [markdown]
# ### Exercise 2: `dequantize_symmetric` (3 minutes, ●○○)
#
# | | |
# |---|---|
# | input | `q`, integer codes; `scale`, a NumPy number or a Python float |
# | result | `float32`, the shape of `q`: each code times the scale |


# %%
def dequantize_symmetric(q, scale):
    """Return the float32 values that the codes q stand for."""
    ### BEGIN SOLUTION
    return q.astype(np.float32) * np.float32(scale)
    ### END SOLUTION


# %%
check(dequantize_symmetric)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is the dtype of `np.int8(3) * 0.5`? Try it in a new cell.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Turn the codes to `float32` first, and the scale too. Then nothing can become `float64`.
#
# </details>

# %% [markdown]
# Here is what your two functions do to a straight line. Until they pass, the cells from here on use the course's own.

# %%
quantize, dequantize = or_reference(quantize_symmetric), or_reference(dequantize_symmetric)

line = np.linspace(-1, 1, 801, dtype=np.float32)
steps = dequantize(*quantize(line, num_bits=3))

# %% Picture: a straight line, its staircase at 3 bits, and the error
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, INK, ORIGINAL, QUANTIZED, THEORY

figure, (left, right) = new_figure(columns=2)
left.plot(line, line, color=ORIGINAL, label="x")
left.plot(line, steps, color=QUANTIZED, label="x' at 3 bits")
left.set(title="Seven values stand for all of them", xlabel="x", ylabel="value")
left.legend()
right.plot(line, line - steps, color=QUANTIZED)
right.axhline(1 / 6, color=THEORY, ls="--")
right.axhline(-1 / 6, color=THEORY, ls="--", label="± scale / 2")
right.set(
    title="The error never exceeds half a step",
    xlabel="x",
    ylabel="x - x'",
    ylim=(-0.25, 0.3),
)
right.legend(loc="upper right")
Picture(
    figure,
    "A straight line and its staircase of seven steps at 3 bits. "
    "The error is a saw tooth between plus and minus scale / 2.",
)

# %% [markdown]
# ### Exercise 3: `quantization_error` (8 minutes, ●●○)
#
# One number does not describe an error, so we use six. With $e = x - x'$, the original minus the dequantized:
#
# | key | meaning |
# |---|---|
# | `mse` | mean of $e^2$ |
# | `mae` | mean of $\lvert e \rvert$ |
# | `max_error` | largest $\lvert e \rvert$ |
# | `relative_error` | `mse` / variance of the original; 0 where `mse` is 0 |
# | `sqnr_db` | $10 \log_{10}(\text{mean of } x^2 / \text{mean of } e^2)$; `inf` where nothing was lost |
# | `codes_used` | how many *distinct* codes occur in `quantized` |
#
# By hand: $x = [-1, 0, 1, 2]$ comes back as $[-1, 0, 1, 1]$ with codes $[-1, 0, 1, 1]$. Then $e = [0, 0, 0, 1]$, so `mse`
# = 1/4, `mae` = 1/4, `max_error` = 1. The mean of $x^2$ is 6/4, so `sqnr_db` = $10 \log_{10} 6$ = 7.78. The variance is
# 6/4 - (2/4)² = 1.25, so `relative_error` = 0.2. `codes_used` = 3.


# %%
def quantization_error(original, quantized, dequantized):
    """Return a dict with mse, mae, max_error, relative_error, sqnr_db and codes_used."""
    ### BEGIN SOLUTION
    error = original.astype(np.float64) - dequantized
    mse = np.mean(error**2)
    lossless = mse == 0
    return {
        "mse": mse,
        "mae": np.mean(np.abs(error)),
        "max_error": np.max(np.abs(error)),
        "relative_error": 0.0 if lossless else mse / np.var(original),
        "sqnr_db": np.inf
        if lossless
        else 10 * np.log10(np.mean(original.astype(np.float64) ** 2) / mse),
        "codes_used": len(np.unique(quantized)),
    }
    ### END SOLUTION


# %%
check(quantization_error)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Compute `error` once. Five of the six numbers are a line each from there, the sixth needs only `quantized`.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Decibels of a ratio of *powers* are $10 \log_{10}$. A mean square is a power. Signal goes above, noise below, so a
# better quantizer has more decibels.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# `np.var(original)` is the variance, `np.unique` gives the distinct codes, and where `mse == 0` nothing may be divided:
# the answer is `np.inf`.
#
# </details>

# %% [markdown]
# ## Drag your own code
#
# The explorer from above again. This time its sliders run *your* `quantize_symmetric`. If it is not done yet, or wrong,
# the line below the picture says so. Change your function, run its cell and this one, and drag again.

# %%
explore_bits(weights, quantize=quantize_symmetric)

# %% [markdown]
# ## How large is the error?
#
# ### At most half a step
#
# Rounding goes to the nearest multiple of $\Delta$, so no value moves by more than $\Delta/2$. Within that bound the error
# is spread almost evenly, as long as the steps are small against the width of the distribution:

# %%
errors = {}  # in steps
for num_bits in (2, 4, 8):
    q, scale = quantize(weights, num_bits)
    errors[num_bits] = (weights - dequantize(q, scale)) / scale

# %% Picture: how the error is spread at 2, 4 and 8 bits
figure, panels = new_figure(columns=3, height=2.6, sharey=True)
for panel, (num_bits, error) in zip(panels, errors.items()):
    panel.hist(
        error.ravel(), 40, range=(-0.5, 0.5), density=True, color=QUANTIZED, alpha=0.7
    )
    panel.axhline(1, color=THEORY, ls="--", label="even")
    panel.set(
        title=f"{num_bits} bits: at most {np.abs(error).max():.3f} Δ", xlabel="error / Δ"
    )
panels[0].set_ylabel("density")
panels[2].legend(loc="lower center")
Picture(
    figure,
    "Histograms of the error in steps at 2, 4 and 8 bits, never beyond half a step: "
    "a hill around 0 at 2 bits, flat at 4 and 8.",
)

# %% [markdown]
# ### On average $\Delta^2/12$
#
# If the error is spread evenly over $[-\Delta/2, \Delta/2]$, its density is $1/\Delta$, and its mean square is
#
# $$\int_{-\Delta/2}^{\Delta/2} e^2 \,\frac{1}{\Delta}\, de = \frac{1}{\Delta}\left[\frac{e^3}{3}\right]_{-\Delta/2}^{\Delta/2} = \frac{\Delta^2}{12}.$$
#
# So the scale alone predicts the error, before anything is quantized. Measured, for the trained weights and for a
# million values spread evenly:

# %%
measure = or_reference(quantization_error)

uniform = np.random.default_rng(0).uniform(-1, 1, 1_000_000).astype(np.float32)
print("mse / (Δ²/12)     2 bits   3 bits   4 bits   6 bits   8 bits")
for name, x in (("uniform", uniform), ("trained weights", weights)):
    ratios = []
    for num_bits in (2, 3, 4, 6, 8):
        q, scale = quantize(x, num_bits)
        ratios.append(
            measure(x, q, dequantize(q, scale))["mse"] / theory.rounding_noise(scale)
        )
    print(f"{name:<16}" + "".join(f"{ratio:9.2f}" for ratio in ratios))
zeros = np.mean(quantize(weights, 2)[0] == 0)
print(f"trained weights that become 0 at 2 bits: {zeros:.0%}")

# %% [markdown]
# For the uniform source the law holds at every width. For the weights it fails at 2 bits: nearly all of them become 0,
# and their error is not spread over a step but is the weight itself.
#
# ### 6.02 dB a bit
#
# One bit more doubles the number of steps and halves $\Delta$, so the noise power falls to a quarter, which is
# $10 \log_{10} 4 = 6.02$ dB. For a source spread evenly over the whole range, power and noise are both known, and so is
# the SQNR: $20 \log_{10}(2^b - 2)$. Other sources gain the same 6.02 dB for each bit, but start lower:

# %%
rng = np.random.default_rng(1)
sources = {
    "uniform": uniform,
    "trained weights": weights,
    "Gaussian": rng.normal(size=1_000_000).astype(np.float32),
}


def sqnr_at(x, num_bits):
    q, scale = quantize(x, num_bits)
    return measure(x, q, dequantize(q, scale))["sqnr_db"]


widths = np.arange(2, 13)
curves = {
    name: np.array([sqnr_at(x, int(b)) for b in widths]) for name, x in sources.items()
}
for name, curve in curves.items():
    rms = np.sqrt(np.mean(np.square(sources[name], dtype=np.float64)))
    peak = np.abs(sources[name]).max() / rms
    print(
        f"{name:<16} {curve[6]:5.1f} dB at 8 bits, {(curve[10] - curve[6]) / 4:.2f} dB a bit "
        f"from 8 to 12, max / rms = {peak:.1f}"
    )

# %% Picture: SQNR against bits for three sources
figure, panel = new_figure(7, 3.4)
for (name, curve), colour in zip(curves.items(), (ORIGINAL, QUANTIZED, GOOD)):
    panel.plot(widths, curve, "o-", color=colour, ms=4, label=name)
panel.plot(
    widths,
    [theory.uniform_sqnr_db(int(b)) for b in widths],
    "--",
    color=INK,
    lw=2,
    label="20 log10(2^b - 2)",
)
panel.set(
    title="All gain 6 dB a bit; a long tail costs a constant",
    xlabel="bits",
    ylabel="SQNR (dB)",
)
panel.legend()
Picture(
    figure,
    "SQNR against bits for three sources, lines that rise by 6 dB a bit: the uniform one "
    "lies on the formula, trained weights and a Gaussian 8 to 9 dB below.",
)

# %% [markdown]
# (The slope is a hair above 6.02, because of the one code that the symmetric grid leaves unused: $2^b - 2$ in place of
# $2^b$. The more bits, the less it matters.)
#
# Why the offset? The scale is set by the *largest* value, the signal power by the *typical* one. In a uniform source the
# largest value is 1.7 times the root mean square. In a million Gaussian values it is near 5, so most codes stand for
# values that hardly ever occur. Twice the peak at the same power costs 6 dB: one bit.
#
# The table of bit widths, for the weights and for a Gaussian of standard deviation 5:

# %%
gaussian = (5 * rng.normal(size=10_000)).astype(np.float32)
print("          trained weights, 8192 values         Gaussian, 10000 values")
print("bits     kB   smaller   SQNR (dB)  codes     kB   smaller   SQNR (dB)  codes")
for num_bits in (2, 3, 4, 6, 8, 16):
    row = f"{num_bits:>4}"
    for x in (weights, gaussian):
        q, scale = quantize(x, num_bits)
        error = measure(x, q, dequantize(q, scale))
        size = x.size * num_bits / 8 + 4  # packed codes, and one float32 scale
        row += f"  {size / 1000:5.2f} {x.nbytes / size:8.2f}x"
        row += f" {error['sqnr_db']:10.1f} {error['codes_used']:7}"
    print(row)

# %% [markdown]
# Three things to see. The memory counts *packed* codes: your `q` at 4 bits still takes a byte for each, until lab 04
# packs two into one. At 16 bits there are more codes than values. And quantizing float32 to 8 bits is **four** times
# smaller, not two.

# %% [markdown]
# ## One outlier
#
# The largest of the 8192 weights, made larger and larger, at 8 bits. Noise is measured on the other weights:

# %%
factors = np.array([1, 2, 5, 10, 20, 50, 100])
top = np.unravel_index(np.argmax(np.abs(weights)), weights.shape)
others = np.ones(weights.shape, dtype=bool)
others[top] = False
after = []
for factor in factors:
    x = weights.copy()
    x[top] *= factor
    q, scale = quantize(x, 8)
    after.append(measure(x[others], q[others], dequantize(q, scale)[others]))
for factor, error in zip(factors, after):
    codes = error["codes_used"]
    print(f"{factor:>4} x: {error['sqnr_db']:5.1f} dB, {codes:>3} codes for 8191 weights")

# %% [markdown]
# Ten times the outlier costs 20 dB, more than three bits, for every other weight. In large language models such outliers
# are real: lab 08 meets them in the activations of a transformer.
#
# Which signal is a ratio against? Over all 8192 values, your `quantization_error` counts the outlier as signal. The explorer
# compares with the power that the weights had before, so that its curve is the noise alone:

# %%
x = weights.copy()
x[top] *= 10
q, scale = quantize(x, 8)
print(
    f"against the tensor with the outlier: {measure(x, q, dequantize(q, scale))['sqnr_db']:.1f} dB"
)
shown = explore_bits(weights).compute({"num_bits": 8, "outlier": 10}).sqnr_db
print(f"against the weights as they were:    {shown:.1f} dB")

# %% [markdown]
# ## Clipping against rounding
#
# Nothing forces the grid to reach the largest value. Let it end at a threshold, the **[clip](../docs/glossary.md#clipping)**: what lies beyond *saturates*
# at the last code. Now there are two kinds of noise. A smaller clip makes the steps finer, so there is less *[rounding](../docs/glossary.md#rounding-noise)*
# noise for everyone; and it cuts the large values off, so there is more *clipping* noise for a few.
#
# **Predict**, then **drag** the clip from right to left.

# %%
explorer = explore_clipping(weights)
predict(
    "At 4 bits, which fraction of the largest magnitude is the best clip for these weights?",
    explorer.result.best_clip,
    tolerance=0.1,
)

# %%
explorer

# %% [markdown]
# **Observe** where the grey and the dotted orange curve cross, and how that point moves with the bits. **Say why**,
# then unfold the answer.
#
# <details><summary>Why does it pay to clip much at 4 bits, and hardly at 8?</summary>
#
# Each bit more makes rounding noise four times smaller, and leaves clipping noise as it is.
#
# </details>

# %% [markdown]
# ### Exercise 4: `quantize_clipped` (5 minutes, ●●○)
#
# With the scale of `quantize_symmetric` nothing was ever out of range, and the [clamp](../docs/glossary.md#clamp) had nothing to do. Here it does.
#
# | | |
# |---|---|
# | input | `x`, floats; `clip`, a positive number; `num_bits` |
# | result | `q, scale`, as in exercise 1 |
# | `scale` | from `clip`, not from `x`: the largest code stands for `clip` |
# | beyond the clip | the last code, of the right sign |
#
# By hand, at 8 bits with clip 1.27: scale = 1.27 / 127 = 0.01, and $[-1, 0.504, 9]$ has the codes $[-100, 50, 127]$.


# %%
def quantize_clipped(x, clip, num_bits=8):
    """Return (q, scale) on the grid of [-clip, clip]; values beyond it saturate."""
    ### BEGIN SOLUTION
    quant_max = 2 ** (num_bits - 1) - 1
    scale = np.float32(clip / quant_max)
    q = np.clip(np.round(x / scale), -quant_max - 1, quant_max)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale
    ### END SOLUTION


# %%
check(quantize_clipped)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Copy `quantize_symmetric`. One line changes.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# 9 / 0.01 is 900 steps. What is `np.array([900.0]).astype(np.int8)`? Which of clamp and cast must come first?
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $\text{scale} = \text{clip} / (2^{b-1} - 1)$; round, clamp to $[-2^{b-1}, 2^{b-1}-1]$, then cast.
#
# </details>

# %%
explore_clipping(weights, quantize=quantize_clipped)

# %% [markdown]
# For a Gaussian both kinds of noise are integrals in closed form, so the best clip can be computed for every bit width,
# and compared with what your function measures:

# %%
clipped = or_reference(quantize_clipped)
gauss = sources["Gaussian"]
print("bits   best clip (σ)   SQNR there: theory   measured   without clipping")
for num_bits in (2, 3, 4, 6, 8):
    clip = theory.gaussian_best_clip(num_bits)
    predicted = theory.gaussian_sqnr_db(num_bits, clip)
    q, scale = clipped(gauss, clip, num_bits)
    measured = measure(gauss, q, dequantize(q, scale))["sqnr_db"]
    print(
        f"{num_bits:>4} {clip:15.2f} {predicted:20.1f} {measured:10.1f}"
        f" {sqnr_at(gauss, num_bits):18.1f}"
    )

# %% [markdown]
# The fewer the bits, the more it pays to clip: 6 to 8 dB at 2 to 4 bits, 2 dB at 8. Why is what you measure a little
# better than theory at 2 bits? The theory ends the grid at -clip and clip. Your function has one level
# more, the code $-2^{b-1}$ just below -clip, and of only four levels that one counts.

# %% [markdown]
# ## See it on real tensors
#
# All weight tensors of the digits network at 8 and at 4 bits, one scale for each tensor. The height of a bar is the SQNR;
# the dashed line is what $\Delta^2/12$ says.

# %%
layers = {name.removesuffix(".weight"): w for name, w in matrices.items()}


def predicted_at(w, num_bits):
    """What the scale alone says of the SQNR."""
    _, scale = quantize(w, num_bits)
    return theory.predicted_sqnr_db(np.mean(w**2), scale)


measured = {b: [sqnr_at(w, b) for w in layers.values()] for b in (8, 4)}
predicted = {b: [predicted_at(w, b) for w in layers.values()] for b in (8, 4)}

# %% Picture: SQNR of every layer, measured and predicted
figure, panel = new_figure(8.5, 3.2)
places = np.arange(len(layers))
for num_bits, colour, shift in ((8, ORIGINAL, -0.2), (4, QUANTIZED, 0.2)):
    bars = measured[num_bits]
    panel.bar(places + shift, bars, 0.4, color=colour, label=f"{num_bits} bits")
    ends = places + shift - 0.2, places + shift + 0.2
    panel.hlines(predicted[num_bits], *ends, color=INK, ls="--", lw=1.4)
panel.set(title="Δ²/12 predicts every layer (dashed)", ylabel="SQNR (dB)", ylim=(0, 60))
panel.set_xticks(places, [name.replace(".", "\n") for name in layers], fontsize=8)
panel.grid(False, axis="x")
panel.legend(ncols=2, loc="upper right")
Picture(
    figure,
    "Bars: SQNR of the eight weight tensors, 40 to 47 dB at 8 bits and 15 to 21 dB at 4. "
    "The prediction from the scale lies at the top of each bar.",
)

# %% [markdown]
# Does the SQNR of the weights say how well the network still reads? Roughly. Here is one bit width for all layers, with
# your functions:

# %%
for num_bits in (8, 6, 5, 4, 3, 2):
    rounded = {
        f"{name}.weight": dequantize(*quantize(w, num_bits)) for name, w in layers.items()
    }
    lowest = min(sqnr_at(w, num_bits) for w in layers.values())
    right = network.accuracy(rounded)
    print(f"{num_bits} bits: lowest SQNR {lowest:5.1f} dB, {right:6.1%} read correctly")

# %% [markdown]
# *[Activations](../docs/glossary.md#activation)*, what flows between the layers, can be quantized too. After a ReLU they are never negative, so the
# symmetric grid leaves its negative half unused:

# %%
images, labels = data.digits("test")
activation = network.activations(images)["block3.pointwise"]
q, scale = quantize(activation, 8)
error = measure(activation, q, dequantize(q, scale))
print(f"{activation.shape} values from {activation.min():.1f} to {activation.max():.1f}")
print(f"codes from {q.min()} to {q.max()}: {error['codes_used']} of 255 used")
print(f"SQNR {error['sqnr_db']:.1f} dB")

# %% [markdown]
# Half the codes are one bit. Lab 02 gets it back.
#
# What it means for large models, in gigabytes (10⁹ bytes), weights only and packed:

# %%
print("parameters   32 bits   16 bits    8 bits    4 bits")
for parameters in (7e9, 70e9):
    print(
        f"{parameters / 1e9:>9.0f}B"
        + "".join(f"{parameters * b / 8 / 1e9:>8.1f}GB" for b in (32, 16, 8, 4))
    )

# %% [markdown]
# ## In the wild
#
# **The other scale.** The libraries that quantize models do not agree on it. torchao, PyTorch's observers and
# [compressed-tensors](../docs/glossary.md#compressed-tensors) divide by $(2^b - 1)/2$, so 127.5 or 7.5, and let the largest value be clamped by half a step;
# [SmoothQuant](../docs/glossary.md#smoothquant), quanto, bitsandbytes and this course divide by 127 or 7. At 8 bits nobody can tell. At 4 bits, a
# million Gaussian values, a scale for each 128 of them:

# %%
from labutils import PerGroup, choose_qparams, sqnr_db

scheme = Scheme(num_bits=4, granularity=PerGroup(128))
million = np.random.default_rng(2).normal(size=(1024, 1024)).astype(np.float32)
ours, _ = choose_qparams(million, scheme)
print(f"max|x| / 7:   {sqnr_db(million, fake_quantize(million, scheme)):.1f} dB")
theirs = ours * np.float32(7 / 7.5)
print(
    f"max|x| / 7.5: {sqnr_db(million, fake_quantize(million, scheme, (theirs, 0))):.1f} dB"
)

# %% [markdown]
# Half a decibel for free: the code -8 comes into use, and the largest positive value is clipped by half a step, which as
# you now know may pay.
#
# **A floor under the scale.** To avoid dividing by zero, several libraries replace scales below some ε, such as 1e-5.
# Weights that are small on purpose then vanish:

# %%
small = weights * np.float32(1e-9)
with_floor = np.maximum(np.abs(small).max() / np.float32(127), np.float32(1e-5))
flushed, kept = np.round(small / with_floor), quantize(small, 8)[0]
for name, codes in (("with a floor of 1e-5", flushed), ("yours", kept)):
    print(f"{name:<20}: {np.count_nonzero(codes)} of {small.size} codes are not 0")

# %% [markdown]
# In one language model such a floor cost 10 points of [perplexity](../docs/glossary.md#perplexity), of which less is better: 40.5 with it, 29.9
# without, at 4 bits in groups of 32 (torchao, pull request 4534).
#
# **A test that cannot fail.** Cosine similarity is a popular measure of quantized tensors. It does not see the scale at
# all:

# %%
q, scale = quantize(weights, 8)
wrong = dequantize(q, 3 * scale)  # every value three times too large
cosine = np.sum(weights * wrong) / np.sqrt(np.sum(weights**2) * np.sum(wrong**2))
largest = np.abs(weights - wrong).max()
print(
    f"cosine similarity {cosine:.4f}, largest error {largest / (scale / 2):.0f} times scale / 2"
)

# %% [markdown]
# **Another one.** Suppose a test quantizes values that lie exactly between two levels, and accepts an error of half a
# step. Then every rule of rounding passes:

# %%
halves = np.array([0.5, 1.5, 2.5, -3.5, 4.5], dtype=np.float32)  # in steps
elsewhere = np.array([0.3, 1.7, 2.6, -3.9, 4.1], dtype=np.float32)
for name, rule in (
    ("round", np.round),
    ("floor", np.floor),
    ("trunc", np.trunc),
    ("ceil", np.ceil),
):
    on_halves, not_on_halves = (np.abs(x - rule(x)).max() for x in (halves, elsewhere))
    print(
        f"{name:<6} off by {on_halves:.1f} steps on halves, {not_on_halves:.1f} on other values"
    )

# %% [markdown]
# The checks of this course use inputs on which the wrong rules show.

# %% [markdown]
# ## In practice
#
# torchao is PyTorch's library for quantization. Its scale and its codes are two calls, and the values that share a scale are a
# *block*, whose shape you give; here it is the whole tensor. `quant_min=-127` asks for the scale that you wrote, and not for
# the other one.

# %% tags=["nbval-ignore-output"]
import logging

logging.disable(logging.WARNING)  # torchao tells of its kernels for other machines
try:
    import torch
    from torchao.quantization import quant_primitives as torchao
except ImportError:
    print("Needs PyTorch and torchao, 0.18 or later: pip install torchao")
else:
    x, block = torch.tensor(weights), weights.shape
    scale, zero_point = torchao.choose_qparams_affine(
        x, torchao.MappingType.SYMMETRIC, block, torch.int8, quant_min=-127
    )
    theirs = torchao.quantize_affine(x, block, scale, zero_point, torch.int8).numpy()
    print("codes that differ from yours:", np.count_nonzero(theirs != quantize(weights)[0]))

# %% [markdown]
# None of the 8192 does.

# %% [markdown]
# ## Stretch
#
# ### Exercise 5: `best_clip` (10 minutes, ●●●)
#
# Find the clip with the least mean squared error, for any tensor.
#
# | | |
# |---|---|
# | input | `x`, floats; `num_bits` |
# | result | the threshold, in units of `x`: a positive number, at most max\|x\| |
# | precision | your clip's error may be 5% above the best |


# %%
def best_clip(x, num_bits):
    """Return the clip for which quantize_clipped loses least."""

    ### BEGIN SOLUTION
    def loss(clip):
        q, scale = quantize_clipped(x, clip, num_bits)
        return np.mean((x - dequantize_symmetric(q, scale)) ** 2)

    candidates = np.linspace(0.01, 1, 100) * np.abs(x).max()
    return min(candidates, key=loss)
    ### END SOLUTION


# %%
check(best_clip)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# You have a function that quantizes with a given clip, and one that goes back. Try a hundred clips.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Measure the error against `x` itself. Measured against the *clipped* `x`, clipping looks free, and the smallest clip
# wins. (That mistake is in print, too.)
#
# </details>

# %%
find = or_reference(best_clip)
for name in ("block1.depthwise", "block3.pointwise", "head"):
    w = layers[name]
    clips = [find(w, num_bits) / np.abs(w).max() for num_bits in (2, 3, 4, 8)]
    told = ", ".join(f"{clip:.2f}" for clip in clips)
    print(f"{name:<17} best clip at 2, 3, 4, 8 bits: {told} of max|x|")

# %% [markdown]
# ### Exercise 6: `quantize_stochastic` (10 minutes, ●●●)
#
# Rounding to the nearest makes 2.3 into 2 every time. *[Stochastic](../docs/glossary.md#stochastic-rounding)* rounding makes it 3 with probability 0.3 and 2
# otherwise: noisier, but right on average. Training in few bits relies on it, because tiny updates would otherwise be
# rounded away every time.
#
# | | |
# |---|---|
# | input | `x`; `num_bits`; `rng`, a `numpy.random.Generator` |
# | result | `q, scale` as in exercise 1, but each code is drawn, independently of the others |
# | the mean of many draws | is `x / scale` |


# %%
def quantize_stochastic(x, num_bits, rng):
    """Return (q, scale), where x / scale is rounded up with the probability of its fraction."""
    ### BEGIN SOLUTION
    quant_max = 2 ** (num_bits - 1) - 1
    _, scale = quantize_symmetric(x, num_bits)
    q = np.clip(np.floor(x / scale + rng.random(x.shape)), -quant_max - 1, quant_max)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale
    ### END SOLUTION


# %%
check(quantize_stochastic)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# `rng.random(x.shape)` is a number between 0 and 1 for each element. When is it smaller than 0.3?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Add the random number to $x / \text{scale}$, and take the floor. From which random number on does 2.3 reach 3?
#
# </details>

# %%
draw = or_reference(quantize_stochastic)
x = np.append(np.full(10_000, 0.3), 7.0).astype(
    np.float32
)  # scale 1 at 4 bits: each 0.3 is 0.3 of a step
nearest, _ = quantize(x, 4)
drawn, _ = draw(x, 4, np.random.default_rng(0))
print("10000 times 0.3 of a step: the codes should add up to 3000")
print(f"rounded to nearest: {nearest[:-1].sum()}, drawn: {drawn[:-1].sum()}")

# %% [markdown]
# ## Interview questions
#
# <details><summary>Why divide by 127 and not by 128?</summary>
#
# The codes of int8 go from -128 to 127. With max|x| / 128 a positive maximum would get code 128, which does not exist: it
# is clamped to 127, an error of a whole step where at most half a step is promised, or worse, it wraps around to -128 if
# one forgets to clamp. With 127 the code -128 stays unused, which costs 1 of 256 codes.
#
# </details>
# <details><summary>How much accuracy does one more bit buy?</summary>
#
# 6.02 dB of SQNR: half the step, a quarter of the noise power. It holds for any source whose range is fixed, as long as
# the steps are small against the width of the distribution.
#
# </details>
# <details><summary>INT8 is said to need "4x less memory". When is it less than that?</summary>
#
# When counting from float16, as most large models are stored: then it is 2x. And scales take room too: one for a tensor is
# nothing, one for every 32 weights is half a bit for each weight (lab 04).
#
# </details>
# <details><summary>When does quantization with one scale fail?</summary>
#
# When the largest value is far from typical: one outlier sets the step for everyone. Remedies: clip it (this lab), give
# parts of the tensor scales of their own (labs 03 and 04), or move outliers to where they do less harm (lab 08).
#
# </details>
# <details><summary>Someone reports a mean relative error |e|/|x| of 40% and calls the quantizer broken. Is it?</summary>
#
# Not necessarily. Values near 0 have a relative error near 100% under any uniform grid, and dominate that mean. Mean
# squared error over variance, or SQNR, weighs errors by what they do to sums such as a dot product.
#
# </details>
# <details><summary>Does fake quantization make a model smaller or faster?</summary>
#
# No. [Fake quantization](../docs/glossary.md#fake-quantization) rounds floats to the grid and keeps them as floats, to see what accuracy remains. Only integer codes in memory
# are smaller, and only integer arithmetic, or moving fewer bytes, is faster (lab 05).
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - Quantizing is `round(x / scale)`, clamped and cast; going back is `q * scale`. The scale is the step of the grid.
# - No error exceeds Δ/2, the mean squared error is Δ²/12, and each bit is worth 6.02 dB.
# - The scale follows the largest value. An outlier ten times larger costs 20 dB for all others.
# - Clipping trades rounding noise against clipping noise. It pays at few bits.
# - Test errors against scale / 2, on inputs that tell wrong rules from right ones.
