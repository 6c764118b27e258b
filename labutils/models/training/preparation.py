"""A network whose layers are fake-quantized on every call, ready to be trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from labutils.arrays import affine
from labutils.arrays.inputs import bit_width
from labutils.arrays.scheme import Scheme
from labutils.models.kept_dtypes import KeepsScales
from labutils.models.left_in_float import LOOK_UP_OR_NORMALIZE, left_in_float, warn
from labutils.models.linear import is_exactly
from labutils.models.observation import in_eval_mode, watch_inputs
from labutils.models.replacement import HOOKS, replaced_copy
from labutils.models.saved_form import SavesBits
from labutils.models.training.fake_quantization import best_weight_scale, fake_quantize_ste

KINDS = (nn.Linear, nn.Conv2d)


class FakeQuantizedLayer(KeepsScales, SavesBits):
    """A linear or convolution layer whose weight and input go through fake quantization on every call.

    layer           the float layer: its weight is what the optimizer moves
    weight_scale    one for each output channel, shaped to broadcast over the weight
    input_scale     one
    """

    scale_names = ("weight_scale", "input_scale")

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        input_scale: torch.Tensor,
        num_bits: int,
        activation_bits: int = 8,
        learn_scales: bool = False,
        fake_quantize: Callable = fake_quantize_ste,
    ):
        super().__init__()
        self.layer = layer
        self.num_bits, self.activation_bits = bit_width(num_bits), bit_width(activation_bits)
        self.weight_scale = nn.Parameter(best_weight_scale(layer.weight, num_bits), requires_grad=learn_scales)
        self.input_scale = nn.Parameter(input_scale, requires_grad=learn_scales)
        self.fake_quantize = fake_quantize

    @property
    def weight(self) -> torch.Tensor:
        """The weight on its grid."""
        return self.fake_quantize(self.layer.weight, self.weight_scale, self.num_bits)

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias, in float."""
        return self.layer.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """What the layer computes of an input and a weight on their grids."""
        weight = self.weight
        x = self.fake_quantize(input, self.input_scale, self.activation_bits)
        return torch.func.functional_call(self.layer, {"weight": weight}, (x,))

    def extra_repr(self) -> str:
        return f"num_bits={self.num_bits}, activation_bits={self.activation_bits}"


def prepare(
    model: nn.Module,
    inputs: torch.Tensor,
    num_bits: int,
    activation_bits: int = 8,
    learn_scales: bool = False,
    fake_quantize: Callable = fake_quantize_ste,
) -> nn.Module:
    """A copy of `model` in which every Linear and Conv2d is fake-quantized, ready to be trained.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> prepare(model, torch.rand(10, 4), num_bits=2)[0]
    FakeQuantizedLayer(
      num_bits=2, activation_bits=8
      (layer): Linear(in_features=4, out_features=3, bias=True)
    )

    Scales are chosen here, once: weights by `best_weight_scale`, a layer's input by the largest magnitude that reaches
    it when the model sees `inputs`. Untrained, the copy is the network quantized after training.
    `fake_quantize(x, scale, num_bits)` may be a learner's. LeftInFloatWarning names what stays in float although it is
    as large as a linear layer, such as an LSTM. ValueError for a model without such layers, one prepared before, or one
    with batch norm that is not folded: its statistics would move under the quantizers, and integers have no place for
    it.
    """
    if any(isinstance(module, FakeQuantizedLayer) for module in model.modules()):
        raise ValueError("the model is prepared already: prepare the float model instead")
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if norms:
        raise ValueError(f"fold batch norm into the layer before it first; not folded: {', '.join(norms)}")
    layers = _layers(model)
    largest = _largest_inputs(model, layers, inputs)
    replacements = {}
    for name, layer in layers.items():
        scale, _ = affine.choose_qparams(largest[name], Scheme(activation_bits))
        replacements[layer] = FakeQuantizedLayer(
            _copied(layer), scale, num_bits, activation_bits, learn_scales, fake_quantize
        )
    if left := left_in_float(model, (), {}, replacements, expected=LOOK_UP_OR_NORMALIZE):
        warn(left, f"Only {' and '.join(f'nn.{kind.__name__}' for kind in KINDS)} are fake-quantized.")
    return replaced_copy(model, replacements)


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> layer to be fake-quantized; ValueError for none, and for a weight that no optimizer would move."""
    layers = {name: layer for name, layer in model.named_modules() if any(is_exactly(layer, kind) for kind in KINDS)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no {' or '.join(kind.__name__ for kind in KINDS)}")
    for name, layer in layers.items():
        if "weight" not in layer._parameters:
            raise ValueError(
                f"{name}: its weight is recomputed at each call, by a parametrization or pruning, which would undo "
                "fake quantization: make it permanent first (remove_parametrizations, prune.remove)"
            )
    return layers


def _copied(layer: nn.Module) -> nn.Module:
    """A copy without hooks, which `replaced_copy` puts on what is around it."""
    copied = copy.deepcopy(layer)
    for hooks in HOOKS:
        getattr(copied, hooks).clear()
    return copied


def _largest_inputs(model: nn.Module, layers: Mapping[str, nn.Module], inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Name -> the largest magnitude that enters the layer when the model, in eval mode, sees `inputs`."""
    largest: dict[str, torch.Tensor] = {}

    def note(name: str, x: torch.Tensor) -> None:
        peak = x.abs().max()
        largest[name] = torch.maximum(peak, largest.get(name, peak))

    with torch.no_grad(), in_eval_mode(model), watch_inputs(layers, note):
        model(inputs)
    if idle := [name for name in layers if name not in largest]:
        raise ValueError(
            f"{', '.join(idle)}: nothing entered there while the model saw `inputs`, so the scale of the input is "
            "unknown: give inputs that reach every layer"
        )
    return largest
