"""Our pipeline in BentoML: `python -m bentoml serve bentoml_app:Segmenter`; SOLO_PEER_WORKERS processes of SOLO_PEER_THREADS cores.

The image is the body, as `image/jpeg`; BentoML passes it to its methods as a file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from solo_models.demo import demo_bundle
from solo_server.http.wire import result_json
from solo_server.pipeline.pipeline import Pipeline


@bentoml.service(workers=int(os.environ["SOLO_PEER_WORKERS"]), threads=1, traffic={"timeout": 60})
class Segmenter:
    """Bytes to instances in one worker."""

    def __init__(self) -> None:
        self.pipeline = Pipeline.open(demo_bundle(), threads=int(os.environ["SOLO_PEER_THREADS"]))
        self.pipeline.warm_up()

    @bentoml.api(route="/segment")  # type: ignore[untyped-decorator]  # BentoML's own
    def segment(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> dict[str, Any]:
        """The JSON of `POST /segment`."""
        bundle, result = self.pipeline.bundle, self.pipeline.segment(image.read_bytes())
        return result_json(result, bundle.name, bundle.version, bundle.spec.class_names)
