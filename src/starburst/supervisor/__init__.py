"""The one loop that keeps a session's workers alive, right in number and within their limits."""

from starburst.supervisor.leader import Identity
from starburst.supervisor.loop import Report, Supervisor
from starburst.supervisor.start import ensure_supervisor

__all__ = ["Identity", "Report", "Supervisor", "ensure_supervisor"]
