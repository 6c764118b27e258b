"""kv_cache_bytes: how many bytes the keys and values of a text take, scales and all."""

from __future__ import annotations

from collections.abc import Callable

from labutils.arrays.inputs import bit_width, whole_number
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number
from labutils.labs.lab12 import LESSON

FLOAT16 = 16


def kv_cache_bytes(
    tokens: int, num_bits: int = 16, layers: int = 30, heads: int = 3, channels: int = 64, group_size: int = 32
) -> int:
    """Bytes of a cache after `tokens` tokens: float16 at 16 bits, else codes, scales and zero points.

    >>> kv_cache_bytes(2048)  # 2 * 30 * 3 * 64 * 2048 * 2
    47185920
    >>> kv_cache_bytes(2048, num_bits=4)
    13178880

    The defaults are SmolLM2-135M's. Below 16 bits each group of `group_size` tokens has, in each head, a float16 scale
    and a zero point of `num_bits` for each channel of the keys, and for each token of the values; tokens of a last
    group that is not full stay in float16. `models.kv_cache.kv_cache_bytes` also knows a window. TypeError or
    ValueError for what is no whole number, or is out of range.
    """
    num_bits = FLOAT16 if num_bits == FLOAT16 else bit_width(num_bits, 8, "to be packed, or 16 for float16")
    tokens = whole_number(tokens, "tokens", least=0)
    names = {"layers": layers, "heads": heads, "channels": channels, "group_size": group_size}
    layers, heads, channels, group = (whole_number(value, name, least=1) for name, value in names.items())
    return layers * heads * one_head(tokens, num_bits, channels, group) // 8


def one_head(tokens, bits, channels, group, scale=FLOAT16):
    """Bits of keys and values of one head."""
    old = 0 if bits == FLOAT16 else tokens // group * group
    codes = 2 * old * channels * bits
    rows = old // group * channels + old  # scales of keys and of values
    return codes + rows * (scale + bits) + 2 * (tokens - old) * channels * FLOAT16


def cases() -> list[Case]:
    return [
        Case("float16, 2,048 tokens", (2048,)),
        Case("float16, one token", (1,)),
        Case("float16, another model", (1000, 16, 4, 8, 128)),
        Case("4 bits, 2,048 tokens", (2048, 4)),
        Case("8 bits", (512, 8)),
        Case("2 bits", (512, 2)),
        Case("4 bits, groups of 64", (512, 4), {"group_size": 64}),
        Case("4 bits, another model", (256, 4, 4, 8, 128)),
        Case("4 bits, groups of 16, two heads", (96, 4, 4, 2, 40), {"group_size": 16}),
        Case("a last group that is not full", (100, 4)),
        Case("fewer tokens than a group", (20, 4)),
        Case("nothing yet", (0, 4)),
    ]


def read(value: object) -> dict:
    return {"bytes": as_number(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    wanted, found = kv_cache_bytes(*case.args, **case.kwargs), answer["bytes"]
    if found != wanted:
        raise Wrong(f"the cache takes {wanted:,} bytes, but the result is {found:,.10g}")


def price(
    bits_of_a_head: Callable, total: Callable = lambda bits, layers, heads: layers * heads * bits / 8
) -> Callable:
    """total(bits_of_a_head(tokens, bits, channels, group), layers, heads)."""

    def kv_cache_bytes(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
        return total(bits_of_a_head(tokens, num_bits, channels, group_size), layers, heads)

    return kv_cache_bytes


def quantized(tokens, bits, group):
    return 0 if bits == FLOAT16 else tokens // group * group


def without_scales(t, b, c, g):
    old = quantized(t, b, g)
    return 2 * old * c * b + 2 * (t - old) * c * FLOAT16


def with_rows(rows: Callable, cost: Callable = lambda b: FLOAT16 + b) -> Callable:
    """The codes, and rows(old, channels, group) scales and zero points at cost(b)."""
    return lambda t, b, c, g: without_scales(t, b, c, g) + rows(quantized(t, b, g), c, g) * cost(b)


def all_rows(old, c, g):
    return old // g * c + old


def not_full_quantized(t, b, c, g):
    if b == FLOAT16:
        return 2 * t * c * b
    return 2 * t * c * b + (-(-t // g) * c + t) * (FLOAT16 + b)


def groups_rounded_up(t, b, c, g):
    return one_head(t if b == FLOAT16 else -(-t // g) * g, b, c, g)


def not_full_in_codes(t, b, c, g):
    """The whole text in codes, with the keys' scales of whole groups only."""
    return 2 * t * c * b + (0 if b == FLOAT16 else (t // g * c + t) * (FLOAT16 + b))


def not_full_dropped(t, b, c, g):
    old = t if b == FLOAT16 else t // g * g
    return 2 * old * c * b + (0 if b == FLOAT16 else all_rows(old, c, g) * (FLOAT16 + b))


def scales_of_one_head(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    old = quantized(tokens, num_bits, group_size)
    scales = all_rows(old, channels, group_size) * (FLOAT16 + num_bits)
    return layers * (heads * without_scales(tokens, num_bits, channels, group_size) + scales) / 8


MISCONCEPTIONS = (
    Misconception("keys or values forgotten", price(lambda *a: one_head(*a) / 2),
        "Keys *and* values are cached: twice as much."),
    Misconception("one layer", price(one_head, lambda bits, layers, heads: heads * bits / 8),
        "Each layer has a cache of its own. Multiply by their number."),
    Misconception("one head", price(one_head, lambda bits, layers, heads: layers * bits / 8),
        "Each head has keys and values of its own. Multiply by their number."),
    Misconception("bits instead of bytes", price(one_head, lambda bits, layers, heads: layers * heads * bits),
        "That is bits. Eight of them are a byte."),
    Misconception("kilobytes or megabytes", price(one_head, lambda bits, layers, heads: layers * heads * bits / 8e3),
        "The contract asks for bytes: dividing is for whoever prints them."),
    Misconception("kilobytes or megabytes", price(one_head, lambda bits, layers, heads: layers * heads * bits / 8e6),
        "The contract asks for bytes: dividing is for whoever prints them."),
    Misconception("every number in num_bits, and nothing else", price(lambda t, b, c, g: 2 * t * c * b),
        "That is the codes alone. Each group has scales and zero points, and tokens whose group is not full are still "
        "in float16."),
    Misconception("scales and zero points left out", price(without_scales),
        "Each group has scales and zero points, as in lab 04. In 2 bits they are a sixth of everything."),
    Misconception("zero points left out", price(with_rows(all_rows, lambda b: FLOAT16)),
        "The grids are asymmetric: beside each scale there is a zero point of num_bits."),
    Misconception("scales left out, zero points counted", price(with_rows(all_rows, lambda b: b)),
        "Beside each zero point there is a scale, in float16."),
    Misconception("scales in float32", price(with_rows(all_rows, lambda b: 32 + b)),
        "Scales are stored in float16: 2 bytes."),
    Misconception("zero points in float16", price(with_rows(all_rows, lambda b: 2 * FLOAT16)),
        "A zero point is a code: it has num_bits, like the others."),
    Misconception("scales of the keys only", price(with_rows(lambda old, c, g: old // g * c)),
        "Values have scales as well: one for each token."),
    Misconception("scales of the values only", price(with_rows(lambda old, c, g: old)),
        "Keys have scales as well: one for each channel, in each group."),
    Misconception("keys per token, too", price(with_rows(lambda old, c, g: 2 * old)),
        "Values have a scale for each token. Keys have one for each *channel*, in each group of tokens."),
    Misconception("values per channel, too", price(with_rows(lambda old, c, g: 2 * (old // g * c))),
        "Keys have a scale for each channel, in each group of tokens. Values have one for each token."),
    Misconception("keys once, not in each group", price(with_rows(lambda old, c, g: (old > 0) * c + old)),
        "Each group of keys has scales of its own: one for each channel."),
    Misconception("values per group", price(with_rows(lambda old, c, g: old // g * (c + 1))),
        "Keys have scales in each *group*. Values have one for each token, and a group holds group_size of them."),
    Misconception("scales of tokens that are still in float16",
        price(lambda t, b, c, g: one_head(t, b, c, g) + (t % g * (FLOAT16 + b) if b != FLOAT16 else 0)),
        "Tokens of a group that is not full are in float16, and need no scale."),
    Misconception("the scales of one head", scales_of_one_head,
        "Each head has scales and zero points of its own, like its codes."),
    Misconception("one scale for each group", price(with_rows(lambda old, c, g: 2 * (old // g))),
        "In a group each *channel* of the keys has a scale, and each *token* of the values."),
    Misconception("a last group is quantized before it is full", price(not_full_quantized),
        "A group is quantized when it is full. Until then its tokens stay in float16."),
    Misconception("the last group is counted as full", price(groups_rounded_up),
        "Round the number of groups down. Tokens of a group that is not full stay in float16."),
    Misconception("a last group is quantized before it is full", price(not_full_in_codes),
        "A group is quantized when it is full. Until then its tokens stay in float16."),
    Misconception("tokens of a group that is not full left out", price(not_full_dropped),
        "Tokens that wait for their group to fill are cached as well, in float16."),
    Misconception("scales at 16 bits",
        price(lambda t, b, c, g: one_head(t, b, c, g) + (all_rows(t // g * g, c, g) * 2 * b if b == FLOAT16 else 0)),
        "At 16 bits nothing is quantized, so there are no scales."),
)  # fmt: skip

EXERCISE = Exercise(
    name="kv_cache_bytes",
    lab=LESSON,
    place=50,
    points=2,
    reference=kv_cache_bytes,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
