# %% [markdown]
# # 00 · Start here
#
# **Time:** 20 minutes. **You need:** Python and a little NumPy; no PyTorch yet.
#
# At the end of this lab you
#
# - know that your environment works,
# - have seen what quantization does to a text, to a picture and to a neural network,
# - have solved one small exercise, and know how the labs tell you what went wrong.

# %% [markdown]
# ## First of all, drag
#
# A language model goes on with a sentence. The slider sets in how many bits each of its weights is stored. **Drag it to the
# right**, or click its handle and use the arrow keys.

# %%
from labutils import explore_sentence

explore_sentence()

# %% [markdown]
# At 8 bits it writes what it writes in full precision. At 4 bits it chooses other words, and they still make sense. At 3 bits
# it stammers, and at 2 bits nothing is left. The weights were rounded in the simplest sensible way. In lab 09 you will win back
# about half of what 3 bits lose here, at the same size; in lab 12 the same model runs on your own machine, under your own code.

# %% [markdown]
# ## Why
#
# A neural network is mostly a long list of numbers, its *[weights](../docs/glossary.md#weight)*. Each is usually stored in 32 or 16 bits. Storing them
# in 8 or 4 bits instead is called **[quantization](../docs/glossary.md#quantization)**. What that saves is plain arithmetic:

# %%
weights = 7_000_000_000  # a language model of a common size
for num_bits in (32, 16, 8, 4):
    print(f"{num_bits:>2} bits: {weights * num_bits / 8 / 1e9:5.1f} GB")

# %% [markdown]
# 3.5 GB fit into a laptop beside everything else; 28 GB are more than most graphics cards have. You have just seen that it
# costs something, and that the cost is not even: much the same down to 4 bits, then a cliff. Why, and what can be done about it,
# is what this course is about.

# %% [markdown]
# ## Is everything here?
#
# The next cell looks at Python, the packages, the sliders and the data of the labs. A line with ✗ says what to do.

# %% tags=["nbval-ignore-output"]
from labutils import doctor

doctor.diagnose()

# %% [markdown]
# ## Play first
#
# Below is a real handwritten digit, 8 by 8 pixels, and a small network that was trained to read such digits. It reads
# 99% of 540 digits that it has never seen. One slider sets how many bits each pixel and each weight of the network may
# use: with $b$ bits there are only $2^b$ different values.
#
# **Predict.** Take a guess before you drag. Type a number and press Enter.

# %%
from labutils import explore_digit, predict

digit = explore_digit(7)
misread = [bits for bits in range(2, 9) if digit.compute({"num_bits": bits}).read_as != 2]
predict(
    "Going down from 8 bits: at how many bits does the network first misread the 2 below?",
    max(misread),
    unit="bits",
    tolerance=0,
)

# %% [markdown]
# **Drag** the slider with the mouse, or click its handle and use the arrow keys. **Observe** two things: when *you* stop
# recognising the digit, and when the *network* does.

# %%
digit

# %% [markdown]
# **Say why.** Write a sentence down, then unfold the answer.
#
# <details><summary>You can read the digit down to 2 bits, four shades of grey. Why does the network fail earlier?</summary>
#
# At each of its layers every weight is a little off, and the errors add up. Whether that has to happen at 4 bits is
# another matter: here all weights of a layer share one set of values, the simplest way there is. Lab 03 keeps the
# network reading at 4 bits, with the same number of bits for each weight.
#
# </details>

# %% [markdown]
# Now all 540 test images, with the weights alone in few bits. `fake_quantize` moves each weight to the nearest value
# that a `Scheme` allows; from lab 01 on you write that yourself.

# %%
from labutils import Scheme, data, fake_quantize

network = data.digits_network()
matrices = {name: w for name, w in network.weights.items() if w.ndim > 1}  # not the biases
print(f"float32: {network.accuracy():6.1%} of the test images are read correctly")
for num_bits in (8, 6, 5, 4, 3, 2):
    quantized = {name: fake_quantize(w, Scheme(num_bits)) for name, w in matrices.items()}
    print(f"{num_bits} bits:  {network.accuracy(quantized):6.1%}")

# %% [markdown]
# From 8 to 5 bits four images of 540 are lost, too few to tell from chance. From 4 bits down it is no chance.

# %% [markdown]
# ## How the labs work
#
# Every lab has the same rhythm: *predict* a number, *drag* a slider, *build* the thing yourself, then drag *your own
# code* with the same sliders. The time at the top of a lab counts all of that; stretch exercises come on top. An
# exercise looks like this one. Its heading says how long it may take, and how hard it is, from ●○○ to ●●●. A term that is
# new leads to the [glossary](../docs/glossary.md), which says in which lab it is explained.
#
# ### Exercise: `storage_bytes` (3 minutes, ●○○)
#
# How many bytes do `num_values` numbers take, if each has `num_bits` bits and they are packed without gaps?
#
# | | |
# |---|---|
# | input | `num_values` and `num_bits`, whole numbers |
# | result | whole bytes, an `int`; a byte that is only partly used counts |
# | by hand | 3 values of 3 bits are 9 bits: one bit too many for 1 byte, so 2 bytes |
#
# Write it below in place of the two lines after the docstring, and run the cell with Shift+Enter.


# %%
def storage_bytes(num_values, num_bits):
    """Return the number of whole bytes that num_values numbers of num_bits bits take."""
    ### BEGIN SOLUTION
    return (num_values * num_bits + 7) // 8
    ### END SOLUTION


# %% [markdown]
# Then let it be checked. Try a wrong answer first, if you like: `return num_values * num_bits` is a common one. The check
# runs your function on several inputs, and when it fails, looks for the mistake that explains *your* answers.

# %%
from labutils import check

# %%
check(storage_bytes)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# A byte has eight bits. How many bytes do 16 bits take, and how many do 17?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Divide the number of bits by 8 and round *up*. Python's `//` rounds down.
#
# </details>
# <details><summary>Hint 3: the formula</summary>
#
# $\lceil n / 8 \rceil = \lfloor (n + 7) / 8 \rfloor$ for whole numbers $n$.
#
# </details>

# %% [markdown]
# Hints are folded, graded from a nudge to the formula. None of them is the code.
#
# Cells further down never wait for you: where an exercise is not done yet, they use the course's own version and say so.

# %%
from labutils import or_reference

bytes_of = or_reference(storage_bytes)
for num_bits in (16, 8, 4):
    size = bytes_of(70_000_000_000, num_bits)
    print(f"70 billion weights at {num_bits:>2} bits: {size / 1e9:5.1f} GB")

# %% [markdown]
# ## Your progress
#
# Checks that you pass are remembered on this computer. Run this cell again whenever you like.

# %% tags=["nbval-ignore-output"]
from labutils import board

board()

# %% [markdown]
# ## Takeaways
#
# - Quantization stores each number in fewer bits. At 4 bits a model is an eighth of its size in float32.
# - With $b$ bits there are $2^b$ values. Everything else is about choosing *which* values.
# - How far down one can go depends less on the bits than on how they are used. That is what the next labs are about.
#
# Go on with [01 · Fundamentals](01_fundamentals.ipynb).
