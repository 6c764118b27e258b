"""What enters the layers of a model while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from labutils.models.linear import linear_layers

Tensor = torch.Tensor


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and each of its modules back into its own.

    >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with in_eval_mode(model):
    ...     model[0].training
    False
    >>> [module.training for module in model]
    [True, False]
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def watch_inputs(layers: Mapping[str, nn.Module], note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call note(name, x) whenever one of the layers runs, with its input, detached; empty inputs are left out.

    >>> layer = nn.Linear(2, 2)
    >>> with watch_inputs({"first": layer}, lambda name, x: print(name, tuple(x.shape))):
    ...     y = layer(torch.zeros(5, 2))
    first (5, 2)
    """

    def hook(layer: nn.Module, args: tuple, kwargs: dict, name: str) -> None:
        x = (args[0] if args else kwargs["input"]).detach()
        if x.numel():
            note(name, x)

    handles = [
        layer.register_forward_pre_hook(partial(hook, name=name), with_kwargs=True) for name, layer in layers.items()
    ]
    fast_paths = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # on which torch's transformer layers do not call their layers
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_paths)
        for handle in handles:
            handle.remove()


@dataclass(eq=False)
class Observed:
    """What entered the linear layers of a model.

    maxima  name of a layer -> (in_features,), the largest magnitude in each channel
    inputs  name of a layer that was to be kept -> (rows, in_features), every row that came
    """

    maxima: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def observe(model: nn.Module, keep: Iterable[str] = ()) -> Iterator[Observed]:
    """Record the largest magnitudes that enter every linear layer while the model runs; batches are not stored.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> with observe(model) as seen:
    ...     for batch in (torch.tensor([[1.0, -3.0]]), torch.tensor([[-2.0, 0.5], [0.0, 1.0]])):
    ...         y = model(batch)
    >>> seen.maxima["0"]
    tensor([2., 3.])

    The maxima are complete when the block ends; what watches is removed then, also after an error. Inputs are kept
    only of the layers that `keep` names. ValueError where a layer's input holds NaN or Inf (it is named), where nothing
    ran, for a model without linear layers, and for a name that no linear layer has.
    """
    layers, keep = linear_layers(model), [keep] if isinstance(keep, str) else list(keep)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to observe")
    for name in keep:
        if name not in layers:
            raise ValueError(f"no linear layer is called {name!r}; there are {', '.join(list(layers)[:3])}, ...")
    seen, kept = Observed(), {name: [] for name in keep}

    def note(name: str, x: Tensor) -> None:
        rows = x.reshape(-1, layers[name].in_features)
        peaks = rows.abs().amax(0)
        if not peaks.isfinite().all():
            raise ValueError(f"{name}: its input holds NaN or Inf")
        seen.maxima[name] = torch.maximum(seen.maxima[name], peaks) if name in seen.maxima else peaks
        if name in kept:
            kept[name].append(rows.clone())

    with watch_inputs(layers, note):
        yield seen
    if not seen.maxima:
        raise ValueError("nothing was observed: run the model on calibration data inside the `with` block")
    seen.inputs.update({name: torch.cat(rows) for name, rows in kept.items() if rows})
