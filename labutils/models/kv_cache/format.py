"""The options of a quantized cache, and which tokens it has quantized."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from labutils.arrays.inputs import bit_width, true_or_false, whole_number

SHARED = ("channel", "token", None)
SCALE_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class CacheFormat:
    """How keys and values are stored.

    >>> CacheFormat(num_bits=2, group_size=32, window=16).quantized_tokens(100)
    64

    num_bits     2 to 8, or None: everything stays in full precision
    keys         "channel": the elements of one channel share a scale, in groups of `group_size` tokens; "token": the
                 elements of one token do; None: keys stay in full precision
    values       the same for values
    symmetric    True: signed codes. False: unsigned codes, and a zero point of `num_bits` for each scale
    group_size   tokens that are quantized at once, when the window has passed them
    window       that many of the newest tokens, and up to group_size - 1 more, are in full precision
    scale_dtype  float16, or bfloat16 for scales beyond 65504

    Every head of every sequence has scales of its own.
    """

    num_bits: int | None = 4
    keys: str | None = "channel"
    values: str | None = "token"
    symmetric: bool = False
    group_size: int = 32
    window: int = 32
    scale_dtype: torch.dtype = torch.float16

    def __post_init__(self):
        if self.num_bits is not None:
            bit_width(self.num_bits, 8, "to be packed, or None for full precision")
        for name in ("keys", "values"):
            if getattr(self, name) not in SHARED:
                raise ValueError(f'{name} must be "channel", "token" or None, got {getattr(self, name)!r}')
        true_or_false(self.symmetric, "symmetric")
        whole_number(self.group_size, "group_size", least=1)
        whole_number(self.window, "window", least=0)
        if self.scale_dtype not in SCALE_DTYPES:
            raise ValueError(f"scale_dtype must be torch.float16 or torch.bfloat16, got {self.scale_dtype!r}")

    @classmethod
    def of(cls, num_bits: int | None, options: dict) -> CacheFormat:
        """The format with these options; TypeError for a name that is not among them."""
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in options if name not in names]:
            raise TypeError(f"there is no option {', '.join(unknown)}; the options are {', '.join(names)}")
        return cls(num_bits, **options)

    def shared_by(self, kind: str) -> str | None:
        """What shares a scale in "keys" or "values"; None where they stay in full precision."""
        return None if self.num_bits is None else getattr(self, kind)

    def quantized_tokens(self, tokens: int) -> int:
        """How many of the oldest of `tokens` are quantized: all whole groups that lie before the window."""
        return max(0, tokens - self.window) // self.group_size * self.group_size
