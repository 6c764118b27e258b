"""labutils beside torch and torchao: `make bench`, or `python -m benchmarks`."""

import logging

for name in ("torchao", "torch.utils._pytree"):  # on import they warn of GPU kernels that do not fit this machine
    logging.getLogger(name).setLevel(logging.ERROR)

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # how many, for whoever reads the environment
