"""How a session is named to people, so that what they are told to type works as it stands."""

from __future__ import annotations

from starburst.client.places import places_of
from starburst.config import load_settings
from starburst.errors import StarburstError
from starburst.protocol.keys import session_url

__all__ = ["address"]


def address(root_url: str, session_id: str) -> str:
    """A session's id; its URL where a new process would look for the id in another store.

    Args:
        root_url: The URL of its store.
        session_id: Its id.
    """
    try:
        usual = [place.url for place in places_of(load_settings().options())]
    except StarburstError:
        usual = []
    return session_id if root_url in usual else session_url(root_url, session_id)
