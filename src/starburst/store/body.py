"""Bodies: one buffer or several, handled without joining them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starburst.store.base import Body

__all__ = ["Views", "as_views", "same_bytes", "size_of"]

Views = list[memoryview]
"""A body as flat views of bytes, none of them empty."""


def as_views(body: Body) -> Views:
    """The body's buffers as flat views of bytes, empty ones left out; nothing is copied."""
    buffers = [body] if isinstance(body, bytes | bytearray | memoryview) else body
    views = [memoryview(buffer) for buffer in buffers]
    return [
        view if view.format == "B" and view.ndim == 1 else view.cast("B") for view in views if view.nbytes
    ]


def size_of(views: Views) -> int:
    """Bytes in all of them."""
    return sum(view.nbytes for view in views)


def same_bytes(found: memoryview, views: Views) -> bool:
    """Whether what was found is these buffers, one after the other."""
    if found.nbytes != size_of(views):
        return False
    start = 0
    for view in views:
        if found[start : start + view.nbytes] != view:
            return False
        start += view.nbytes
    return True
