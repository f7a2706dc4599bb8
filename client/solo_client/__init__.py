"""Client of a SOLO instance segmentation server.

    from solo_client import SoloClient

    with SoloClient("http://localhost:8000") as client:
        for instance in client.segment("photo.jpg").instances:
            print(instance.label, instance.score, instance.box_xywh)

The two clients are imported on first access, so that `solo --help` and local segmentation do not need httpx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solo_results.coco import coco_category_ids
from solo_results.types import CocoMask, CocoResult, Instance, Result, RleMask

from solo_client.errors import (
    AnswerTooLarge,
    BodyTooLarge,
    CallerFault,
    ConnectionLost,
    ControlOff,
    DamagedMask,
    DeadlineExceeded,
    EmptyBody,
    HeadersTooLarge,
    ImageDamaged,
    ImageTooLarge,
    InternalError,
    InvalidArgument,
    InvalidEnvironment,
    InvalidQuery,
    InvalidTensor,
    MalformedRequest,
    MethodNotAllowed,
    ModelNotFound,
    ModelNotLoadable,
    NoAnswer,
    NotAcceptable,
    NotFound,
    NotReady,
    NumpyMissing,
    Overloaded,
    Problem,
    RequestTimeout,
    ServerFault,
    ServerProblem,
    SoloError,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    UnknownCategory,
    Unreachable,
    UnsupportedMediaType,
)
from solo_client.query import Options

if TYPE_CHECKING:
    from solo_client.client import AsyncSoloClient, SoloClient

__all__ = [
    "AnswerTooLarge",
    "AsyncSoloClient",
    "BodyTooLarge",
    "CallerFault",
    "CocoMask",
    "CocoResult",
    "ConnectionLost",
    "ControlOff",
    "DamagedMask",
    "DeadlineExceeded",
    "EmptyBody",
    "HeadersTooLarge",
    "ImageDamaged",
    "ImageTooLarge",
    "Instance",
    "InternalError",
    "InvalidArgument",
    "InvalidEnvironment",
    "InvalidQuery",
    "InvalidTensor",
    "MalformedRequest",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelNotLoadable",
    "NoAnswer",
    "NotAcceptable",
    "NotFound",
    "NotReady",
    "NumpyMissing",
    "Options",
    "Overloaded",
    "Problem",
    "RequestTimeout",
    "Result",
    "RleMask",
    "ServerFault",
    "ServerProblem",
    "SoloClient",
    "SoloError",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownCategory",
    "Unreachable",
    "UnsupportedMediaType",
    "coco_category_ids",
]


def __getattr__(name: str) -> object:
    if name not in ("AsyncSoloClient", "SoloClient"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from solo_client import client

    return getattr(client, name)
