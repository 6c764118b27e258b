"""Every example in a docstring or in the README gives the output that it shows."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch

import labutils
from labutils import PerAxis, PerGroup, PerTensor

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages(labutils.__path__, "labutils."))
MODELS = {  # module -> the fixture of the model that its examples use
    "labutils.data.sentences": "trained",
    "labutils.data.language_model": "language",
    "labutils.models.evaluation.language": "language",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name, request):
    if name in MODELS:
        request.getfixturevalue(MODELS[name])
    module = importlib.import_module(name)
    granularities = {"PerAxis": PerAxis, "PerGroup": PerGroup, "PerTensor": PerTensor}
    names = {"np": np, "torch": torch, "nn": torch.nn} | granularities
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, extraglobs=names, optionflags=flags)
    assert result.failed == 0


def test_examples_in_the_readme():
    assert doctest.testfile(str(ROOT / "README.md"), module_relative=False).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name):
    assert importlib.import_module(name).__doc__


def test_every_public_function_has_an_example():
    without = []
    for name in labutils.__all__:
        public = getattr(labutils, name)
        if callable(public) and not isinstance(public, type) and ">>>" not in (public.__doc__ or ""):
            without.append(name)
    assert without == []
