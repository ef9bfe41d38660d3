"""What a key may look like: the same rule for every store, so that no key works in one and not in another."""

from __future__ import annotations

from starburst.errors import StoreError

__all__ = ["RESERVED", "check_key", "split_prefix"]

RESERVED = ".starburst-tmp"
"""First part of a key that no object may have: a folder keeps unfinished files there."""

_SUSPECT = ("//", ".", "\\")
_MAX_KEY_BYTES = 1024
_MAX_PART_BYTES = 255


def check_key(key: str) -> str:
    """Refuse a key that would leave the store's folder or that some store could not keep.

    Args:
        key: Parts separated by ``/``.

    Returns:
        The key itself.

    Raises:
        StoreError: It has an empty, ``.`` or ``..`` part, a control character, or is too long.
    """
    # A quick way out for what nearly all keys are: this runs for every request.
    if key.isascii() and key.isprintable() and 0 < len(key) < 128 and not any(bad in key for bad in _SUSPECT):
        if key[0] != "/" and key[-1] != "/":
            return key
        raise _refused(key, "it begins or ends with a slash")
    parts = key.split("/")
    for part in parts:
        if part in {"", ".", ".."}:
            raise _refused(key, f"it has the part {part!r}")
        if "\\" in part:
            raise _refused(key, "it has a backslash, which some servers take for a slash")
        if any(ch < " " or "\x7f" <= ch < "\xa0" for ch in part):
            raise _refused(key, "it has a control character")
        try:
            too_long = len(part.encode()) > _MAX_PART_BYTES
        except UnicodeEncodeError:
            raise _refused(key, "it is not valid Unicode") from None
        if too_long:
            raise _refused(key, f"it has a part longer than {_MAX_PART_BYTES} bytes")
    if len(key.encode()) > _MAX_KEY_BYTES:
        raise _refused(key, f"it is longer than {_MAX_KEY_BYTES} bytes")
    if parts[0] == RESERVED:
        raise _refused(key, f"{RESERVED} is the store's own")
    return key


def split_prefix(prefix: str) -> tuple[str, str]:
    """A listing's prefix as (folder without its last slash, beginning of a name in it).

    Raises:
        StoreError: The folder is not a possible key.
    """
    folder, _, start = prefix.rpartition("/")
    if folder or prefix.startswith("/"):
        check_key(folder)
    return folder, start


def _refused(key: str, why: str) -> StoreError:
    return StoreError(f"{key!r} cannot be an object's key: {why}")
