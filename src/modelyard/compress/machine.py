"""The kind of machine that measurements hold for, so that they can be kept and found again."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelyard.core.digest import digest_json, short

_TELLING = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "fma", "asimd",
            "asimddp", "i8mm", "sve", "bf16")  # fmt: skip
"""The instruction sets that decide which kernels an engine takes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine: two of the same kind have the same fingerprint, whatever they are called."""

    processor: str
    instructions: tuple[str, ...]
    cores: int
    system: str

    @property
    def fingerprint(self) -> str:
        """12 hex digits."""
        return short(digest_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        return {
            "processor": self.processor,
            "instructions": list(self.instructions),
            "cores": self.cores,
            "system": self.system,
        }

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {' '.join(self.instructions) or 'no vector units known'}"
        )


@cache
def this_machine() -> Machine:
    """The machine that this process runs on; `cores` are those that it may use."""
    facts = _cpuinfo()
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = facts.get("model name") or platform.processor() or platform.machine()
    # Cloud machines hide the name; family and model then tell the kind.
    kind = " ".join(facts[key] for key in ("cpu family", "model", "stepping") if key in facts)
    processor = f"{name} ({kind})" if kind else name
    telling = tuple(item for item in _TELLING if item in flags)
    return Machine(processor, telling, cores, f"{platform.system()} {platform.machine()}")


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
