# %% [markdown]
# # 02 · Asymmetric: where zero goes
#
# **Time:** 75 minutes; stretch: 15 more. **You need:** lab 01, NumPy; no PyTorch.
#
# At the end of this lab you can
#
# - write asymmetric quantization and its inverse, and derive its two numbers, scale and zero point,
# - say why the range must include 0, and what happens to `[10, 11, 12]` where it does not,
# - predict from the smallest and the largest value alone how much asymmetric gains: from next to nothing to what one bit
#   more brings the symmetric grid,
# - recognise three mistakes that are in print.

# %%
import numpy as np

from labutils import (
    Scheme,
    check,
    data,
    explore_zero_point,
    fake_quantize,
    or_reference,
    predict,
    quantization_error,
)
from labutils.labs.answers import dequantize_symmetric, quantize_symmetric

network = data.digits_network()
images, labels = data.digits("test")
weights = network.weights["block3.pointwise.weight"].reshape(128, 64)  # trained, float32

# %% [markdown]
# ## Why
#
# The pixels of the digits lie between 0 and 1. Store each of them in 2 bits, once on the symmetric grid of lab 01, once
# on the grid of this lab, and let the network read:

# %%
for symmetric in (True, False):
    rounded = fake_quantize(images, Scheme(num_bits=2, symmetric=symmetric))
    right = network.accuracy(images=rounded, labels=labels)
    name = "symmetric" if symmetric else "asymmetric"
    print(f"{name:<10}: {len(np.unique(rounded))} grey levels, {right:.1%} read correctly")

# %% [markdown]
# The memory is the same. But of the three codes that the symmetric grid uses, -1 lies below 0, where there is no pixel (and
# its fourth, -2, is never used: lab 01).

# %% [markdown]
# ## Play first
#
# The explorer below shows the trained weights of lab 01 again, and under them two grids: the [asymmetric](../docs/glossary.md#asymmetric-quantization) one (orange) and
# the symmetric one (grey). The slider *shift* adds a constant to all weights. Its unit is half their range, so at a shift
# of 1 about none is left below 0. The diamond is the code that 0.0 gets. Noise is compared with the weights as they were,
# before the shift.
#
# **Predict** first.

# %%
explorer = explore_zero_point(weights)
shifted = explorer.compute({"num_bits": 4, "shift": 1.0})
predict(
    "At 4 bits the symmetric grid has 15 codes. How many of them are in use at a shift of 1?",
    shifted.symmetric_codes_used,
    tolerance=0.5,
)

# %%
predict(
    "By how many decibels is the asymmetric grid better there?",
    shifted.sqnr_db - shifted.symmetric_db,
    unit="dB",
    tolerance=0.7,
)

# %% [markdown]
# **Drag** the shift from -2 to 2. **Observe** the orange curve on the right: flat, then falling. Where does it meet the
# dotted curve, the symmetric grid with one bit more?

# %%
explorer

# %% [markdown]
# **Say why.** Write a sentence down for each, then unfold.
#
# <details><summary>Why is the orange curve flat between -1 and 1, and the grey one not?</summary>
#
# As long as there are values on both sides of 0, the asymmetric grid moves along with them: its length, max - min, stays
# the same, and so does its step. The symmetric grid must reach equally far both ways. Once all values lie on one side, it
# wastes its whole other half, and half the codes are one bit.
#
# </details>
# <details><summary>Why does the orange curve fall farther out?</summary>
#
# The asymmetric grid gets longer too, because it must reach back to 0. Why must it? You are about to find out.
#
# </details>
# <details><summary>Where does it meet the dotted curve?</summary>
#
# At a shift of about 1, and of -1, and from there on outwards. All values lie on one side of 0 then, and on that side both
# grids have the same step.
#
# </details>

# %% [markdown]
# ## Build it
#
# ### Two equations
#
# The codes are unsigned now, $q = 0, \dots, 2^b-1$. One of them is the code of 0.0: the **[zero point](../docs/glossary.md#zero-point)** $z$. A code
# stands for the steps from there:
#
# $$x' = (q - z) \cdot \text{scale}$$
#
# Two unknowns, so we may have two wishes: the smallest value gets code 0, the largest gets code $2^b - 1$.
#
# $$\min = (0 - z)\cdot\text{scale} \qquad \max = (2^b - 1 - z)\cdot\text{scale}$$
#
# Subtract the first from the second, and $z$ is gone. Then solve the first for $z$:
#
# $$\text{scale} = \frac{\max - \min}{2^b - 1} \qquad z = -\frac{\min}{\text{scale}}$$
#
# A code is a whole number, so $z$ is rounded. That moves the grid by up to half a step: 0.0 is exact now, and the
# outermost values may lie half a step beyond the last code, so codes are clamped.
#
# ### The trap
#
# This formula is in many tutorials. Try it on three values, `[10, 11, 12]`, at 8 bits. The zero point comes out as
# $-10 / (2 / 255) = -1275$. That is no code. Many programs clamp it into 0 to 255, so it becomes 0. **Predict:**

# %%
predict("Then what does 11 come back as?", 2.0, tolerance=0.05)

# %%
trap = np.array([10, 11, 12], dtype=np.float32)
step = 2 / 255
print(f"scale {step:.5f}, zero point {-10 / step:.0f}")

clamped = np.clip(np.round(trap / step) + 0, 0, 255)
print(f"zero point clamped to 0: codes {clamped}, back {(clamped - 0) * step}")

as_it_is = np.clip(np.round(trap / step) - 1275, 0, 255)
print(
    f"zero point not clamped:  codes {as_it_is}, back {np.round((as_it_is + 1275) * step, 2)}"
)
wrapped = int(np.array(-1275).astype(np.uint8))
print(
    f"the same, stored in uint8: {wrapped}, back {np.round((as_it_is - wrapped) * step, 2)}"
)

# %% [markdown]
# Clamped, everything becomes 2: the three values are flattened into one. Not clamped, the values come back, but the
# zero point needs 12 bits beside 8-bit codes, and a kernel (the code that multiplies) that keeps it in `uint8` reads
# garbage. And 0.0 has no code at all: the nearest one, code 0, stands for 10.
#
# ### The way out
#
# First widen the range to include 0: $\min \to \min(\min, 0)$ and $\max \to \max(\max, 0)$. Then $-\min/\text{scale}$ lies
# between 0 and $2^b - 1$, so the zero point always is a code. For `[10, 11, 12]` the range is [0, 12]. The step gets six
# times longer; that is the price.
#
# By hand, at 8 bits:
#
# | | | | | | |
# |---|---|---|---|---|---|
# | $x$ | **-0.6** | -0.127 | 0 | 0.444 | **1.95** |
# | scale | | | | | (1.95 + 0.6) / 255 = 0.01 |
# | zero point | | | | | 0.6 / 0.01 = 60 |
# | $x$ / scale | -60 | -12.7 | 0 | 44.4 | 195 |
# | $q$ | 0 | 47 | 60 | 104 | 255 |
# | $x' = (q - 60) \cdot$ scale | -0.6 | -0.13 | 0 | 0.44 | 1.95 |
# | error $x - x'$ | 0 | 0.003 | 0 | 0.004 | 0 |
#
# ### Exercise 1: `quantize_asymmetric` (15 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `x`, a NumPy array of floats, any shape; `num_bits` from 2 to 16 |
# | result | `q, scale, zero_point` |
# | `q` | the shape of `x`; `uint8` up to 8 bits, `uint16` above; codes in $[0, 2^b-1]$ |
# | the range | from the smallest to the largest value, widened to include 0 |
# | `scale` | one positive number for the whole array |
# | `zero_point` | an integer, the code of 0.0; in $[0, 2^b-1]$ |
# | rounding | to the nearest; ties as you like, and before or after adding the zero point |
# | an all-zero `x` | codes 0, zero point 0, any positive scale: take 1 |
# | tiny values | no smallest scale |
# | your input | stays as it is |


# %%
def quantize_asymmetric(x, num_bits=8):
    """Return (q, scale, zero_point): unsigned codes, their step, and the code of 0.0."""
    ### BEGIN SOLUTION
    quant_max = 2**num_bits - 1
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / quant_max) if high > low else np.float32(1)
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, quant_max)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point
    ### END SOLUTION


# %%
check(quantize_asymmetric)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Six lines: the largest code, the two ends of the range, the scale, the zero point, the codes, the cast. Do they give
# what the table above gives?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Widen the range before anything else, and the zero point needs no clamp. The codes do. And they are floats until the
# last line: an unsigned integer cannot hold -12.7, not even for a moment.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $\text{scale} = (\max - \min)/(2^b-1)$ with $\min \le 0 \le \max$, $z = \operatorname{round}(-\min/\text{scale})$, and
# $q = \operatorname{clamp}(\operatorname{round}(x/\text{scale}) + z,\ 0,\ 2^b-1)$. `int(...)` makes the zero point an
# integer.
#
# </details>

# %% [markdown]
# ### Exercise 2: `dequantize_asymmetric` (5 minutes, ●○○)
#
# | | |
# |---|---|
# | input | `q`, unsigned codes; `scale`, a number; `zero_point`, an integer of any type |
# | result | `float32`, the shape of `q`: the steps from the zero point, times the scale |


# %%
def dequantize_asymmetric(q, scale, zero_point):
    """Return the float32 values that the codes q stand for."""
    ### BEGIN SOLUTION
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    ### END SOLUTION


# %%
check(dequantize_asymmetric)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What is `np.array([47], dtype=np.uint8) - 60`? Try it in a new cell.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Turn all three to `float32` before anything is subtracted.
#
# </details>

# %% [markdown]
# Your two functions beside those of lab 01, on a line that lies mostly above 0. Until they pass, the cells from here on
# use the course's own.

# %%
quantize = or_reference(quantize_asymmetric)
dequantize = or_reference(dequantize_asymmetric)

line = np.linspace(-0.25, 1.5, 701, dtype=np.float32)
steps = dequantize(*quantize(line, num_bits=3))
symmetric_steps = fake_quantize(line, Scheme(num_bits=3))
print("levels of the symmetric grid in use: ", len(np.unique(symmetric_steps)))
print("levels of the asymmetric grid in use:", len(np.unique(steps)))

# %% Picture: a line and its two staircases at 3 bits
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import GOOD, INK, ORIGINAL, QUANTIZED, THEORY

figure, (left, right) = new_figure(columns=2)
left.plot(line, line, color=ORIGINAL, label="x")
left.plot(line, symmetric_steps, color=THEORY, label="symmetric, 3 bits")
left.plot(line, steps, color=QUANTIZED, label="asymmetric, 3 bits")
left.set(title="Eight levels instead of four", xlabel="x", ylabel="x'")
left.legend()
right.plot(line, line - symmetric_steps, color=THEORY)
right.plot(line, line - steps, color=QUANTIZED)
right.axvline(0, color=INK, ls=":", lw=1)
right.set(title="Exact at 0.0, and half the error", xlabel="x", ylabel="x - x'")
Picture(
    figure,
    "A line from -0.25 to 1.5 and its staircases at 3 bits: four symmetric levels, "
    "eight asymmetric ones. The asymmetric error is half as large, and 0 at 0.",
)

# %% [markdown]
# ## Drag your own code
#
# The explorer again, now running *your* function. Drag the shift to 2: all values are positive. If your function forgot
# to include 0 in the range, the diamond leaves the dotted line, and the picture says what 0.0 comes back as. Take that
# line out of your function, if you like, and see it happen.

# %%
explore_zero_point(weights, quantize=quantize_asymmetric)

# %% [markdown]
# ## Why 0.0 must be exact
#
# Because it is the most frequent value there is. A ReLU makes zeros, and paper is white:

# %%
activations = {k: np.ascontiguousarray(a) for k, a in network.activations(images).items()}
for name in ("input", "block1.pointwise", "block2.pointwise", "block3.pointwise"):
    print(f"{name:<17} {np.mean(activations[name] == 0):.0%} of the values are exactly 0.0")

# %% [markdown]
# And because convolutions pad with zeros. A padded border gets the code `zero_point`. Here is a digit on grey paper, with
# pixels from 0.5 to 1, quantized on three grids of 2 bits, and padded:

# %%
grey = 0.5 + images[4, 0] / 2
framed = np.pad(grey, 1)  # what a convolution should see: zeros around

q, scale, zero_point = quantize(grey, num_bits=2)
with_zero = dequantize(np.pad(q, 1, constant_values=zero_point), scale, zero_point)

without_zero = np.pad(np.round((grey - 0.5) / (0.5 / 3)), 1)  # range [0.5, 1], codes 0 to 3
without_zero = without_zero * (0.5 / 3) + 0.5  # code 0 stands for 0.5
for name, picture in (("0 in the range", with_zero), ("0 not in the range", without_zero)):
    print(f"{name:<19} the border is {picture[0, 0]:.1f}")

# %% Picture: a digit on grey paper, padded on three grids
figure, panels = new_figure(8.5, 2.9, columns=3)
for panel, picture, title in zip(
    panels,
    (framed, with_zero, without_zero),
    ("float: padded with 0.0", "0 in the range", "0 not in the range"),
):
    panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
    panel.set(
        title=title, xlabel=f"the border is {picture[0, 0]:.1f}", xticks=[], yticks=[]
    )
    panel.grid(False)
Picture(
    figure,
    "A digit on grey paper inside a padded border. The border is black in float and where "
    "the range includes 0; on the grid without 0 it is as grey as the paper.",
)

# %% [markdown]
# On the grid without 0 the border has vanished: padding has become paper. But the third digit has more grey levels than
# the second. Is a finer grid not worth more than an exact zero? Test it where it looks best for the finer grid: the plain
# images, pixels from 0 to 1, 2 bits. Put the four levels at 1/8, 3/8, 5/8, 7/8, in the middle of four equal cells, and no
# pixel moves by more than 1/8. Levels at 0, 1/3, 2/3, 1 move some by 1/6:

# %%
cells = (np.minimum(np.floor(4 * images), 3) + 0.5) / 4
exact = dequantize(*quantize(images, num_bits=2))
print("                largest error   mean error   error at 0.0   read correctly")
for name, x in (("1/8 ... 7/8", cells), ("0 ... 1", exact)):
    e = x - images
    print(
        f"{name:<14} {np.abs(e).max():14.3f} {e.mean():+12.3f} {e[images == 0].mean():+14.3f}"
        f" {network.accuracy(images=x.astype(np.float32), labels=labels):16.1%}"
    )

# %% [markdown]
# The smaller largest error loses. Half of all pixels are 0.0, and all of those go wrong by 1/8 in the same direction, so
# the sums in the network are off, and nothing cancels.

# %% [markdown]
# ## When does it pay?
#
# Noise is $\Delta^2/12$ (lab 01), so all that matters is how long a step is. The symmetric step is
# $\max|x|/(2^{b-1}-1)$, the asymmetric one is $(\max-\min)/(2^b-1)$. Both are known as soon as the two ends of the range
# are: nothing needs to be quantized to say what a zero point will gain.
#
# ### Exercise 3: `asymmetric_gain` (12 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `low` and `high`, numbers with `low <= high`, not both 0; `num_bits` |
# | the range | first widened to include 0, as for the asymmetric grid |
# | result | a number: by how many decibels the SQNR of the asymmetric grid is better, $10 \log_{10}$ of the ratio of the two noises |
#
# By hand, for the example above, [-0.6, 1.95] at 8 bits: the symmetric step is 1.95 / 127 = 0.01535, the asymmetric one is
# 2.55 / 255 = 0.01. The noise is $1.535^2 = 2.36$ times larger, and $10 \log_{10} 2.36$ = 3.7 dB.


# %%
def asymmetric_gain(low, high, num_bits=8):
    """Return by how many decibels the asymmetric grid of a range beats the symmetric one."""
    ### BEGIN SOLUTION
    low, high = min(low, 0), max(high, 0)
    symmetric_step = max(-low, high) / (2 ** (num_bits - 1) - 1)
    step = (high - low) / (2**num_bits - 1)
    return 20 * np.log10(symmetric_step / step)
    ### END SOLUTION


# %%
check(asymmetric_gain)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Four lines: the ends with 0 between them, two steps, one logarithm. Which of the two steps is the longer one, and what
# does that do to its noise?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# The symmetric grid must reach the largest *magnitude*, which may be at the lower end. The ratio of the noises is the
# ratio of the steps, squared.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $20 \log_{10}$ (symmetric step / asymmetric step): the square has become a factor of 2 before the logarithm.
#
# </details>

# %% [markdown]
# Before you run the next cell: which of the four ranges gains next to nothing, and which as much as one bit more brings the
# symmetric grid?

# %%
gain = or_reference(asymmetric_gain)
for low, high in ((-1, 1), (-0.5, 1), (0, 1), (10, 12)):
    told = ", ".join(f"{gain(low, high, b):.2f} dB at {b}" for b in (8, 4, 2))
    print(f"[{low}, {high}]".ljust(10) + f"gains {told} bits")

# %% [markdown]
# Two things are in your formula. With the **imbalance** $r$ of the range, in which max and min are the ends after widening,
#
# $$r = \frac{|\max + \min|}{\max - \min}, \qquad \text{gain} = 20\log_{10}(1 + r) \;+\; 20\log_{10}\frac{2^b-1}{2^b-2}.$$
#
# The first part goes from nothing, where the range reaches equally far both ways, to 6.02 dB where it ends at 0. The
# second is the one code that the symmetric grid never uses: 0.03 dB at 8 bits and 3.5 at 2, where it hurts most. After a
# ReLU the two together make the grid as good as the symmetric one with one bit more, which is 6.05 dB at 8 bits and 9.54
# at 2: asymmetric at 8 bits *is* symmetric at 9.

# %%
activation = activations["block3.pointwise"]
eight = dequantize(*quantize(activation, num_bits=8))
nine = fake_quantize(activation, Scheme(num_bits=9))
print(f"largest difference: {np.abs(eight - nine).max():.6f}")

# %% [markdown]
# ## See it on real tensors
#
# Transformers have a GELU in place of the ReLU (Hendrycks and Gimpel, 2016): almost 0 for negative values, but not quite.
# We apply it to what really enters the last ReLU6 of the network (a ReLU that stops at 6), and to a Gaussian. The
# [logits](../docs/glossary.md#logit) are what the network puts out.


# %%
def gelu(x):
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return (0.5 * x * (1 + np.tanh(inner))).astype(np.float32)


before = activations["block3.depthwise"]  # (N, 64, 8, 8)
bias = network.weights["block3.pointwise.bias"][:, None, None]
entering = np.einsum("nchw,kc->nkhw", before, weights) + bias  # (N, 128, 8, 8)
gaussian = np.random.default_rng(0).normal(size=100_000).astype(np.float32)

tensors = {f"weights {k[:-7]}": w for k, w in network.weights.items() if w.ndim > 1}
tensors |= {f"ReLU6 {k}": a for k, a in activations.items() if k.startswith(("b", "s"))}
tensors |= {
    "images": activations["input"],
    "logits": activations["head"],
    "before the ReLU6": entering,
    "GELU of these": gelu(entering),
    "Gaussian": gaussian,
    "GELU of a Gaussian": gelu(gaussian),
    "Gaussian + 3": gaussian + 3,
    "Gaussian + 10": gaussian + 10,
}


def both(x, num_bits):
    """Errors of symmetric and of asymmetric quantization."""
    p, symmetric_scale = quantize_symmetric(x, num_bits)
    q, scale, zero_point = quantize(x, num_bits)
    return (
        quantization_error(x, p, dequantize_symmetric(p, symmetric_scale)),
        quantization_error(x, q, dequantize(q, scale, zero_point)),
    )


results = {name: both(x, 8) for name, x in tensors.items()}
measured = {name: b["sqnr_db"] - a["sqnr_db"] for name, (a, b) in results.items()}
predicted = {name: gain(x.min(), x.max(), 8) for name, x in tensors.items()}
chosen = ("weights block3.pointwise", "ReLU6 block1.pointwise", *list(tensors)[-7:])
print("at 8 bits                       min      max   your prediction   measured")
for name in chosen:
    x = tensors[name]
    told = f"{predicted[name]:14.1f} dB {measured[name]:7.1f} dB"
    print(f"{name:<26} {x.min():8.2f} {x.max():8.2f} {told}")

# %% Picture: the gain predicted from the two ends, and measured, for every tensor
looks = {"weights": (ORIGINAL, "o"), "ReLU6": (QUANTIZED, "s"), "others": (GOOD, "D")}
kinds = {k: k.split()[0] if k.split()[0] in looks else "others" for k in tensors}
figure, panel = new_figure(7.5, 3.6)
panel.plot([0, 6.5], [0, 6.5], "--", color=THEORY, label="as predicted")
for kind, (colour, mark) in looks.items():
    names = [k for k in tensors if kinds[k] == kind]
    points = [predicted[k] for k in names], [measured[k] for k in names]
    panel.plot(*points, mark, color=colour, ms=7, alpha=0.8, label=kind)
panel.axhline(20 * np.log10(2), color=INK, lw=1, ls=":")
panel.text(0.05, 6.2, "one bit", fontsize=9)
panel.set(
    title="Between nothing and one bit: min and max tell the gain",
    xlabel="predicted from min and max (dB)",
    ylabel="measured (dB)",
    ylim=(-0.5, 7.2),
)
panel.legend(loc="lower right")
Picture(
    figure,
    "Measured gain of asymmetric over symmetric at 8 bits against the predicted one: weights "
    "lie near 0 dB, ReLU6 outputs near 6 dB, all close to the diagonal.",
)

# %% [markdown]
# ReLU6 outputs gain the bit. (Not all points lie on the line. Where many values are the same, such as 6, a grid happens to
# hit them or not; and some weight tensors have only a few hundred values to average over.) GELU outputs gain nearly as
# much, since their negative part is short. A Gaussian gains next to nothing, and when it is shifted far enough, all of
# the bit. The formula speaks of steps, so it needs errors that fill their steps: with few bits most GELU outputs lie so
# close to 0 that they lose less than half a step whatever the step is, and gain less than it says. At 8 bits the GELU of a
# Gaussian gains more than it says: one value in eight lies within 0.01 of the minimum, -0.17, and that is 4.6 steps of the
# symmetric grid, about halfway between two codes.
#
# **Where it does not win.** Half of the weight tensors gain less than what one tenth of a bit brings, 0.6 dB: trained
# weights reach about equally far both ways. And there are tensors on which it loses. Weights that are -1, 0 or 1 times a
# constant, as in ternary networks, fit the symmetric grid exactly:

# %%
gains = [db for name, db in measured.items() if name.startswith("weights")]
print(
    f"weights: gain {min(gains):.1f} to {max(gains):.1f} dB, median {np.median(gains):.1f} dB"
)

ternary = np.sign(weights) * (np.abs(weights) > 0.1) * np.float32(0.15)
symmetric, asymmetric = both(ternary, 2)
print(f"ternary weights at 2 bits: MSE {symmetric['mse']:.5f} and {asymmetric['mse']:.5f}")

# %% [markdown]
# A zero point is not free either. In a product of two quantized numbers,
# $(q_a - z_a)(q_w - z_w) = q_a q_w - z_w q_a - z_a q_w + z_a z_w$, and with $z_w = 0$ half of the terms vanish. That is
# why most libraries quantize activations asymmetrically, and weights symmetrically (lab 05 counts the terms).
#
# With fewer bits more counts: the unused code, and the imbalance of small groups, which are never balanced as the whole
# tensor is. 4-bit weights often do have a zero point:

# %%
matrices = [x for name, x in tensors.items() if name.startswith("weights")]
for num_bits in (8, 4, 3, 2):
    gains = [b["sqnr_db"] - a["sqnr_db"] for a, b in (both(w, num_bits) for w in matrices)]
    print(f"weights at {num_bits} bits: median gain {np.median(gains):.1f} dB")

# %% [markdown]
# Last, the explorer on real activations: a spike at 0.0, and a tail up to 6. **Drag** the shift to -1: now the range is
# balanced, and the grids are nearly equally good. At a shift of 0 the measured marks lie 3 dB above the lines of
# $\Delta^2/12$. **Say why**, before you run the cell after it.

# %%
explore_zero_point(activation)

# %%
q, scale, zero_point = quantize(activation, num_bits=4)
squares = (activation - dequantize(q, scale, zero_point)) ** 2 / (scale**2 / 12)
zero = activation == 0
for name, chosen in (("all values", zero | ~zero), ("zeros", zero), ("the others", ~zero)):
    print(f"MSE / (Δ²/12) of {name:<10} {squares[chosen].mean():.2f}")

# %% [markdown]
# <details><summary>Why is the noise only half of what the step promises?</summary>
#
# Half of the values are exactly 0.0, and 0.0 has no error. That is another thing an exact zero is good for.
#
# </details>

# %% [markdown]
# ## In the wild
#
# **Cast before clamp.** Public copies of lab 2 of MIT's course 6.5940 cast to `int8` first, then add the zero point and
# clamp. With signed codes, scale 1/255 and zero point -128, the value 1.2 lies beyond the range and should
# get the last code:

# %%
steps = np.round(np.array([1.2]) * 255)
cast_first = steps.astype(np.int64).astype(np.int8) + np.int8(-128)
print(f"cast, then add and clamp: {np.clip(cast_first, -128, 127)}")
print(f"add, clamp, then cast:    {np.clip(steps - 128, -128, 127).astype(np.int8)}")

# %% [markdown]
# After the cast everything fits into `int8`, and there is nothing left to clamp. Values beyond the range land anywhere.
#
# **Steps plus zero point.** A lesson of DeepLearning.AI dequantizes as $q \cdot \text{scale} + z$. Its test passes,
# because the zero point happens to be 0 there. With signed codes, [0, 1, 2, 3] has scale 3/255 and zero point -128:

# %%
x = np.array([0, 1, 2, 3])
scale = 3 / 255
q = np.round(x / scale) - 128
print("q * scale + zero_point:  ", np.round(q * scale - 128, 1))
print("(q - zero_point) * scale:", np.round((q + 128) * scale, 1))

# %% [markdown]
# **A range without 0.** [AWQ](../docs/glossary.md#awq)'s quantizer takes the range from min to max and clamps the zero point, as in the trap above.
# Weights seldom lie all on one side of 0; where a group of them does, it is flattened. The row [5, 6] at 4 bits:

# %%
row = np.array([5, 6], dtype=np.float32)
scale = (row.max() - row.min()) / 15
zero_point = np.clip(np.round(-row.min() / scale), 0, 15)
print("back:", (np.clip(np.round(row / scale) + zero_point, 0, 15) - zero_point) * scale)
print("yours:", dequantize(*quantize(row, num_bits=4)))

# %% [markdown]
# HQQ takes another way: its zero point is a float. Then no range has to include 0, and 0.0 is in general not exact. For
# weights, which are neither padded nor mostly 0, that can be a good trade.
#
# **Round, then add - or add, then round?** torchao rounds $x/\text{scale}$ and adds the zero point; [compressed-tensors](../docs/glossary.md#compressed-tensors)
# adds it first. Ties go to even, and adding an odd number changes which neighbour is even:

# %%
ties = np.array([0.5, 1.5, 2.5, 3.5])
for zero_point in (2, 3):
    print(
        f"zero point {zero_point}: round, then add {np.round(ties) + zero_point},"
        f" add, then round {np.round(ties + zero_point)}"
    )

# %% [markdown]
# Both are off by half a step, so neither is wrong. But a test that compares codes of two libraries bit by bit will fail
# on ties; compare values with scale / 2 instead. The checks of this course accept both.

# %% [markdown]
# ## In practice
#
# In PyTorch you call `fake_quantize_per_tensor_affine`, which quantizes and comes back in one step. In torchao,
# `choose_qparams_affine(x, MappingType.ASYMMETRIC, x.shape, torch.uint8)` finds scale and zero point; it widens the range
# to include 0, as you do. Where PyTorch is installed (this lab does without), the example from above comes back the same:

# %% tags=["nbval-ignore-output"]
try:
    import torch
except ImportError:
    print("PyTorch is not installed: nothing to compare with")
else:
    x = np.array([-0.6, -0.127, 0, 0.444, 1.95], dtype=np.float32)
    q, scale, zero_point = quantize(x)
    theirs = torch.fake_quantize_per_tensor_affine(
        torch.tensor(x), float(scale), int(zero_point), 0, 255
    )
    print("yours: ", dequantize(q, scale, zero_point).round(3))
    print("theirs:", theirs.numpy().round(3))

# %% [markdown]
# ## Stretch
#
# ### Exercise 4: `quantize_in_range` (10 minutes, ●●○)
#
# When a network runs, the range of an activation is not known before it has been computed. So it is measured beforehand,
# on some examples, and then fixed. Values may now lie beyond it.
#
# | | |
# |---|---|
# | input | `x`, floats; `low` and `high`, numbers with `low <= high`, not both 0; `num_bits` |
# | result | `q, scale, zero_point` as in exercise 1 |
# | the range | from `low` to `high`, not from `x`; widened to include 0 |
# | beyond the range | the first or the last code |
#
# By hand, at 8 bits with the range [-0.25, 2.3]: scale 0.01, zero point 25, and $[-0.7, 0.5, 2, 9]$ has the codes
# $[0, 75, 225, 255]$.


# %%
def quantize_in_range(x, low, high, num_bits=8):
    """Return (q, scale, zero_point) on the grid of [low, high]; values beyond it saturate."""
    ### BEGIN SOLUTION
    quant_max = 2**num_bits - 1
    low, high = min(low, 0), max(high, 0)
    scale = np.float32((high - low) / quant_max)
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, quant_max)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point
    ### END SOLUTION


# %%
check(quantize_in_range)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Copy `quantize_asymmetric`. One line changes, and `x` must not be clipped before.
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# 9 / 0.01 is 900 steps. Which of adding, clamping and casting must come last?
#
# </details>
#
# A *[percentile](../docs/glossary.md#percentile)* range leaves out a few of the largest values and has a finer step for the others. How many to leave out?
# Measure, and mind what you compare with: one published script compares with the *clipped* tensor.

# %%
in_range = or_reference(quantize_in_range)
x = gelu(entering)
print("GELU outputs at 4 bits:  MSE against the original   against the clipped tensor")
for percentile in (100, 99.99, 99.9, 99, 95, 90):
    high = float(np.percentile(x, percentile))
    back = dequantize(*in_range(x, float(x.min()), high, num_bits=4))
    honest = np.mean((x - back) ** 2)
    hidden = np.mean((np.minimum(x, np.float32(high)) - back) ** 2)
    print(f"up to {high:4.1f} ({percentile}%)".ljust(24) + f"{honest:26.4f} {hidden:28.4f}")

# %% [markdown]
# Against the original there is a best percentile. Against the clipped tensor, the more is cut off the better it looks:
# what clipping lost is left out of the comparison. Lab 07 comes back to how a range is chosen.

# %% [markdown]
# ## Interview questions
#
# <details><summary>What is the zero point, and why is it an integer?</summary>
#
# The code that stands for 0.0. It is an integer because codes are: only then is 0.0 exactly on the grid, so that the zeros
# of a ReLU and of padding come back as zeros.
#
# </details>
# <details><summary>Why must the range include 0, even for data that never come near it?</summary>
#
# Otherwise the zero point, -min / scale, lies outside the codes. Clamped, it shifts the grid away from the data and
# everything saturates; not clamped, it does not fit its type, and 0.0 has no code for padding. Widening the range costs
# some resolution and always works.
#
# </details>
# <details><summary>How much does asymmetric quantization gain on ReLU outputs?</summary>
#
# What one bit more would bring the symmetric grid, whose negative half is unused: half the step, a quarter of the MSE, 6 dB
# at 8 bits, and more with few bits, where its unused code counts.
#
# </details>
# <details><summary>Why are weights mostly quantized symmetrically, and activations asymmetrically?</summary>
#
# Weights reach about equally far both ways, so a zero point gains little, and it adds terms to every matrix product.
# Activations after ReLU or GELU lie almost all on one side, and gain a bit. With 4 bits and small groups, weights get zero
# points too: the code that the symmetric grid leaves unused matters there, and small groups are not balanced (lab 04 measures
# both).
#
# </details>
# <details><summary>uint8 with zero point 128, or int8 with zero point 0: is there a difference?</summary>
#
# Not in what can be stored: subtract 128 from all codes and from the zero point, and uint8 becomes int8. Only where the
# two conventions are mixed do things go wrong, by 128 steps.
#
# </details>
# <details><summary>A quantized network has strange borders in its feature maps. What would you look at first?</summary>
#
# Whether padding uses the zero point of that tensor. Padding with code 0 pads with the smallest value of the range.
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - `q = clamp(round(x / scale) + zero_point)`, and back `(q - zero_point) * scale`. The zero point is the code of 0.0.
# - Include 0 in the range first. Then the zero point always is a code, and 0.0 is exact.
# - Add, clamp, then cast; and turn codes to floats before you subtract.
# - Two numbers, min and max, tell the gain over symmetric: where all values lie on one side, what one bit more would bring
#   (6.05 dB at 8 bits, 9.54 at 2), and next to nothing at 8 bits where the range is balanced.
# - Activations gain, weights hardly do, and a zero point costs arithmetic. Measure against the original.
