"""One BLAS thread, and Hypothesis derandomised where CI is set."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lora_np",
    deadline=None,  # speed is measured in benchmarks, never in tests
    derandomize=bool(os.environ.get("CI")),
    max_examples=int(os.environ.get("LORA_NP_EXAMPLES", "12")),
    suppress_health_check=list(HealthCheck),
    database=None,
)
settings.load_profile("lora_np")
