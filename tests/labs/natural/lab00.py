"""Lab 00: storage_bytes."""

import math

from tests.labs.natural import mistake


@mistake("storage_bytes")
def rounds_each_value_and_adds_one(num_values, num_bits):
    return num_values * (num_bits // 8 + 1)


@mistake("storage_bytes", "whole bytes for every value")
def bytes_of_each_value_first(num_values, num_bits):
    return num_values * math.ceil(num_bits / 8)


@mistake("storage_bytes", "last byte is lost")
def floor_division(num_values, num_bits):
    return num_values * num_bits // 8


@mistake("storage_bytes", "bits taken for bytes")
def adds_seven_without_dividing(num_values, num_bits):
    return num_values * num_bits + 7 // 8


@mistake("storage_bytes")
def sixteen_bits_are_a_byte(num_values, num_bits):
    return math.ceil(num_values * num_bits / 16)


# Written without a look at the tables of misconceptions.


@mistake("storage_bytes")
def storage_values_per_byte(num_values, num_bits):
    """Lets no value cross a byte: 8 // num_bits whole values in each byte (and 0 of them above 8 bits)."""
    per_byte = 8 // num_bits
    return -(-num_values // per_byte)


@mistake("storage_bytes")
def storage_power_of_two(num_values, num_bits):
    """Takes 2 ** num_bits, the number of codes, for the number of bits."""
    return (num_values * 2**num_bits + 7) // 8


@mistake("storage_bytes", "one byte too many")
def storage_always_one_more(num_values, num_bits):
    """Adds a byte even where the bits fill whole bytes: 8 bits become 2 bytes."""
    return num_values * num_bits // 8 + 1


@mistake("storage_bytes", "whole bytes for every value")
def storage_bytes_per_value(num_values, num_bits):
    """Rounds each value up to whole bytes before multiplying, so nothing is packed."""
    return num_values * ((num_bits + 7) // 8)


@mistake("storage_bytes", "a fraction of a byte")
def storage_true_division(num_values, num_bits):
    """Returns a fraction of a byte: the float quotient, not rounded up."""
    return num_values * num_bits / 8
