"""Linear layers with integer weights.

| layer | weight | activations | multiplies |
|---|---|---|---|
| `QuantizedLinear` | codes, any `Scheme` | float | floats: the weight is dequantized at each call |
| `Int8Linear` | 8 bits, a scale for each output | 8 bits, a scale and zero point for each row | integers |
| `PackedLinear` | 2 to 8 bits in real bytes, groups | float | on torch's int4 kernel where it fits, else floats |

`repack` lets those of a model hold their weights for a text that is written a token at a time.

They are for inference: their weights are buffers, and no gradient reaches a weight. They go through `state_dict`,
`deepcopy`, `pickle`, `.to()` and safetensors like any layer; what is saved does not depend on the machine.
"""

from labutils.arrays.grids import Integers
from labutils.arrays.scheme import Scheme
from labutils.models.layers.base import GROUPS, PER_CHANNEL
from labutils.models.layers.held import HeldLinear, repack
from labutils.models.layers.int8 import Int8Linear
from labutils.models.layers.packed import PackedLinear
from labutils.models.layers.quantized import QuantizedLinear

__all__ = [
    "GROUPS",
    "PER_CHANNEL",
    "HeldLinear",
    "Int8Linear",
    "PackedLinear",
    "QuantizedLinear",
    "layer_kind",
    "repack",
]


def layer_kind(scheme: Scheme) -> type[QuantizedLinear] | type[PackedLinear]:
    """The layer for weights of `scheme` and float activations: below 8 bits, integers are packed.

    >>> layer_kind(Scheme(8)).__name__, layer_kind(Scheme(4)).__name__
    ('QuantizedLinear', 'PackedLinear')

    A PackedLinear has integers, and scales that it rounds in a way of its own. So other grids, and schemes that say
    where scales lie, get a QuantizedLinear: right in every number, and a byte for each code.
    """
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, got {scheme!r}")
    is_packed = isinstance(scheme.grid, Integers) and scheme.scale_grid is None and scheme.num_bits < 8
    return PackedLinear if is_packed else QuantizedLinear
