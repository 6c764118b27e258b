"""How the tensors of a module are to be read, saved beside them and compared when they are loaded.

Tensors of two schemes may have the same shapes and dtypes: 64 columns are two groups of 40 as well as two of 33. So
the scheme is saved, as the shape of an empty tensor: in files of every kind, at no bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from labutils.arrays.grids import NF4, FloatGrid, Grid, Integers
from labutils.arrays.grids.floats import SPECIALS
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme

GRANULARITIES = (PerTensor, PerAxis, PerGroup)
CODEBOOKS = (NF4,)  # that a number can stand for; others' values are nowhere in what is saved


def scheme_numbers(scheme: Scheme) -> list[int]:
    """A matrix's scheme in whole numbers from 0 on: num_bits, symmetric, the kind of granularity and its argument.

    >>> scheme_numbers(Scheme(4, granularity=PerGroup(32)))
    [4, 1, 2, 32]

    Numbers of another grid than integers follow. `clip` and the grid of scales play no part in reading codes.
    ValueError for a codebook other than NF4.
    """
    granularity = scheme.granularity
    argument = granularity.axis % 2 if isinstance(granularity, PerAxis) else getattr(granularity, "group_size", 0)
    kind = GRANULARITIES.index(type(granularity))
    return [scheme.num_bits, int(scheme.symmetric), kind, argument, *_grid_numbers(scheme.grid)]


def scheme_of(numbers: Sequence[int]) -> Scheme:
    """Undo `scheme_numbers`.

    >>> scheme_of([4, 1, 2, 32]).granularity
    PerGroup(group_size=32)
    """
    num_bits, symmetric, kind, argument, *of_grid = (int(number) for number in numbers)
    kind = GRANULARITIES[kind]
    granularity = kind() if kind is PerTensor else kind(argument)
    if not of_grid:
        return Scheme(num_bits, bool(symmetric), granularity)
    return Scheme(grid=_grid_of(of_grid), granularity=granularity)


def _grid_numbers(grid: Grid) -> list[int]:
    if isinstance(grid, Integers):
        return []
    if isinstance(grid, FloatGrid):
        return [grid.exponent_bits, grid.mantissa_bits, SPECIALS.index(grid.specials), int(grid.signed)]
    if grid in CODEBOOKS:
        return [CODEBOOKS.index(grid)]
    raise ValueError(f"codes of {grid!r} cannot be saved or exported: of codebooks, only {CODEBOOKS} can")


def _grid_of(numbers: Sequence[int]) -> Grid:
    if len(numbers) == 1:
        return CODEBOOKS[numbers[0]]
    exponent_bits, mantissa_bits, specials, signed = numbers
    return FloatGrid(exponent_bits, mantissa_bits, SPECIALS[specials], bool(signed))


class SavesForm(nn.Module):
    """A module that saves the numbers which say how it reads its tensors, and refuses a state saved with others."""

    form_name: str  # under which the numbers are saved

    def _form(self) -> list[int] | None:
        """The numbers; None where the shapes and dtypes of the tensors already say everything."""
        raise NotImplementedError

    def _describe_form(self, numbers: Sequence[int] | None) -> str:
        raise NotImplementedError

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if (form := self._form()) is not None:
            destination[prefix + self.form_name] = torch.empty(0, *form, dtype=torch.int8)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, metadata: dict, strict: bool, missing: list, unexpected: list, errors: list
    ) -> None:
        key, own = prefix + self.form_name, self._form()
        found = list(state_dict[key].shape[1:]) if key in state_dict else None
        if found is None and own is not None:
            missing.append(key)
        elif found != own:
            errors.append(f"{key}: it was saved with {self._described(found)}, but has {self._describe_form(own)} here")
            return
        rest = {name: tensor for name, tensor in state_dict.items() if name != key}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)

    def _described(self, numbers: list[int]) -> str:
        try:
            return self._describe_form(numbers)
        except (IndexError, ValueError):
            return f"numbers that say nothing, {numbers}"


class SavesBits(SavesForm):
    """A module that saves its `num_bits` and `activation_bits`."""

    form_name = "bits"

    def _form(self) -> list[int]:
        return [self.num_bits, self.activation_bits]

    def _describe_form(self, numbers: Sequence[int] | None) -> str:
        num_bits, activation_bits = numbers or self._form()
        return f"{num_bits}-bit weights and {activation_bits}-bit activations"
