"""labutils beside torch and torchao: `make bench`, or `python -m benchmarks`."""

import logging

for name in ("torchao", "torch.utils._pytree"):  # they warn on import about GPU kernels for other machines
    logging.getLogger(name).setLevel(logging.ERROR)

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # environment variables that set the number
