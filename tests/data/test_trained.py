"""A model is missing for a reason, or it is there."""

import pytest

from labutils.data import trained

VARIABLES = [module.VARIABLE for module in trained.MODULES.values()]


@pytest.fixture(params=trained.MODULES)
def tag(request, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return request.param


def test_a_missing_model_says_how_to_get_it(tag, monkeypatch):
    monkeypatch.setattr(trained.MODULES[tag], "PLACES", ())
    assert "pip install" in trained.why_missing(tag)


def test_a_model_that_is_found_is_not_missing(tag, monkeypatch):
    monkeypatch.setattr(trained.MODULES[tag], "find", lambda: ("a file", "a shelf"))
    assert trained.why_missing(tag) is None


def test_other_errors_are_not_taken_for_a_missing_model(tag, monkeypatch):
    monkeypatch.setattr(trained.MODULES[tag], "find", lambda: {}["a mistake in the code"])
    with pytest.raises(KeyError):
        trained.why_missing(tag)
