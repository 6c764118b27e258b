"""Lab 00: how many bytes."""

from __future__ import annotations

from labutils.scheme import whole_number


def storage_bytes(num_values: int, num_bits: int) -> int:
    """Whole bytes that `num_values` numbers of `num_bits` bits take when they are packed without gaps.

    >>> storage_bytes(7_000_000_000, 4), storage_bytes(3, 3)
    (3500000000, 2)
    """
    values, bits = whole_number(num_values, "num_values"), whole_number(num_bits, "num_bits")
    if values < 0 or bits < 1:
        raise ValueError(f"expected num_values >= 0 and num_bits >= 1, got {values} and {bits}")
    return -(-values * bits // 8)
