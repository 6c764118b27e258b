"""kv_cache_bytes: the formula, and the bytes that a cache really holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import kv_cache_bytes
from labutils.labs.lab12.kv_cache_bytes import price
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes


@given(st.integers(0, 300), st.sampled_from([16, 8, 4, 2]), st.sampled_from([16, 32, 64]))
def test_it_is_the_librarys_formula_without_a_window(tokens, num_bits, group_size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from labutils.models import kv_cache

    config = transformers.LlamaConfig(num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, hidden_size=64)
    bits = None if num_bits == 16 else num_bits
    wanted = kv_cache.kv_cache_bytes(config, tokens, bits, dtype=torch.float16, group_size=group_size, window=0)
    assert kv_cache_bytes(tokens, num_bits, layers=3, heads=2, channels=16, group_size=group_size) == wanted


def test_float16_is_two_bytes_a_number_and_the_hand_example_holds():
    assert kv_cache_bytes(2048) == 2 * 30 * 3 * 64 * 2048 * 2
    assert kv_cache_bytes(33, 4, layers=1, heads=1) == 2048 + 240 + 256


@given(st.integers(0, 500), st.sampled_from([2, 4, 8]))
def test_more_tokens_take_more_and_fewer_bits_never_do(tokens, num_bits):
    assert kv_cache_bytes(tokens + 32, num_bits) > kv_cache_bytes(tokens, num_bits)
    assert kv_cache_bytes(tokens, num_bits) <= kv_cache_bytes(tokens)


BAD = {
    "negative": ((-1,), ValueError, ("tokens", "-1")),
    "half a token": ((1.5,), TypeError, ("tokens", "1.5")),
    "12 bits": ((10, 12), ValueError, ("num_bits", "12")),
    "1 bit": ((10, 1), ValueError, ("num_bits", "1")),
    "no layers": ((10, 4, 0), ValueError, ("layers", "0")),
    "a string": (("10",), TypeError, ("tokens",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_is_no_cache_is_refused(args, kind, words):
    refuses(kind, words, kv_cache_bytes, *args)


def in_bits(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    groups = 0 if num_bits == 16 else tokens // group_size
    codes = groups * group_size * channels * num_bits * 2
    scales = groups * (channels + group_size) * (16 + num_bits)
    rest = (tokens - groups * group_size) * channels * 16 * 2
    return layers * heads * (codes + scales + rest) / 8


def in_bytes(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 2 * 2 * layers * heads * channels * tokens
    old, waiting = tokens - tokens % group_size, tokens % group_size
    each = num_bits / 8
    keys = old * channels * each + old / group_size * channels * (2 + each)
    values = old * channels * each + old * (2 + each)
    return layers * heads * (keys + values + 4 * waiting * channels)


def token_by_token(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    total = 0
    for token in range(tokens):
        waits = num_bits == 16 or token >= tokens // group_size * group_size
        total += 2 * channels * (16 if waits else num_bits) + (0 if waits else 16 + num_bits)
        if not waits and token % group_size == 0:
            total += channels * (16 + num_bits)
    return total * layers * heads // 8


def numpy_number(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    import numpy as np

    return np.array([in_bits(tokens, num_bits, layers, heads, channels, group_size)])


def both_kinds_apart(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    def kind(scales_of_a_group):
        groups, rest = divmod(tokens, group_size) if num_bits < 16 else (0, tokens)
        group = group_size * channels * num_bits + scales_of_a_group * (16 + num_bits)
        return groups * group + rest * channels * 16

    return (kind(channels) + kind(group_size)) * heads * layers // 8


def the_recipe(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    from labutils.labs.lab12.kv_cache_bytes import one_head

    return price(one_head)(tokens, num_bits, layers, heads, channels, group_size)


RIGHT = [in_bits, in_bytes, token_by_token, numpy_number, both_kinds_apart, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("kv_cache_bytes", answer)
