"""Whatever a learner's function does, the caller gets an outcome in time, and its streams and settings restored."""

import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from labutils.course import guard
from labutils.course.guard import PRINT_LIMIT, Outcome, TimeUp, call

LIMIT = 0.2  # seconds; a loaded machine may be slow to notice, never quick


@pytest.fixture
def released():
    """An event that is set after the test, to end calls that cannot be stopped."""
    event = threading.Event()
    yield event
    event.set()


def still_running():
    """The threads of calls that do not end within a second."""
    for _ in range(100):
        calls = [thread for thread in threading.enumerate() if thread.name.startswith("call of")]
        if not calls:
            break
        time.sleep(0.01)
    return calls


# --- what comes back ---


def test_a_value_comes_back_with_the_arguments_passed_on():
    outcome = call(lambda *args, **kwargs: (args, kwargs), 1, "two", three=3)
    assert outcome == Outcome(value=((1, "two"), {"three": 3}))
    assert not outcome.timed_out and not outcome.undone


@pytest.mark.parametrize("value", [None, False, 0, NotImplemented], ids=repr)
def test_an_empty_value_is_a_value(value):
    assert call(lambda: value) == Outcome(value=value)


def test_the_very_object_comes_back():
    array = np.arange(3)
    assert call(lambda: array).value is array


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), KeyError("k"), AssertionError(), MemoryError(), SystemExit(3), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_comes_back_as_itself(error):
    def fails():
        raise error

    outcome = call(fails)
    assert outcome.error is error and outcome.value is None
    assert not outcome.timed_out and not outcome.undone


def test_leaving_with_exit_does_not_end_the_course():
    assert isinstance(call(lambda: sys.exit("bye")).error, SystemExit)


def test_endless_recursion_is_an_error_like_any_other():
    def again():
        return again() + 1

    assert isinstance(call(again).error, RecursionError)


def test_what_cannot_be_called_is_a_type_error():
    assert isinstance(call(None).error, TypeError)


def test_the_traceback_reaches_the_line_that_failed():
    def divides(x):
        return 1 / x

    traceback = call(divides, 0).error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code is divides.__code__


def test_not_implemented_is_not_done_yet():
    def stub():
        raise NotImplementedError("your turn")

    assert call(stub).undone
    assert not call(lambda: NotImplementedError()).undone  # returned, not raised


# --- time ---


def test_an_endless_loop_is_ended():
    def loops():
        while True:
            pass

    outcome = call(loops, time_limit=LIMIT)
    assert outcome.timed_out and isinstance(outcome.error, TimeUp)
    assert "0.2 seconds" in str(outcome.error)
    assert not still_running()


def test_a_loop_that_catches_exceptions_is_ended():
    def loops():
        while True:
            try:
                time.sleep(0.001)
            except Exception:
                continue

    assert call(loops, time_limit=LIMIT).timed_out
    assert not still_running()


def test_a_loop_that_catches_everything_a_few_times_is_ended():
    caught = []

    def loops():
        while True:
            try:
                while True:
                    pass
            except:  # noqa: E722
                caught.append(1)
                if len(caught) == 3:
                    raise

    assert call(loops, time_limit=LIMIT).timed_out
    assert len(caught) == 3 and not still_running()


def test_a_loop_that_catches_everything_for_ever_does_not_block_the_caller(monkeypatch, released):
    monkeypatch.setattr(guard, "GRACE", 0.2)

    def loops():
        while not released.is_set():
            try:
                while not released.is_set():
                    pass
            except:  # noqa: E722
                pass

    assert call(loops, time_limit=LIMIT).timed_out and still_running()
    assert call(lambda: "still here").value == "still here"
    released.set()
    [thread.join() for thread in still_running()]


def test_a_call_into_compiled_code_goes_on_while_the_caller_does_too(monkeypatch, released):
    monkeypatch.setattr(guard, "GRACE", 0.1)
    assert call(released.wait, time_limit=LIMIT).timed_out  # a lock: no Python runs in which TimeUp could be raised
    assert call(lambda: "still here").value == "still here"


def test_after_a_call_that_hung_the_next_has_all_its_time():
    def loops():
        while True:
            pass

    for _ in range(3):
        assert call(loops, time_limit=0.05).timed_out
        assert call(sum, [1, 2]) == Outcome(value=3)


def test_a_call_is_given_its_time():
    def takes_a_while():
        time.sleep(LIMIT)
        return "done"

    assert call(takes_a_while, time_limit=30).value == "done"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_the_stop_button_ends_the_call_and_is_passed_on():
    started, rounds = threading.Event(), [0]

    def loops():
        started.set()
        while True:
            rounds[0] += 1

    def press():
        started.wait()
        time.sleep(LIMIT)  # until the caller waits for the call
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    # A job in the background may have been started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    button = threading.Thread(target=press)
    button.start()
    stdout = sys.stdout
    try:
        with pytest.raises(KeyboardInterrupt):
            call(loops, time_limit=10)
    finally:
        button.join()
        signal.signal(signal.SIGINT, before)
    assert sys.stdout is stdout and not still_running()
    ended_after = rounds[0]
    time.sleep(LIMIT)
    assert rounds[0] == ended_after


# --- prints and warnings ---


def test_what_is_printed_is_kept_and_not_shown(capsys):
    def prints():
        print("one")
        print("two", file=sys.stderr)
        return 3

    assert call(prints) == Outcome(value=3, printed="one\ntwo\n")
    assert capsys.readouterr() == ("", "")


def test_what_was_printed_before_an_error_is_kept():
    def prints():
        print("so far")
        raise ValueError

    assert call(prints).printed == "so far\n"


@pytest.mark.parametrize("length", [PRINT_LIMIT - 1, PRINT_LIMIT, PRINT_LIMIT + 1, 10 * PRINT_LIMIT])
def test_a_long_print_is_cut(length):
    printed = call(print, "x" * length, end="").printed
    assert printed == "x" * min(length, PRINT_LIMIT)


def test_a_loop_that_prints_for_ever_fills_no_memory():
    def prints():
        while True:
            print("x" * 99)

    outcome = call(prints, time_limit=LIMIT)
    assert outcome.timed_out
    assert outcome.printed == (("x" * 99 + "\n") * PRINT_LIMIT)[:PRINT_LIMIT]


@pytest.mark.parametrize("ending", ["returns", "raises", "hangs", "closes its output", "replaces its output"])
def test_the_caller_has_its_output_and_its_warnings_back(ending):
    def ends():
        if ending == "raises":
            raise ValueError
        if ending == "closes its output":
            sys.stdout.close()
        if ending == "replaces its output":
            sys.stdout = sys.stderr = None
        while ending == "hangs":
            pass

    before = sys.stdout, sys.stderr, list(warnings.filters)
    call(ends, time_limit=LIMIT)
    assert (sys.stdout, sys.stderr, list(warnings.filters)) == before


def test_warnings_are_silent_even_where_they_are_errors():
    def warns():
        warnings.warn("careful", stacklevel=1)
        return "went on"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(warns) == Outcome(value="went on")
        with pytest.raises(UserWarning):
            warns()


def test_dividing_by_zero_is_silent_even_where_it_is_an_error():
    def divides():
        warnings.simplefilter("error")  # as a learner's own code may
        return np.ones(1) / np.zeros(1)

    with np.errstate(all="raise"):
        before = np.geterr()
        assert call(divides).value.tolist() == [np.inf]
        assert np.geterr() == before
        with pytest.raises(FloatingPointError):
            divides()


def test_an_import_is_waited_for_and_counts_only_as_an_import(monkeypatch, tmp_path):
    """The first import of torch takes longer than the limit; stopped halfway, torch could not be imported again."""
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\nANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)

    def asks():
        import slow_to_import

        return slow_to_import.ANSWER

    assert call(asks, time_limit=0.1).value == 42

    def hangs():
        import slow_to_import

        while slow_to_import:
            pass

    assert call(hangs, time_limit=0.1).timed_out


def test_two_calls_at_once_wait_for_each_other_and_restore_everything():
    """JupyterLab moves a slider in a thread beside the one in which a cell checks."""
    streams, filters, stop = (sys.stdout, sys.stderr, sys.stdin), list(warnings.filters), threading.Event()
    answers = []
    first = threading.Thread(target=lambda: answers.append(call(stop.wait, 10).value))
    second = threading.Thread(target=lambda: answers.append(call(lambda: "second").value))
    first.start()
    while sys.stdout is streams[0]:
        first.join(0.01)
    second.start()
    second.join(0.1)
    assert answers == []
    stop.set()
    first.join()
    second.join()
    assert answers == [True, "second"]
    assert (sys.stdout, sys.stderr, sys.stdin) == streams
    assert list(warnings.filters) == filters
