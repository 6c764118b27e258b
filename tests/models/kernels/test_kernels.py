"""The report names the kernels that run, and threads are given back."""

import pytest
import torch

from labutils.models import kernels
from tests.models.kernels.examples import codes


def test_the_report_names_the_kernel_of_each():
    lines = kernels.report().splitlines()
    assert [line.split()[0] for line in lines] == ["int_matmul", "Int8Weights", "Int4Weights"]
    held = kernels.Int8Weights(codes(8, 64, low=-127), torch.ones(8))
    assert held.kernel in lines[1]
    assert "portable" in kernels.report("nowhere")


def test_the_number_of_threads_is_as_it_was_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), kernels.one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
