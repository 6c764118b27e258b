"""Checks of answers that stand in these tests, and so need no thread, no time limit and no restored world in each call.

What guards a learner's answer takes as long as a check itself. tests/course says what the guard does.
"""

import pytest

from labutils.course import engine, guard


def examine(answer, exercise):
    """The report on an answer of our own, which is called as `guard.call_trusted` calls."""
    trusted = guard.call_trusted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "call", lambda function, *args, time_limit, **kwargs: trusted(function, *args, **kwargs))
        return engine.examine(answer, exercise)
