"""A session in the bucket of a simulated account, as an auditor sees it."""

from crew import Crew


class Story(Crew):
    """What a session's events tell, and whether its results are right."""

    def told(self, what):
        """The data of all events of a kind."""
        return [event.data for event in self.events() if event.what == what]

    def gone(self):
        """What was told of workers that are gone, in good order or not."""
        return [event.data for event in self.events() if event.what in ("worker-lost", "worker-stopped")]
