"""Class names of a checkpoint: which of those that its training code noted are used, and what is wrong with the others.

Names are kept as they are. Only COCO's 80, which mmdet 1.x and the official code write with underscores (mmdet,
core/evaluation/class_names.py), get the names that COCO has.
"""

from __future__ import annotations

from collections.abc import Sequence

from solo_models.coco import COCO_CLASSES
from solo_models.facts import printable

SHOWN_NAMES, SHOWN_CHARACTERS = 5, 100


def chosen_names(count: int, noted: Sequence[object]) -> tuple[tuple[str, ...], str | None]:
    """The names of `count` classes, and one sentence on what is wrong with the file's where they are not used.

    noted: everything that the file has in the place of class names; the first that is `count` names is taken. Without
    anything noted, 80 classes get COCO's names. Other classes are called `class 0`, `class 1` and so on.
    """
    lists = [_as_names(value) for value in noted]
    for names in lists:
        if names is not None and len(names) == count:
            return _with_coco_spelling(names), None
    if not noted:
        return (COCO_CLASSES if count == len(COCO_CLASSES) else _numbered(count)), None
    return _numbered(count), _problem(count, noted[0], lists[0])


def equal_names(names: Sequence[str]) -> str | None:
    """One sentence that names the first two classes with the same name; `None` where all names differ."""
    first: dict[str, int] = {}
    for class_id, name in enumerate(names):
        if name in first:
            return f"class names must differ: classes {first[name]} and {class_id} are both called {name!r}"
        first[name] = class_id
    return None


def _as_names(value: object) -> tuple[str, ...] | None:
    """A text is one name: `CLASSES = ("dent")` is a text in Python, the comma of a tuple is missing."""
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
        f"the network has {classes}, and the file has {_found(value, names)} for them: not used; classes are called {called}; "
        "--classes FILE gives them names"
    )


def _found(value: object, names: tuple[str, ...] | None) -> str:
    if names is None:
        is_list = isinstance(value, list | tuple)
        return "names that are no texts" if is_list else f"a {type(value).__name__} instead of a list of names"
    listed = printable(", ".join([*names[:SHOWN_NAMES], *(["..."] if len(names) > SHOWN_NAMES else [])]))
    shown = listed if len(listed) <= SHOWN_CHARACTERS else f"{listed[:SHOWN_CHARACTERS]}..."
    return f"{len(names)} name{'' if len(names) == 1 else 's'} ({shown})"
