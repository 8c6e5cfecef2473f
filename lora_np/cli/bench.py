"""bench: time, memory and page faults of a LoRA step, in units of its products."""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from lora_np.cli.common import natural, table

HELP = "measure a LoRA training step against this machine's matrix-product rate"
EXAMPLE = """examples:
  python -m lora_np bench
  python -m lora_np bench --shape gpt2 --repeat 5
  python -m lora_np bench --growth           (memory over 200 steps)
"""
SHAPES = {  # layers, width, vocabulary, heads, batch, time, r
    "tiny": (4, 128, 256, 4, 32, 64, 4),
    "gpt2": (12, 768, 50257, 12, 4, 256, 8),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    parser.add_argument("--shape", choices=(*SHAPES, "both"), default="both")
    parser.add_argument(
        "--repeat", type=natural, default=10, help="steps measured (10)"
    )
    parser.add_argument("--no-tuning", action="store_true",
                        help="leave the allocator as it is")  # fmt: skip
    parser.add_argument(
        "--growth",
        action="store_true",
        help="resident memory over 200 steps of the tiny shape",
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Measure in a process of its own: one BLAS thread, BLAS's own kernel choice."""
    if not options.inside:
        own = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
        environment = {k: v for k, v in os.environ.items() if k not in own}
        environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
        command = [sys.executable, "-m", "lora_np", *sys.argv[1:], "--inside"]
        return subprocess.run(command, env=environment, check=False).returncode
    if options.repeat < 1:
        raise ValueError("--repeat must be 1 or more")
    from lora_np.training import tune_allocator

    tuned = False if options.no_tuning else tune_allocator()
    print(
        f"NumPy {np.__version__}, one BLAS thread, allocator "
        f"{'tuned' if tuned else 'as it is'}, load {os.getloadavg()[0]:.1f}"
    )
    if options.growth:
        return growth()
    names = list(SHAPES) if options.shape == "both" else [options.shape]
    rows = [
        [
            "shape",
            "step ms min",
            "median",
            "CPU ms",
            "GEMM ms",
            "unit",
            "sgemm GF/s",
            "share",
            "peak MB",
            "faults/step",
        ]
    ]
    rows += [measure(name, max(1, options.repeat)) for name in names]
    print(table(rows, right=range(1, 10)))
    print(
        "GEMM ms: the step's matrix products at the sgemm rate of the same run, "
        "measured between steps.\nunit: step (min) over GEMM ms. share: the rate that "
        "the step's products reach over the sgemm rate."
    )
    return 0


def sgemm_rate(n: int = 1024, repeat: int = 4) -> float:
    """Floating-point operations a second of a float32 product n × n × n, the best try.

    >>> sgemm_rate(64) > 0
    True
    """
    a, b = np.ones((n, n), np.float32), np.ones((n, n), np.float32)
    best = float("inf")
    for _ in range(repeat):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def gemm_flops(shape: str) -> int:
    """Operations in a LoRA step's products: adapters on c_attn, everything else frozen.

    A frozen matrix costs 2P forward and 2P for dx for each row; c_attn of block 0 needs
    no dx, as nothing below it is trained. Attention has two products forward and four
    backward; the head 2P forward and 2P for dh.

    >>> gemm_flops("tiny") > 10 ** 9
    True
    """
    L, D, V, H, B, T, r = SHAPES[shape]
    N = B * T
    frozen = L * 4 * 12 * D * D * N - 2 * 3 * D * D * N + 4 * V * D * N
    adapters = L * 6 * r * (D + 3 * D) * N - 2 * r * D * N
    attention = L * 6 * 2 * B * T * T * D
    return frozen + adapters + attention


def _setup(shape: str) -> tuple:
    from lora_np.models import GPT, GPTConfig
    from lora_np.nn import LoraConfig, attach_lora
    from lora_np.training import AdamW

    L, D, V, H, B, T, r = SHAPES[shape]
    rng = np.random.default_rng(0)
    model = GPT(GPTConfig(V, max(T, 128), D, L, H), rng)
    attach_lora(
        model, LoraConfig(r=r, lora_alpha=2 * r, target_modules=["c_attn"]), rng
    )
    optimizer = AdamW(list(model.trainable().values()), lr=1e-3)
    ids, target = rng.integers(0, V, (2, B, T))
    return model, optimizer, ids, target


def _step(
    model: object, optimizer: object, ids: np.ndarray, target: np.ndarray
) -> None:
    optimizer.zero_grad()  # type: ignore[attr-defined]
    model.loss(ids, target).backward()  # type: ignore[attr-defined]
    optimizer.step()  # type: ignore[attr-defined]


def measure(shape: str, repeat: int) -> list[str]:
    """One row: steps and sgemm runs interleaved."""
    import resource

    things = _setup(shape)
    _step(*things)
    _step(*things)
    wall, cpu, rate = [], [], 0.0
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    spent = 0
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        rate = max(rate, sgemm_rate(repeat=2))
        spent += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        began, used = time.perf_counter(), time.process_time()
        _step(*things)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    faults = (usage.ru_minflt - faults - spent) // repeat
    gemm = gemm_flops(shape) / rate
    peak = usage.ru_maxrss / 1024 * (1 if sys.platform != "darwin" else 1 / 1024)
    return [
        shape, f"{1000 * min(wall):.0f}", f"{1000 * np.median(wall):.0f}",
        f"{1000 * min(cpu):.0f}", f"{1000 * gemm:.0f}", f"{min(wall) / gemm:.2f}",
        f"{rate / 1e9:.0f}", f"{gemm / min(wall):.0%}", f"{peak:.0f}", f"{faults}",
    ]  # fmt: skip


def resident_mb() -> float:
    """Resident memory now, in MB (Linux; elsewhere the peak so far).

    >>> resident_mb() > 0
    True
    """
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def growth(steps: int = 200) -> int:
    """Resident memory every 50 steps; 1 when it grew by more than 2 % after step 50."""
    things = _setup("tiny")
    seen = []
    for i in range(steps):
        _step(*things)
        if (i + 1) % 50 == 0:
            seen.append(resident_mb())
            print(f"step {i + 1}: {seen[-1]:.1f} MB resident")
    grew = seen[-1] / seen[0] - 1
    print(f"growth after step 50: {grew:.2%}")
    return 0 if grew <= 0.02 else 1
