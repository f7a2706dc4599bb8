"""Class names of a checkpoint: which of those that its training code recorded are used, and why the others are not.

Names are not changed, except COCO's 80: mmdet 1.x and the official code write them with underscores (mmdet,
core/evaluation/class_names.py), and they get COCO's spelling.
"""

from __future__ import annotations

from collections.abc import Sequence

from solo_models.coco import COCO_CLASSES
from solo_models.facts import printable

SHOWN_NAMES, SHOWN_CHARACTERS = 5, 100


def chosen_names(count: int, recorded: Sequence[object]) -> tuple[tuple[str, ...], str | None]:
    """The names of `count` classes, and one sentence on why the recorded names are not used, `None` where they are.

    recorded: every value that the file has for class names; the first that is a list of `count` names is used. If nothing is
    recorded, 80 classes get COCO's names. Other classes are called `class 0`, `class 1` and so on.
    """
    lists = [_as_names(value) for value in recorded]
    for names in lists:
        if names is not None and len(names) == count:
            return _with_coco_spelling(names), None
    if not recorded:
        return (COCO_CLASSES if count == len(COCO_CLASSES) else _numbered(count)), None
    return _numbered(count), _problem(count, recorded[0], lists[0])


def equal_names(names: Sequence[str]) -> str | None:
    """An error sentence about the first two classes with the same name; `None` where all names differ."""
    first: dict[str, int] = {}
    for class_id, name in enumerate(names):
        if name in first:
            return f"class names must differ: classes {first[name]} and {class_id} are both called {name!r}"
        first[name] = class_id
    return None


def _as_names(value: object) -> tuple[str, ...] | None:
    """The value as names, `None` where it is none. A string is one name: `CLASSES = ("dent")` lacks the comma of a tuple."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    return None


def _with_coco_spelling(names: tuple[str, ...]) -> tuple[str, ...]:
    return COCO_CLASSES if tuple(name.replace("_", " ") for name in names) == COCO_CLASSES else names


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))


def _problem(count: int, value: object, names: tuple[str, ...] | None) -> str:
    classes = "1 class" if count == 1 else f"{count} classes"
    called = "class 0" if count == 1 else f"class 0 to class {count - 1}"
    return (
        f"the network has {classes}, and the file has {_described(value, names)} for them: not used; classes are called {called}; "
        "--classes FILE gives them names"
    )


def _described(value: object, names: tuple[str, ...] | None) -> str:
    if names is None:
        is_list = isinstance(value, list | tuple)
        return "names that are not strings" if is_list else f"a {type(value).__name__} instead of a list of names"
    listed = printable(", ".join([*names[:SHOWN_NAMES], *(["..."] if len(names) > SHOWN_NAMES else [])]))
    shown = listed if len(listed) <= SHOWN_CHARACTERS else f"{listed[:SHOWN_CHARACTERS]}..."
    return f"{len(names)} name{'' if len(names) == 1 else 's'} ({shown})"
