"""Unusable values that a quantizer may return, and the sentence that the learner reads about each."""

import numpy as np
import torch


class Unreadable:
    def __array__(self, *args, **kwargs):
        raise ValueError("no array here")


class Unread:
    def __array__(self, *args, **kwargs):
        while True:
            pass


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __repr__


class Talkative:
    def __repr__(self):
        return "x" * 10_000_000


class Long(tuple):
    def __len__(self):
        while True:
            pass


class Sequence:
    def __len__(self):
        return 2**62

    def __getitem__(self, index):
        return 1


class Liar(np.ndarray):
    shape = property(lambda self: (4,))
    dtype = property(lambda self: np.dtype("int8"))
    __eq__ = __ne__ = lambda self, other: True
    __hash__ = None


ENDLESS_LIST = []
ENDLESS_LIST.append(ENDLESS_LIST)
HUGE = np.broadcast_to(np.int8(1), (100_000, 100_000))  # 10 GB when copied, one byte in memory

ANSWERS = {
    "NaN": (float("nan"), "it returned the float nan; expected 2 values"),
    "a bool": (True, "it returned the bool True; expected 2 values"),
    "a complex number": (1j, "it returned a complex; expected 2 values"),
    "a string": ("q, scale", "it returned the str 'q, scale'; expected 2 values"),
    "bytes": (b"q", "it returned a bytes; expected 2 values"),
    "a dict": ({"q": 1, "scale": 2}, "it returned a dict; expected 2 values"),
    "an iterator": (iter([1, 2]), "it returned a list_iterator; expected 2 values"),
    "a lazy map": (map(abs, [1, 2]), "it returned a map; expected 2 values"),
    "a class": (dict, "it returned the class dict; expected 2 values"),
    "a function": (len, "it returned a builtin_function_or_method; expected 2 values"),
    "a module": (np, "it returned a module; expected 2 values"),
    "an int without end": (10**5000, "it returned an int of 16610 bits; expected 2 values"),
    "no repr": (Unprintable(), "it returned a Unprintable; expected 2 values"),
    "a repr of megabytes": (Talkative(), "it returned a Talkative; expected 2 values"),
    "nothing": ((), "it returned 0 values; expected 2 values"),
    "a million values": ((1,) * 1_000_000, "it returned 1000000 values; expected 2 values"),
    "a length without end": (Long((1, 2)), "what it returned cannot be read: no answer within 0.2 seconds"),
    "a list in itself": ((ENDLESS_LIST, 1.0), "q should be an array, but it is a list"),
    "10 GB": ((HUGE, 1.0), "q should have the shape of x, (4,), but has (100000, 100000)"),
    "10 GB of scales": ((np.ones(4, np.int8), HUGE), "scale should be one number, but it is an array of shape (100000"),
    "a dtype for codes": ((np.int8, 1.0), "q should be an array, but it is the class int8"),
    "objects": ((np.array([None] * 4), 1.0), "q should hold numbers, but its dtype is object"),
    "dates": ((np.zeros(4, "M8[D]"), 1.0), "q should hold numbers, but its dtype is datetime64[D]"),
    "complex codes": ((np.zeros(4, complex), 1.0), "q should hold numbers, but its dtype is complex128"),
    "records": ((np.zeros(4, "i1, f4"), 1.0), "q should hold numbers, but its dtype is [('f0'"),
    "a recarray": ((np.zeros(4, "i1, f4").view(np.recarray), 1.0), "q should hold numbers, but its dtype is ("),
    "texts": ((np.array(["1"] * 4), 1.0), "q should hold numbers, but its dtype is <U1"),
    "no axes": ((np.array(3, np.int8), 1.0), "q should have the shape of x, (4,), but has ()"),
    "a matrix": ((np.matrix([1, 2, 3, 4]), 1.0), "q should have the shape of x, (4,), but has (1, 4)"),
    "a masked array": ((np.ma.masked_all(3, np.int8), 1.0), "q should have the shape of x, (4,), but has (3,)"),
    "a lying subclass": ((np.zeros(9).view(Liar), 1.0), "q should have the shape of x, (4,), but has (9,)"),
    "what is no array": ((Unreadable(), 1.0), "q is a Unreadable, of which NumPy cannot make an array: ValueError: no"),
    "what hangs when read": ((Unread(), 1.0), "what it returned cannot be read: no answer within 0.2 seconds"),
    "a sequence without end": ((Sequence(), 1.0), "q "),
    "a set": (({1, 2}, 1.0), "q should be an array, but it is a set"),
    "a scale of None": ((np.ones(4, np.int8), None), "scale should be a number, but it is None"),
    "a tensor on meta": ((torch.zeros(4, device="meta"), 1.0), "q is an array of shape (4,), of which NumPy cannot"),
    "a sparse tensor": ((torch.ones(4).to_sparse(), 1.0), "q is an array of shape (4,), of which NumPy cannot"),
    "a bfloat16 tensor": ((torch.ones(4, dtype=torch.bfloat16), 1.0), "q is an array of shape (4,), of which NumPy"),
    "a tensor with a gradient": ((torch.ones(4, requires_grad=True), 1.0), "its dtype is float32"),
}  # fmt: skip
