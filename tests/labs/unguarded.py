"""Checks of answers that stand in these tests, and so need no thread, no time limit and no restored world.

What guards a learner's answer takes as long as a check itself. tests/course says what the guard does.
"""

import contextlib

import pytest

from labutils.course import engine, guard


@contextlib.contextmanager
def unguarded():
    """In the block, `guard.call` calls as `guard.call_trusted` does."""
    trusted = guard.call_trusted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "call", lambda function, *args, time_limit, **kwargs: trusted(function, *args, **kwargs))
        yield


def examine(answer, exercise):
    """The report on an answer of our own."""
    with unguarded():
        return engine.examine(answer, exercise)
