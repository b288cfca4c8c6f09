"""Which device and which number format a model runs in, found without importing torch where there is no GPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from harness import extras

DTYPES = ("float32", "bfloat16", "float16")


@cache
def pick_device(device: str = "auto") -> str:
    """Return `device` itself, or for "auto" "cuda" where there is a usable NVIDIA GPU and "cpu" elsewhere."""
    if device != "auto":
        return device
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return "cpu"
    with extras.needed("train"):
        import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def pick_dtype(dtype: str = "auto", device: str = "auto") -> str:
    """Return `dtype` itself, or for "auto" the format that `device` computes in fastest without harm.

    On CPUs bfloat16 pays with AMX, and with AVX512_BF16 on AMD (measured: 370 against 137 GFLOP/s in float32). Intel
    cores that have AVX512_BF16 and no AMX multiply in bfloat16 at half the speed of float32 (measured: 157 against
    315), and everything older has to convert at each step.
    """
    if dtype != "auto":
        return dtype
    if pick_device(device).startswith("cuda"):
        with extras.needed("train"):
            import torch

        return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float32"
    vendor, flags = _cpu()
    return "bfloat16" if "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD") else "float32"


@cache
def _cpu() -> tuple[str, frozenset[str]]:
    """Vendor and feature flags of the first core as Linux tells them; empty elsewhere."""
    found: dict[str, str] = {}
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                found.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    return found.get("vendor_id", ""), frozenset(found.get("flags", "").split())
