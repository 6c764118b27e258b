# %% [markdown]
# # 06 · Full model: what it weighs, what it still knows
#
# **Time:** 80 minutes; stretch: 25 more. **You need:** labs 04 and 05, PyTorch, and roughly what
# a transformer block is made of.
#
# At the end of this lab you can
#
# - swap every linear layer of a trained model for a quantized one, without touching the original,
# - say what a model really weighs, in memory and on disk, and what is left over,
# - measure what quantizing cost: accuracy, agreement, retrieval, and how much of a difference is noise,
# - find the layers that suffer most, and spend your bits there.

# %%
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from labutils import (
    PerGroup,
    Scheme,
    check,
    data,
    explore_model,
    mean_cosine,
    or_reference,
    predict,
    retrieval_at_1,
)
from labutils.models import Int8Linear, PackedLinear, QuantizedLinear

network = data.digits_model()  # reads handwritten digits; comes with the course
images, labels = (torch.from_numpy(array) for array in data.digits("test"))
network

# %% [markdown]
# Two trained models are quantized in this lab. The first is the small network above. The second is MiniLM, a sentence
# encoder with 22.6 million weights, read from a copy on your machine or else from the Hugging Face Hub (91 MB, once). Where it
# cannot be had, the next cell says so, and the cells that need it are passed over.

# %% tags=["nbval-ignore-output", "minilm"]
try:
    encoder = data.sentence_encoder()
    print(f"MiniLM is here: {len(encoder.model.encoder.layer)} blocks")
except (LookupError, ImportError) as missing:
    encoder = None
    print(missing)

# %% [markdown]
# ## Why
#
# A number of 8 bits takes a quarter of one of 32. So a model in 8 bits takes a quarter of the memory? This is what happens
# if every linear layer of MiniLM goes from 32 to 8 bits a weight:

# %% tags=["minilm"]
if encoder:
    total = sum(p.nbytes for p in encoder.model.parameters())
    linear = sum(
        layer.weight.nbytes
        for layer in encoder.model.modules()
        if isinstance(layer, nn.Linear)
    )
    after = total - linear + linear / 4
    print(f"before {total / 1e6:.1f} MB, of which linear layers {linear / 1e6:.1f} MB")
    print(f"after  {after / 1e6:.1f} MB: {total / after:.2f} times smaller")

# %% [markdown]
# Not 4 times smaller: 1.5 times. Most of this model is not in linear layers. A layer is easy to quantize (lab 05). Whether a
# *model* got smaller, and whether it is still any good, has to be measured on the whole of it.

# %% [markdown]
# ## Play first
#
# On the left is the digits network: how many of 540 test images it reads wrong (up is better), against the size of the
# file. Each grey curve is one bit width, its points are groups of 8, 16, 32 and 128 (lab 04). The band is one standard error of
# the float network's count: with 540 images, nothing inside it can be told apart. On the right are the images whose answer
# has changed: what the float network said, and what it says now.
#
# **Predict** first.

# %%
explorer = explore_model(network)
byte_wide = explorer.compute({"num_bits": 8, "group_size": 32, "left": "none"})
predict(
    "All linear layers at 8 bits: how many of the 540 answers change?",
    len(byte_wide.changed),
    tolerance=2,
)

# %%
states = [
    {"num_bits": 3, "group_size": 32, "left": left} for left in ("none", "first", "last")
]
wrong = [540 - explorer.compute(state).right for state in states]
predict(
    f"At 3 bits in groups of 32 it reads {wrong[0]} wrong. And with the first of its four "
    "linear layers left in float?",
    wrong[1],
    tolerance=3,
)

# %% [markdown]
# **Drag** the bits from 8 down to 2. Then, at 3 bits, leave the first layer in float, and then the last one instead.
# **Observe** the answers that change, and what each choice costs in size.

# %%
explorer

# %% [markdown]
# **Say why.** Write two sentences down, then unfold the answers.
#
# <details><summary>Why does it matter so much which layer is left in float?</summary>
#
# The layers are not equal. Here the first linear layer is the one that matters, and the last one hardly does. "Leave
# the first and the last layer in float" is a rule of thumb; you will measure it instead.
#
# </details>
# <details><summary>At 2 bits smaller groups fit their weights better, as they must. How can the network read worse with them?</summary>
#
# A weight's error is not a model's. The fit counts each weight alone; the answers depend on how all errors add up on their
# way through the network.
#
# </details>

# %%
for state, count in zip(states, wrong):
    size = explorer.compute(state).size
    print(
        f"3 bits, left in float: {state['left']:<5} {count:>3} wrong, {size / 1e3:.1f} kB"
    )

# %% [markdown]
# ## Build it
#
# ### Swap the layers
#
# A model is a tree. `model.named_modules()` walks through it and gives each module its full name, with dots:
#
# | name | module | what you do |
# |---|---|---|
# | `stem` | `Conv2d` | stays |
# | `block1.pointwise` | `Linear` | `block1` gets a new attribute `pointwise` |
# | `block2.pointwise` | `Linear` | `block2` gets a new attribute `pointwise` |
# | `head` | `Linear` | the model itself gets a new attribute `head` |
#
# To replace a layer you set an attribute of the module that *contains* it: its name up to the last dot says which.
#
# ### Exercise 1: `quantize_model` (15 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `model`, an `nn.Module`; `convert`, a function that takes an `nn.Linear` and returns the module to put in its place; `skip`, full names of layers that stay as they are |
# | result | a copy of `model` in which every `nn.Linear` not in `skip`, however deep, is what `convert` made of it |
# | all else | is in the copy as it was: other layers, `forward`, names |
# | a layer used in two places | is converted once, and put in both |
# | mode | each new layer is in train or eval mode, as the one it replaces |
# | `model` | stays as it is, and shares no tensor with the copy |


# %%
def quantize_model(model, convert, skip=()):
    """Return a copy of model in which convert(layer) stands in place of every nn.Linear."""
    ### BEGIN SOLUTION
    quantized, made = copy.deepcopy(model), {}
    for name, layer in list(quantized.named_modules(remove_duplicate=False)):
        if isinstance(layer, nn.Linear) and name not in skip:
            if layer not in made:
                made[layer] = convert(layer).train(layer.training)
            parent, _, last = name.rpartition(".")
            setattr(quantized.get_submodule(parent), last, made[layer])
    return quantized
    ### END SOLUTION


# %%
check(quantize_model)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Look at what `model.get_submodule("block1")` and `model.get_submodule("")` give you. What would `setattr` do with them?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Copy first, deeply. Then walk through a *list* of the copy's named modules (a tree that changes while you walk is trouble).
# For each linear layer, split its name at the last dot, find the container, and set the new layer there.
#
# </details>
# <details><summary>Hint 3: the last two cases</summary>
#
# `named_modules` passes over a module that it has met before, unless you say `remove_duplicate=False`. A dict from float
# layer to new layer remembers what you have converted. A new module starts in training mode; `.train(flag)` sets it.
#
# </details>

# %% [markdown]
# `convert` can be anything that takes a linear layer: `QuantizedLinear.from_float`, which you wrote in lab 05, or the course's own.
# Until yours passes, the cells from here on use the course's `quantize_model`.

# %%
swap = or_reference(quantize_model)
quantized = swap(network, QuantizedLinear.from_float)
print(quantized)
left = sum(
    part.weight.numel() for part in quantized.modules() if isinstance(part, nn.Conv2d)
)
every = sum(p.numel() for p in network.parameters() if p.ndim > 1)
print(f"{left:,} of {every:,} weights are still in float: {left / every:.0%}")

# %% [markdown]
# The convolutions stay: they are no linear layers, and nobody said that they should go. Print what was replaced, always.
#
# ### Weigh it
#
# What does a model weigh? Its parameters, and its buffers: what it keeps that no gradient reaches. `QuantizedLinear` keeps its
# codes and scales in buffers. By hand, for `nn.Sequential(nn.Linear(100, 50), nn.BatchNorm1d(50))`:
#
# | | numbers | bytes |
# |---|---|---|
# | `0.weight`, `0.bias` | 5000 + 50 | 4 each: 20,200 |
# | `1.weight`, `1.bias` | 50 + 50 | 4 each: 400 |
# | `1.running_mean`, `1.running_var` (buffers) | 50 + 50 | 4 each: 400 |
# | `1.num_batches_tracked` (a buffer) | 1 | an `int64`: 8 |
# | all | | 21,008 |
#
# ### Exercise 2: `model_bytes` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `model`, an `nn.Module` |
# | result | bytes of all its parameters and buffers, wherever they are in the tree |
# | shared tensors | what two layers share, and a layer used twice, counts once |
# | dtypes | any: each tensor knows what its elements take |


# %%
def model_bytes(model):
    """Return how many bytes the parameters and buffers of model take."""
    ### BEGIN SOLUTION
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    ### END SOLUTION


# %%
check(model_bytes)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# What do `model.parameters()` and `model.buffers()` leave out? And what do they already take care of?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# A tensor has a number of elements, and a size of each. Both walks go all the way down, and meet what is shared once.
#
# </details>

# %%
weigh = or_reference(model_bytes)


def on_disk(model):
    """Bytes of the file that holds a model's state."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, file)
        return file.stat().st_size


def packed(num_bits, group_size=32):
    """A convert: num_bits a weight in real bytes, in groups."""
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return lambda layer: PackedLinear.from_float(layer, scheme)


versions = {"float": network, "8 bits": swap(network, QuantizedLinear.from_float)}
versions["3 bits, packed"] = swap(network, packed(3))
print("                 your count     on disk")
for name, model in versions.items():
    print(f"{name:<15} {weigh(model):>11,} {on_disk(model):>11,}")

# %% [markdown]
# A file has a header with names and shapes, and is a little larger. The third line does not fit: a model that takes less
# memory than half of its file? `PackedLinear` holds its weight in the form that the machine's kernel wants, outside of any
# parameter or buffer, and `parameters()` and `buffers()` do not see it. Counting by walking is only as honest as the layers
# are. The course's own `model_bytes` asks such layers what they hold:

# %%
from labutils import answers

for name, model in versions.items():
    print(f"{name:<15} {answers.model_bytes(model):>11,}")

# %% [markdown]
# ### Ask it
#
# Size is one half. The other: is it still the same network? Two questions are often mixed up. **Accuracy** compares answers
# with labels. **[Agreement](../docs/glossary.md#agreement)** compares the answers of two models with each other, and needs no labels. By hand, five images:
#
# | image | label | float says | quantized says | float right | quantized right | agree |
# |---|---|---|---|---|---|---|
# | 1 | 0 | 0 | 0 | yes | yes | yes |
# | 2 | 1 | 1 | 1 | yes | yes | yes |
# | 3 | 2 | 2 | 1 | yes | no | no |
# | 4 | 1 | 0 | 0 | no | no | yes |
# | 5 | 2 | 1 | 2 | no | yes | no |
#
# Accuracy is 3/5 before and 3/5 after: nothing lost? Two of five answers are different ones.
#
# ### Exercise 3: `compare_predictions` (5 minutes, ●○○)
#
# | | |
# |---|---|
# | input | `logits` of the float model and `quantized_logits`, tensors of shape (n, classes); `labels`, (n,) integers |
# | a model's answer | the class with the largest logit |
# | result | a dict of three fractions from 0 to 1: `accuracy` (float model), `quantized_accuracy`, `agreement` |


# %%
def compare_predictions(logits, quantized_logits, labels):
    """Return accuracy before and after, and how often the two models agree."""
    ### BEGIN SOLUTION
    before, after = logits.argmax(dim=1), quantized_logits.argmax(dim=1)
    return {
        "accuracy": (before == labels).double().mean().item(),
        "quantized_accuracy": (after == labels).double().mean().item(),
        "agreement": (before == after).double().mean().item(),
    }
    ### END SOLUTION


# %%
check(compare_predictions)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Which of the three needs no labels?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# Turn each table of logits into one answer a row. Then all three are the mean of a comparison.
#
# </details>

# %%
compare = or_reference(compare_predictions)


@torch.no_grad()
def logits_of(model, x=images):
    return model(x)


before = logits_of(network)
print("bits, groups of 32   accuracy   agreement   kB on disk")
for num_bits in (8, 6, 5, 4, 3, 2):
    small = swap(network, packed(num_bits))
    result = compare(before, logits_of(small), labels)
    print(
        f"{num_bits:>18} {result['quantized_accuracy']:10.1%} {result['agreement']:11.1%}"
        f" {on_disk(small) / 1e3:12.1f}"
    )
print(f"float {result['accuracy']:23.1%} {1:11.1%} {on_disk(network) / 1e3:12.1f}")

# %% [markdown]
# Down to 5 bits nothing happens. At 4 bits 6 of 540 answers change, at 3 bits 16, and 2 bits are a cliff. One image is 0.2 points,
# and the standard error of an accuracy of 99% over 540 images is 0.4: 4 bits and float cannot be told apart here. Agreement
# is the sharper instrument, because both models see the same images: each answer that changed is a fact, not a sample.
#
# ### Which layer is it?
#
# Quantize one layer at a time, leave the others in float, and see how far the score falls. That is a layer's **[sensitivity](../docs/glossary.md#sensitivity)**.
# By hand, with a score of 0.95 for the float model:
#
# | quantized | score | falls by |
# |---|---|---|
# | only `first` | 0.80 | 0.15 |
# | only `second` | 0.94 | 0.01 |
# | only `head` | 0.96 | -0.01 |
#
# The last one has *gained*. That is noise, and it tells you how large noise is: do not hide it.
#
# ### Exercise 4: `layer_sensitivity` (10 minutes, ●●○)
#
# | | |
# |---|---|
# | input | `model`; `score`, a function from a model to a number, larger for a better model; `convert`, as above |
# | result | a dict: full name of each `nn.Linear` -> score of `model`, minus the score with that layer alone converted |
# | `model` | stays as it is |


# %%
def layer_sensitivity(model, score, convert):
    """Return name -> how much the score falls when that linear layer alone is converted."""
    ### BEGIN SOLUTION
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    best, falls = score(model), {}
    for name in names:
        others = [other for other in names if other != name]
        falls[name] = best - score(swap(model, convert, skip=others))
    return falls
    ### END SOLUTION


# %%
check(layer_sensitivity)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# You have a function that quantizes all layers but those you name. Which ones do you name?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# For each layer: skip all the others. `swap` from above is `quantize_model`, yours or the course's. Each round starts from the
# float model again.
#
# </details>

# %% [markdown]
# What to score with? Accuracy is what counts in the end, but at 4 bits and more it hardly moves. How far the [logits](../docs/glossary.md#logit) move is a
# finer measure, and needs no labels. Here are both, the second on training images: the test images are for judging.

# %%
sensitivity_of = or_reference(layer_sensitivity)
training = torch.from_numpy(data.digits("train")[0][:400])
wanted = logits_of(network, training)


def images_right(model):
    return int((logits_of(model).argmax(dim=1) == labels).sum())


def closeness(model):
    return -(logits_of(model, training) - wanted).square().mean().item()


falls = {
    (score, bits): sensitivity_of(network, score, packed(bits))
    for score in (images_right, closeness)
    for bits in (2, 3, 4)
}
print("                   images lost at      squared change of logits at")
print("one layer at     2 bits 3 bits 4 bits      2 bits 3 bits 4 bits")
for name in falls[closeness, 3]:
    lost = "".join(f"{falls[images_right, bits][name]:7}" for bits in (2, 3, 4))
    moved = "".join(f"{falls[closeness, bits][name]:7.2f}" for bits in (2, 3, 4))
    print(f"{name:<16}{lost}     {moved}")

# %% Picture: how far each layer alone moves the logits
from labutils.course.figures import Picture, new_figure
from labutils.course.palette import QUANTIZED, THEORY

names = sorted(falls[closeness, 3], key=falls[closeness, 3].get)
values = [falls[closeness, 3][name] for name in names]
figure, panel = new_figure(7.5, 2.5)
panel.barh(names, values, color=[QUANTIZED if v == max(values) else THEORY for v in values])
for place, value in enumerate(values):
    panel.annotate(
        f"{value:.2f}", (value, place), (5, 0), textcoords="offset points", va="center"
    )
panel.set(
    title=f"One layer is {max(values) / min(values):.0f} times as sensitive as another",
    xlabel="squared change of the logits, this layer alone at 3 bits",
    xlim=(0, 1.12 * max(values)),
)
panel.grid(False)
Picture(
    figure,
    "Bars: how far the logits move when one layer is quantized to 3 bits. block1.pointwise "
    "moves them most, by 1.4, block2.pointwise by 0.4, head and block3.pointwise by less than 0.1.",
)

# %% [markdown]
# Accuracy sees the cliff at 2 bits, and next to nothing above. The finer score ranks the layers at every width, and the
# ranking is the same in all three columns.
#
# ## Drag your own code
#
# The explorer again, with *your* `quantize_model` under its sliders.

# %%
explore_model(network, quantize=quantize_model)

# %% [markdown]
# ## See it on a real model
#
# MiniLM turns sentences into vectors, so that sentences of similar meaning point in similar directions. Its task here: 193
# questions about quantization, and the right one of 193 answers for each. **Retrieval@1** is the fraction of questions whose nearest
# answer is their own. The **cosine** between a sentence's float vector and its quantized one says how far it has turned.

# %% tags=["minilm"]
if encoder:
    asked, replies = zip(*data.questions())
    print(asked[0], "->", replies[0])
    questions, found = encoder.encode(asked), encoder.encode(replies)
    print(f"float: about {round(193 * retrieval_at_1(questions, found), -1):.0f} of 193")

# %% [markdown]
# Numbers are rounded here: float sums, and the kernels that make 4 bits fast, differ a little from machine to machine, and
# then a question or two may fall the other way.


# %% tags=["minilm"]
# Two judges of a quantized MiniLM, and four candidates.
def judged(model):
    """Mean cosine to float over all sentences, and questions answered right."""
    mine = encoder.with_model(model)
    q, a = mine.encode(asked), mine.encode(replies)
    cosine = mean_cosine(np.concatenate([q, a]), np.concatenate([questions, found]))
    return cosine, 193 * retrieval_at_1(q, a)


if encoder:
    converts = {
        "weights 8 bits": QuantizedLinear.from_float,
        "weights and inputs 8 bits": Int8Linear.from_float,
        "weights 4 bits, groups of 32": packed(4),
        "weights 3 bits, groups of 32": packed(3),
    }
    minis = {name: swap(encoder.model, convert) for name, convert in converts.items()}
    results = {name: judged(model) for name, model in minis.items()}
    print("                               cosine   right, about   MB on disk")
    for name, (cosine, right) in results.items():
        megabytes = on_disk(minis[name]) / 1e6
        print(f"{name:<30} {cosine:6.2f} {round(right, -1):14.0f} {megabytes:12.1f}")
    right = 193 * retrieval_at_1(questions, found)
    print(f"float {1:31.2f} {round(right, -1):14.0f} {on_disk(encoder.model) / 1e6:12.1f}")

# %% [markdown]
# Both 8-bit versions answer like the float model. At 4 bits the vectors have turned by some 16 degrees (the cosine is
# 0.96), and retrieval hardly notices; at 3 bits it does. Cosine warns earlier than the task. It can also exaggerate:
# vectors that all turn *together* keep their neighbours.
#
# ### Where the bytes are
#
# Four bits instead of eight saved little on disk. Look at what is left:

# %% tags=["minilm"]
if encoder:
    from labutils.models import model_bytes as bytes_held

    small = minis["weights 8 bits"]
    print("MB held               float   8 bits")
    for name in ("embeddings.word_embeddings", "embeddings", "encoder"):
        held = [bytes_held(m.get_submodule(name)) / 1e6 for m in (encoder.model, small)]
        print(f"{name.split('.')[-1]:<20} {held[0]:6.1f} {held[1]:8.1f}")
    norms = [p for name, p in small.named_parameters() if "LayerNorm" in name]
    print(f"all LayerNorms together: {sum(p.nbytes for p in norms) / 1e6:.3f} MB")

# %% [markdown]
# The table of word vectors is 80% of the 8-bit model. It is no linear layer, and nobody asked for it. LayerNorms and biases you
# can leave in float with a good conscience: they weigh nothing. The table is another matter. It is read row by row, so a scale for each row
# is natural:

# %% tags=["minilm"]
from labutils import PerAxis
from labutils.arrays.affine import quantize


class QuantizedEmbedding(nn.Module):
    """A table of int8 codes, with a scale for each row."""

    def __init__(self, table):
        super().__init__()
        quantized = quantize(table.weight.detach(), Scheme(8, granularity=PerAxis(0)))
        self.register_buffer("codes", quantized.codes)
        self.register_buffer("scale", quantized.scale)

    def forward(self, tokens):
        return self.codes[tokens] * self.scale[tokens][..., None]


if encoder:
    whole = swap(encoder.model, QuantizedLinear.from_float)
    whole.embeddings.word_embeddings = QuantizedEmbedding(whole.embeddings.word_embeddings)
    cosine, right = judged(whole)
    times = on_disk(encoder.model) / on_disk(whole)
    print(f"{on_disk(whole) / 1e6:.1f} MB on disk, {times:.1f} times smaller than float")
    print(f"cosine {cosine:.2f}, about {round(right, -1):.0f} of 193 right")

# %% [markdown]
# Now it is nearly four times smaller, and has lost nothing that you could see.
#
# ### Speed
#
# Ratios on *your* machine, one batch of 16 sentences. Above 1 is faster than float.

# %% tags=["minilm", "nbval-ignore-output"]
if encoder:
    from time import perf_counter

    def seconds(model, rounds=2):
        mine, took = encoder.with_model(model), []
        for _ in range(rounds):
            start = perf_counter()
            mine.encode(replies[:16])
            took.append(perf_counter() - start)
        return min(took)

    base = seconds(encoder.model)
    for name, model in minis.items():
        print(f"{name:<30} {base / seconds(model):.2f}")

# %% [markdown]
# You know the reasons from lab 05. [Weight-only](../docs/glossary.md#weight-only) 8 bits dequantizes each weight at each call, on top of the float product: slower, or
# the same where batches are large. Integers by integers are faster. A small file is not a fast model.
#
# ### 36 layers
#
# Which of them suffer? All at 4 bits, one at a time, scored by the cosine over a dozen *other* sentences:

# %% tags=["minilm"]
if encoder:
    sample = data.calibration_sentences()[::22]
    reference = encoder.encode(sample)

    def cosine_kept(model):
        return mean_cosine(encoder.with_model(model).encode(sample), reference)

    scheme = Scheme(4, granularity=PerGroup(32))
    losses = sensitivity_of(
        encoder.model, cosine_kept, lambda layer: QuantizedLinear(layer, scheme)
    )

# %% Picture: what each of the 36 layers loses tags=["minilm"]
shown = None
if encoder:
    kinds = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention output": "attention.output.dense",
        "feed-forward in": "intermediate.dense",
        "feed-forward out": "output.dense",
    }
    table = np.array(
        [
            [1e4 * losses[f"encoder.layer.{block}.{kind}"] for block in range(6)]
            for kind in kinds.values()
        ]
    )
    figure, panel = new_figure(7.5, 3.2)
    panel.imshow(table, cmap="Blues", aspect="auto", vmin=0, vmax=2 * table.max())
    for row, column in np.ndindex(table.shape):
        panel.text(column, row, f"{table[row, column]:.0f}", ha="center", va="center")
    panel.set_xticks(range(6), [f"block {block}" for block in range(6)])
    panel.set_yticks(range(6), kinds)
    panel.set_title("Values and feed-forward inputs suffer, queries and keys hardly do")
    panel.grid(False)
    shown = Picture(
        figure,
        "A table of the cosine lost, for six kinds of layers in six blocks. The rows value "
        "and feed-forward in lose most, up to 69 and 57 in the last two blocks; "
        "query and key at most 3.",
    )
shown

# %% [markdown]
# The numbers are losses of cosine, in ten-thousandths. A likely reason: queries and keys only decide where to look, and a
# softmax forgives small errors. Values are what is looked at: their errors go straight through. And the first and the last
# layer of this model are not the most sensitive ones: look, before you trust a rule of thumb.

# %% [markdown]
# ## In practice
#
# **torchao** is PyTorch's own library. One call swaps the *weights*, in place, and leaves the layers: an `nn.Linear` whose weight
# is a tensor of another kind.

# %% tags=["minilm"]
import importlib.util

torchao = importlib.util.find_spec("torchao") is not None
if encoder and torchao:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig as W8A8
    from torchao.quantization import Int8WeightOnlyConfig as W8
    from torchao.quantization import IntxWeightOnlyConfig as WX
    from torchao.quantization import granularity, quantize_

    theirs = {
        "weights 8 bits": W8(),
        "weights and inputs 8 bits": W8A8(),
        "weights 4 bits, groups of 32": WX(torch.int4, granularity.PerGroup(32)),
    }
    print("what torchao loses of the cosine")
    for name, config in theirs.items():
        model = copy.deepcopy(encoder.model)
        quantize_(model, config)
        ours, lost = (1 - cosine_kept(each) for each in (minis[name], model))
        ratio = lost / ours
        more = "more than twice as much" if 2 < ratio < 5 else "something else"
        print(f"{name:<30} {'as much as ours' if 0.8 < ratio < 1.25 else more}")
elif not torchao:
    print("torchao is not installed: nothing to compare with")

# %% [markdown]
# On the sample, weights lose the same, a few percent more or less (at 4 bits torchao divides by 7.5 where this course divides by
# 7, see lab 01). Activations lose more than twice as much: torchao gives each row a scale and no zero point. `filter_fn` says
# which layers, by name: yours was `skip`. A model that `transformers` loads is quantized on its way in, by
# `from_pretrained(name, quantization_config=TorchAoConfig(config))`.
#
# ## In the wild
#
# **Bytes that are not there.** Count such a model as people do, elements times element size, and nothing has become smaller: the
# new tensor says that it is float32, since that is what it behaves like. What it holds inside is int8.

# %% tags=["minilm"]
if encoder and torchao:
    model = copy.deepcopy(encoder.model)
    quantize_(model, W8())
    counted = sum(p.numel() * p.element_size() for p in model.parameters())
    print(f"elements times element size {counted / 1e6:6.1f} MB")
    print(f"what the tensors hold       {bytes_held(model) / 1e6:6.1f} MB")

# %% [markdown]
# **Agreement on noise.** Tutorials like to quantize a network with random weights, feed it random numbers, and report how
# often the predictions agree. Here is our trained network at 3 bits, on images and on noise:

# %%
noise = np.random.default_rng(42).normal(size=(540, 1, 8, 8)).astype(np.float32)
small = swap(network, packed(3))
for name, x in (("images", images), ("noise", torch.from_numpy(noise))):
    same = compare(logits_of(network, x), logits_of(small, x), labels)["agreement"]
    print(f"{name:<7} agreement {same:.0%}")

# %% [markdown]
# The two numbers have little to do with each other. On what the model never sees, it was never sure. Measure on the data that it
# is for.
#
# **Layers that are no layers.** `nn.TransformerEncoderLayer` has attention inside, and attention has four projections. How many does
# a swap of all `nn.Linear` find?

# %%
block = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
for name, parameter in block.named_parameters():
    if parameter.ndim == 2:
        kind = type(block.get_submodule(name.rpartition(".")[0])).__name__
        print(f"{name:<26} {parameter.numel():>8,} weights in a {kind}")

# %% [markdown]
# Query, key and value are one parameter of `MultiheadAttention`, which is no linear layer: a quarter of the weights. And its
# `out_proj` is a *subclass* of `nn.Linear` whose `forward` is never called: attention reads its `.weight` directly. If
# `isinstance` finds it and you replace it, `.weight` had better be there. The course's `labutils.models.quantize_model` leaves
# subclasses alone. Always print what was replaced, and what was not.

# %% [markdown]
# ## Stretch: mixed precision
#
# Sensitive layers get more bits, the others fewer: [mixed precision](../docs/glossary.md#mixed-precision). Which, exactly? Suppose that losses add up. (They do so roughly:
# you will see by how much.) Then you look for bits for each layer such that the losses' *sum* is least, and the
# average over all weights stays within a budget. By hand, with `first` of 100 weights, `second` of 200, `head` of
# 300, and a budget of 3 bits:
#
# | bits of first, second, head | average | loss |
# |---|---|---|
# | 2, 2, 2 | 2.00 | 30 + 8 + 1 = 39 |
# | 2, 2, 4 | 3.00 | 30 + 8 + 0 = 38 |
# | 2, 4, 2 | 2.67 | 30 + 1 + 1 = 32 |
# | 4, 2, 2 | 2.33 | 5 + 8 + 1 = 14 |
# | **4, 4, 2** | (400 + 800 + 600) / 600 = **3.00** | 5 + 1 + 1 = **7** |
# | 4, 2, 4 | 3.33 | too many bits |
#
# ### Exercise 5: `allocate_bits` (20 minutes, ●●●)
#
# | | |
# |---|---|
# | input | `sensitivity`, a dict: bits -> name -> loss; `budget`, bits on average over all *weights*; `num_weights`, name -> how many weights the layer has |
# | result | a dict: name -> bits, one of those in `sensitivity` |
# | which | of all choices within the budget, the one whose losses add up to the least; any of them where several do |
# | a budget that even the fewest bits exceed | `ValueError` |
# | how many | up to 6 layers, or fewer with more widths: you may try every choice |


# %%
def allocate_bits(sensitivity, budget, num_weights):
    """Return name -> bits: the least total loss within a budget of bits per weight."""
    ### BEGIN SOLUTION
    from itertools import product

    names, room = list(num_weights), budget * sum(num_weights.values()) + 1e-6
    best, least = None, float("inf")
    for bits in product(sensitivity, repeat=len(names)):
        spent = sum(b * num_weights[name] for b, name in zip(bits, names))
        loss = sum(sensitivity[b][name] for b, name in zip(bits, names))
        if spent <= room and loss < least:
            best, least = dict(zip(names, bits)), loss
    if best is None:
        raise ValueError(f"{budget} bits are fewer than the fewest, {min(sensitivity)}")
    return best
    ### END SOLUTION


# %%
check(allocate_bits)

# %% [markdown]
# <details><summary>Hint 1: a nudge</summary>
#
# Is it always right to serve the most sensitive layer first? What if it is also by far the largest?
#
# </details>
# <details><summary>Hint 2: the idea</summary>
#
# `itertools.product` gives every combination. For each one, two sums: bits times weights, and losses. Keep the best that fits.
#
# </details>

# %% [markdown]
# The digits network has 4 layers, and 7 widths from 2 to 8: 2401 choices. Losses were measured on training images. Against uniform
# bits of the same size, on test images:

# %%
from labutils.models import quantize_model as by_rule

allocate = or_reference(allocate_bits)
widths = range(2, 9)
measured = {bits: sensitivity_of(network, closeness, packed(bits)) for bits in widths}
layers = {name: network.get_submodule(name) for name in measured[2]}
num_weights = {name: layer.weight.numel() for name, layer in layers.items()}


def mixed(model, bits):
    """Each layer at its own bits: the course's quantize_model takes rules by name."""
    return by_rule(model, rules={name: packed(b) for name, b in bits.items()})


def error(model):
    return (logits_of(model) - before).square().mean().item()


print("bits per layer", " ".join(layers))
for budget in (3, 4, 5):
    uniform = dict.fromkeys(layers, budget)
    for bits in (uniform, allocate(measured, budget, num_weights)):
        model = mixed(network, bits)
        same = compare(before, logits_of(model), labels)["agreement"]
        told = ", ".join(str(bits[name]) for name in layers)
        print(f"{told:>12}: {on_disk(model) / 1e3:.1f} kB, agreement {same:.1%},", end=" ")
        added_up = sum(measured[b][name] for name, b in bits.items())
        print(f"error {error(model):.2f} (losses added up: {added_up:.2f})")

# %% [markdown]
# The large third layer makes do with fewer bits, and pays for the first two. At 3 bits on average this is a clear
# gain: 16 changed answers become 5. At 4 and 5 bits the error of the logits still falls to a quarter or so, but the
# answers had little left to gain: 6 changed ones become 2, and none becomes one. An image more or less is noise. The
# losses that were added up foretold each error to within a third.
#
# **MiniLM** has 36 layers: at two widths that is $2^{36}$ choices, and nobody tries them all. The course's own
# `allocate_bits` hands the question to a solver for integer linear programs, as HAWQ-V3 did (Yao et al., 2021).
# Losses at other widths than 4 are not measured here but estimated: one bit more is 6 dB less noise (lab 01), a
# quarter of the squared error, and $1 - \cos$ grows with the squared error.

# %% tags=["minilm"]
if encoder:
    from labutils.models import allocate_bits as solve

    parts = {name: encoder.model.get_submodule(name) for name in losses}
    sizes = {name: layer.weight.numel() for name, layer in parts.items()}
    by_law = {
        b: {name: max(0.0, loss) * 4.0 ** (4 - b) for name, loss in losses.items()}
        for b in range(2, 9)
    }
    few = {b: by_law[b] for b in (4, 8)}
    others = data.calibration_sentences()[1::5]
    theirs = encoder.encode(others)

    def lost(bits):
        turned = encoder.with_model(mixed(encoder.model, bits)).encode(others)
        return 1 - mean_cosine(turned, theirs)

    uniform = {budget: lost(dict.fromkeys(losses, budget)) for budget in (4, 5)}
    print("bits on average   choice   cosine lost, against uniform bits")
    for budget, name, options in (
        (4, "2 to 8", by_law),
        (5, "2 to 8", by_law),
        (5, "4 or 8", few),
    ):
        ratio = lost(solve(options, budget, sizes)) / uniform[budget]
        print(f"{budget:>15} {name:>8} {ratio:10.1f} times as much")

# %% [markdown]
# Does mixing win? With all widths, yes: it loses 0.7 times as much cosine as uniform bits of the same size, on sentences that
# played no part in choosing. With 4 or 8 only, **no**: 5 bits for all would be better, because a layer that needs 5 gets 8. But kernels for 5 bits are rare, and 4 and 8
# are what machines have: then mixing is how you get anything between the two.

# %% [markdown]
# ## Interview questions
#
# <details><summary>You quantize all linear layers of a model to 4 bits. It is only 1.7 times smaller. Why?</summary>
#
# Something large was no linear layer: in MiniLM, the table of word vectors. Look at the bytes by module before anything else. In
# large language models embedding and output layer are a smaller share, but 128,000 words of 4096 numbers still take a gigabyte in 16 bits, twice.
#
# </details>
# <details><summary>Accuracy is the same after quantization. Is the model the same?</summary>
#
# No. Answers may have changed in both directions. Agreement counts them, and needs no labels, so it can be measured on whatever
# the model sees in use.
#
# </details>
# <details><summary>How do you tell a loss from noise?</summary>
#
# A fraction p over n samples has a standard error of $\sqrt{p(1-p)/n}$: 0.4 points at 99% of 540. Two models measured on the same
# samples can be compared more sharply: count the samples on which they differ, and in which direction.
#
# </details>
# <details><summary>Which layers would you leave in float?</summary>
#
# Those that weigh nothing (norms, biases), and those that a measurement says are sensitive. The first and the last are the usual guess.
# In the digits network the first is right, and the last would be a waste.
#
# </details>
# <details><summary>How would you choose bits for each layer?</summary>
#
# Measure each layer's loss alone at each width, on [calibration](../docs/glossary.md#calibration) data, with a fine score. Then minimise the sum of losses under the
# budget: a knapsack, which an integer linear program solves for hundreds of layers. Then measure the chosen model, because losses do not
# quite add up.
#
# </details>
# <details><summary>Two layers share a weight. What can go wrong?</summary>
#
# Counted twice, the model seems larger than it is. Quantized in one place only, the float weight stays for the other: the model has
# grown. And a file format may refuse to store one tensor under two names.
#
# </details>
# <details><summary>Why is the 8-bit model not faster?</summary>
#
# Weight-only layers dequantize, and then multiply floats. Only integer kernels, which want 8-bit activations too, make the arithmetic cheaper;
# smaller weights help where reading memory is the bottleneck (lab 05).
#
# </details>

# %% [markdown]
# ## Takeaways
#
# - Swap layers in a deep copy, by full names, once for each layer, and print what was replaced.
# - Weigh the whole model: parameters and buffers, what is shared once. Half of it may not be in linear layers.
# - Accuracy asks the labels, agreement asks the float model. Say how large one standard error is.
# - One layer may be fifty times as sensitive as another. Measure sensitivity from the float model, one layer at a time.
# - Mixed precision puts bits where they count. It helps most where uniform bits begin to fail.
