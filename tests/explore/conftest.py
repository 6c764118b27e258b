"""What every explorer must outlive."""

import pytest


@pytest.fixture
def outlives(monkeypatch):
    """outlives(explore, working, broken, sentence): a function that breaks while a slider moves is reported with
    `sentence`, shows no picture of what it did not compute, and works again as soon as it works again.

    `control` is the slider, moved by `step`; what takes long when it works needs a longer `time_limit`, in seconds.
    """

    def outlives(explore, working, broken, sentence, control="num_bits", step=1, time_limit=0.2):
        monkeypatch.setattr("labutils.explore.explorer.TIME_LIMIT", time_limit)
        works = [True]

        def function(*args):
            return (working if works[0] else broken)(*args)

        explorer = explore(quantize=function)
        slider = explorer.controls[control]
        start, good = slider.value, explorer.picture.value
        works[0] = False
        slider.value = start + step
        assert sentence in explorer.readout.value
        assert explorer.picture.value != good
        works[0] = True
        slider.value = start
        assert explorer.picture.value == good

    return outlives
