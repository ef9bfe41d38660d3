"""One contender's turn at one group of probes, in a process of its own: ``python -m bench.child SPEC``.

Contenders never share a process: Ray's threads would disturb a fork, Dask's event loop would cost the
others time, and one that crashes or hangs must not end the benchmark.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contenders import open_pool
from bench.groups import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.model import Probe


def main(spec: dict[str, Any]) -> None:
    """Run the probes named in ``spec`` and add their samples to its ``out`` file, one JSON line each."""
    probes = [probe for group in GROUPS.values() for probe in group if probe.key in spec["probes"]]
    with Path(spec["out"]).open("a") as out:
        for workers, pooled in sorted({(probe.workers, probe.pooled) for probe in probes}):
            chosen = [probe for probe in probes if (probe.workers, probe.pooled) == (workers, pooled)]
            for row in _turn(
                chosen, spec["contender"], workers=workers, pooled=pooled, repeat=spec["repeat"]
            ):
                print(json.dumps(row), file=out, flush=True)


def _turn(
    probes: list[Probe], contender: str, *, workers: int, pooled: bool, repeat: int
) -> Iterator[dict[str, Any]]:
    if not pooled:
        for probe in probes:
            yield _measure(probe, contender, 1 if contender in probe.slow else repeat, contender)
        return
    with open_pool(contender, workers=workers) as pool:
        for probe in probes:
            yield _measure(probe, pool, 1 if contender in probe.slow else repeat, contender)


def _measure(probe: Probe, subject: Any, repeat: int, contender: str) -> dict[str, Any]:
    """Samples of every figure of ``probe``, or the error that ended it."""
    samples: dict[str, list[float]] = {figure.key: [] for figure in probe.figures}
    error = ""
    try:
        for _ in range(0 if contender in probe.slow else probe.warmups):
            probe.run(subject)
        for _ in range(repeat):
            gc.collect()
            for key, value in probe.run(subject).items():
                samples[key].append(value)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    return {"samples": samples, "contender": contender, "error": error}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
