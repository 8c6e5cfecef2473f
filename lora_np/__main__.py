"""`python -m lora_np`: sets the process up, then hands over to `cli.main`."""

import os
import sys

# Set before NumPy loads. Two BLAS threads on busy cores are slower than one; whoever
# sets the variable keeps their value.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from lora_np.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
