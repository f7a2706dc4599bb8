"""Names that file servers, file systems and desktops leave in every folder, and that are never a model's."""

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
    """Whether a file or folder of that name is no model, whatever it holds."""
    return name.startswith(PREFIXES) or name.lower() in NAMES
