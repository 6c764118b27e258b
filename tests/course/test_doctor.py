"""The doctor finds what is wrong, and says what to do."""

import subprocess
import sys

import pytest

from labutils.course import doctor


def test_a_sound_environment_is_called_sound():
    assert "Everything the labs need is here" in doctor.diagnose().text


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "scipy" else real(name))
    found = doctor.diagnose()
    assert "[bad ] packages: missing: scipy; run `pip install scipy`" in found.text
    assert "Something is missing" in found.html


def test_widgets_too_old_for_jupyterlab_are_noticed(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "7.8.1")
    assert "sliders need 8 or newer" in doctor.diagnose().text


def test_colabs_own_widgets_will_do(monkeypatch):
    monkeypatch.setattr(doctor, "_version", {"ipywidgets": "7.7.1"}.get)
    assert "[ ok ] sliders: ipywidgets 7.7.1" in doctor.diagnose().text


def test_torch_and_transformers_are_wished_for_and_not_demanded(monkeypatch):
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    found = doctor.diagnose()
    assert "[note] torch: not installed: labs 00 to 04 run without it" in found.text
    assert "[note] transformers: not installed: MiniLM as a whole" in found.text
    assert "Everything the labs need is here" in found.text


def test_a_look_that_fails_is_a_finding(monkeypatch):
    def broken():
        raise OSError("disk on fire")

    monkeypatch.setitem(doctor.LOOKS, "digits network", broken)
    assert "[bad ] digits network: OSError: disk on fire" in doctor.diagnose().text


def test_a_progress_folder_that_cannot_be_written_is_a_remark(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "cannot be written, so passed checks are not remembered" in doctor.diagnose().text


@pytest.mark.parametrize("arguments", [["-m", "labutils"], ["-m", "labutils.course.doctor"]])
def test_in_a_terminal_it_prints_and_exits_0(arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "digits network: reads 99" in done.stdout
