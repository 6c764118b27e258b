"""An exception that a call raised: the sentence for the learner, and whether two of them are the same mistake."""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import numpy as np

from labutils.course.reading import brief, error_text

LINE_LENGTH = 120  # characters shown of a source line
MOST_ARRAYS = 4  # of a line, whose shapes are shown

LENGTH = r"(?:-?\d+|newaxis)"
SHAPE = re.compile(rf"\({LENGTH}?(?:, ?{LENGTH})*,?\)|\[{LENGTH}(?:, ?{LENGTH})*\]|\b\d+x\d+\b|of size \d+")
DTYPE = re.compile(r"bfloat16|half|float|double|char|byte|int|long|short|bool")
NUMBER = re.compile(r"(?<!dimension )[-+]?\b\d+(?:\.\d*)?(?:e[-+]?\d+)?\b")


def kind_of(error: BaseException) -> str:
    """What two exceptions have in common that were raised by the same mistake.

    >>> kind_of(ValueError("operands could not be broadcast together with shapes (4,3) (4,) "))
    'ValueError: operands could not be broadcast together with shapes <> <> (4,) (4,3)'
    >>> kind_of(IndexError("index 7 is out of bounds for axis 0 with size 7"))
    'IndexError: index # is out of bounds for axis # with size #'

    >>> kind_of(RuntimeError("self and mat2 must have the same dtype, but got Half and Char"))
    'RuntimeError: dtypes char half'

    The type and the message, in which numbers do not count. Shapes do, but not their order: `a + b` fails as `b + a`.
    Of two dtypes that do not meet, torch's functions each speak in words of their own, so that only the dtypes count.
    """
    message = error_text(error)
    if "dtype" in message or "scalar type" in message:
        return f"{type(error).__name__}: dtypes {' '.join(sorted(set(DTYPE.findall(message.lower()))))}"
    shapes = sorted(shape.replace(" ", "") for shape in SHAPE.findall(message))
    return " ".join([*NUMBER.sub("#", SHAPE.sub("<>", message)).split(), *shapes])


def sentence_about(error: BaseException, implementation: Callable, name: str, reference: Callable) -> str:
    """'it raised ...', with the learner's line, and the arrays that met there; or with how `name` is called."""
    place, frame = _place_in(implementation, error)
    if isinstance(error, TypeError) and not place and name.islower():
        place = f"; it is called as `{name}({', '.join(_parameters(reference))})`"
    return brief(f"it raised {error_text(error)}{place}{_line_of(*frame) if frame else ''}")


def _place_in(implementation: Callable, error: BaseException) -> tuple[str, tuple[FrameType, int] | None]:
    """' (line 3 of your function)', or of a class's method, and that frame and line: the innermost of the learner's."""
    is_class = isinstance(implementation, type)
    functions = vars(implementation) if is_class else {"function": implementation}
    places: dict[CodeType, tuple[str, int]] = {}
    for name, function in functions.items():
        code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
        if isinstance(code, CodeType):
            places |= dict.fromkeys(_with_nested(code), (name, code.co_firstlineno))
    traceback, found = error.__traceback__, ("", None)
    while traceback is not None:
        frame, line = traceback.tb_frame, traceback.tb_lineno
        if frame.f_code in places:
            name, first = places[frame.f_code]
            found = f" (line {line - first + 1} of your {name})", (frame, line)
        traceback = traceback.tb_next
    return found


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of the functions and comprehensions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)


def _line_of(frame: FrameType, line: int) -> str:
    """': `y = x / scales`, where x is (4, 3) float32 and scales is (4,) float32', or "" where the source is unknown."""
    source = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    if not source or len(source) > LINE_LENGTH or "`" in source or not source.isprintable():
        return ""
    variables = dict(frame.f_locals)
    names = dict.fromkeys(re.findall(r"(?<![\w.])[A-Za-z_]\w*", source))
    arrays = [f"{name} is {shape}" for name in names if (shape := _shape_of(variables.get(name)))][:MOST_ARRAYS]
    where = f", where {', '.join(arrays[:-1])}{' and ' * (len(arrays) > 1)}{arrays[-1]}" if arrays else ""
    return f": `{source}`{where}"


def _shape_of(value: Any) -> str:
    """'(4, 3) float32' of an array or tensor itself: objects that only act as one may do anything when asked."""
    if not (type(value) is np.ndarray or (type(value).__module__, type(value).__name__) in TENSORS):
        return ""
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


TENSORS = {("torch", "Tensor"), ("torch.nn.parameter", "Parameter")}


def _parameters(function: Callable) -> list[str]:
    """'x', 'num_bits=8': the parameters as one writes them, without annotations."""
    parameters = inspect.signature(function).parameters.values()
    return [str(parameter.replace(annotation=parameter.empty)) for parameter in parameters]
