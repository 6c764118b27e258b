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
