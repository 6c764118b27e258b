"""A broken file fails its own exercise with an error that names it, and no other."""

import re

import pytest

from labutils import board, check
from labutils.labs.catalogue import EXERCISES, Catalogue

GOOD = "from labutils.labs.lab00.storage_bytes import EXERCISE, storage_bytes"
BROKEN = {
    "a syntax error": ("def broken(:", "cannot be imported: SyntaxError"),
    "an error while it is imported": ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
    "a missing import": ("import no_such_package", "cannot be imported: ModuleNotFoundError: No module named"),
    "no exercise": ("def broken(x): pass", "defines no EXERCISE"),
    "nothing": ("", "defines no EXERCISE"),
}


@pytest.fixture(params=BROKEN.values(), ids=BROKEN)
def broken(request, tmp_path, monkeypatch):
    """(the message, a catalogue of lab00 with storage_bytes and lab03 with a broken file)."""
    source, message = request.param
    package = f"labs_{abs(hash(tmp_path))}"  # a name that was never imported
    for path, text in {"lab00/storage_bytes.py": GOOD, "lab03/broken.py": source, "lab03/_shared.py": "1 / 0"}.items():
        file = tmp_path / package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    catalogue = Catalogue(package, tmp_path / package)
    for module in ("board", "check"):
        monkeypatch.setattr(f"labutils.labs.{module}.EXERCISES", catalogue)
    return f"{package}/lab03/broken.py {message}", catalogue


def storage_bytes(num_values, num_bits):
    return -(-num_values * num_bits // 8)


def misspelt_bytes(num_values, num_bits):
    pass


def test_checks_of_other_exercises_go_on(broken, capsys):
    check(storage_bytes)
    assert "all 7 cases pass" in capsys.readouterr().out
    with pytest.raises(LookupError, match="The exercises are: storage_bytes, broken"):
        check(misspelt_bytes)


def test_the_board_names_the_broken_file(broken):
    message, _ = broken
    with pytest.raises(ImportError, match=re.escape(message)):
        board()


def test_a_look_at_the_broken_exercise_names_its_file(broken):
    message, catalogue = broken
    assert list(catalogue.files) == ["storage_bytes", "broken"]
    with pytest.raises(ImportError, match=re.escape(message)):
        catalogue["broken"]


def test_a_file_without_the_function_of_its_name_is_named(tmp_path, monkeypatch):
    (tmp_path / "labs_without" / "lab01").mkdir(parents=True)
    (tmp_path / "labs_without" / "lab01" / "__init__.py").touch()
    (tmp_path / "labs_without" / "lab01" / "explore_nothing.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    catalogue = Catalogue("labs_without", tmp_path / "labs_without")
    assert list(catalogue.explorers) == ["explore_nothing"] and len(catalogue) == 0
    with pytest.raises(ImportError, match=r"labs_without/lab01/explore_nothing.py defines no explore_nothing"):
        catalogue.load("explore_nothing")


def test_what_is_no_exercise_is_not_found():
    for name in ("explore_groups", "_shared", "no_such_exercise"):
        assert name not in EXERCISES
        with pytest.raises(KeyError, match=name):
            EXERCISES[name]


def test_iteration_goes_in_the_order_of_the_course():
    assert sorted(EXERCISES) == sorted(EXERCISES.names) and len(EXERCISES) == len(EXERCISES.names)
    labs = [exercise.lab for exercise in EXERCISES.values()]
    assert labs == sorted(labs)
    assert next(iter(EXERCISES)) == "storage_bytes"
