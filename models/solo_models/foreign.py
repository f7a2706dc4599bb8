"""Names of files and folders that file servers, file systems and desktops create: they are never models."""

from __future__ import annotations

PREFIXES = (".", "@", "#", "$", "~")
"""Hidden files; `@eaDir`, `@Recycle` (Synology, QNAP); `#recycle`, `#snapshot`; `$RECYCLE.BIN`; `~snapshot` (NetApp)."""
NAMES = frozenset(
    {
        "__macosx",
        "desktop.ini",
        "lost+found",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
        "thumbs.db",
    }
)


def is_foreign(name: str) -> bool:
    """Whether a file or folder of that name is not a model, whatever it contains."""
    return name.startswith(PREFIXES) or name.lower() in NAMES
