"""From settings to the models to serve, and to a loaded pipeline: image limits, GPU options, then `Pipeline.open`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from solo_models.demo import demo_bundle

from solo_server.engine_names import GPU_ENGINES
from solo_server.pipeline.image import ImageLimits
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelRepository, model_repository
from solo_server.settings import Settings

if TYPE_CHECKING:
    from solo_server.backends.gpu.options import CudaOptions

LOG = logging.getLogger("solo_server")


def open_pipeline(bundle_path: Path, settings: Settings) -> Pipeline:
    """Load a bundle as the settings say, and log what was loaded; raises what `Pipeline.open` raises."""
    pipeline = Pipeline.open(
        bundle_path,
        threads=settings.threads,
        replicas=settings.replicas,
        slots=settings.slots,
        limits=image_limits(settings),
        engine=settings.engine,
        precision=settings.precision,
        cuda=cuda_options(settings) if settings.engine in GPU_ENGINES else None,
    )
    bundle = pipeline.bundle
    LOG.info("%s %s, %s, %s", bundle.name, bundle.version, bundle.precision, bundle.spec.classes_in_words)
    LOG.info("engine: %s (%s)", pipeline.backend.description, pipeline.engine_reason)
    return pipeline


def open_repository(settings: Settings) -> ModelRepository:
    """The models that the settings name, by default the demo model."""
    bundle = settings.bundle or (None if settings.models else demo_bundle())
    return model_repository(bundle, settings.models, lambda path: open_pipeline(path, settings))


def image_limits(settings: Settings) -> ImageLimits:
    """The limits that decoding applies."""
    return ImageLimits(settings.max_pixels, settings.max_side, settings.draft_decode)


def cuda_options(settings: Settings) -> CudaOptions:
    """The options of an engine on a GPU; 0 in the settings stands for the default of `CudaOptions`."""
    from solo_server.backends.gpu.options import MAX_BATCH, CudaOptions  # a server on a CPU does not need them
    from solo_server.backends.gpu.postprocess.memory import CudaLimits

    return CudaOptions(
        device=settings.gpu,
        max_batch=settings.max_batch or MAX_BATCH,
        shapes=settings.shapes,
        slots=settings.slots or None,
        build=settings.build_engines,
        cache=settings.cache,
        workspace_mib=settings.workspace_mib or None,
        limits=CudaLimits(max_side=settings.max_side),
    )
