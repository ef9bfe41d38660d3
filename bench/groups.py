"""All probes, by group."""

from __future__ import annotations

from bench import arrays, environment, latency, scale, startup, tasks

GROUPS = {
    "tasks": tasks.PROBES,
    "latency": latency.PROBES,
    "arrays": arrays.PROBES,
    "scale": scale.PROBES,
    "startup": startup.PROBES,
    "environment": environment.PROBES,
}
