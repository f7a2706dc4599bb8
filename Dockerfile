# The images of solo-inference; docs/deployment.md tells how to build and to run them.
#
#   cpu         (default)  ONNX Runtime and our kernels
#   gpu         a V100: TensorRT 10.4.0, onnxruntime-gpu 1.20.2; never built with NVIDIA's libraries, never run on a GPU
#   gpu-modern  Turing and newer: TensorRT 10.16.1.11; as little
#   export      checkpoint to bundle; the only one that holds torch
#
#   tools ─► environment-TARGET: /opt/solo, finished ─┐
#   bare: the base without installers ─► serving ─────┴─► TARGET
#
# For a base that cannot change under you: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM scratch AS sources
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY export export
COPY server server
COPY client client
COPY deploy/image deploy/image

FROM ${BASE} AS tools
COPY deploy/image/locks/tools.txt /locks/
RUN python -m venv /opt/tools \
 && /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /locks/tools.txt \
 && python -m venv --without-pip /opt/solo
ENV INSTALL="/opt/tools/bin/python -m pip --python /opt/solo/bin/python --disable-pip-version-check install --no-cache-dir --no-compile"
WORKDIR /src

FROM tools AS environment-cpu
COPY deploy/image/locks/cpu.txt /locks/
RUN ${INSTALL} --require-hashes -r /locks/cpu.txt
COPY --from=sources /src /src
RUN sh deploy/image/finish.sh serving

# NVIDIA's own package index has the libraries of TensorRT: --build-arg TENSORRT_INDEX=URL
FROM tools AS environment-gpu
ARG TENSORRT_INDEX=
COPY deploy/image/locks/gpu.txt deploy/image/tensorrt.sh /locks/
RUN ${INSTALL} --require-hashes -r /locks/gpu.txt && sh /locks/tensorrt.sh 10.4.0
COPY --from=sources /src /src
COPY --from=environment-cpu /opt/solo/kernels /opt/solo/kernels
RUN /opt/solo/bin/python deploy/image/check_tensorrt.py 10.4. && sh deploy/image/finish.sh serving

FROM tools AS environment-gpu-modern
ARG TENSORRT_INDEX=
COPY deploy/image/locks/gpu-modern.txt deploy/image/tensorrt.sh /locks/
RUN ${INSTALL} --require-hashes -r /locks/gpu-modern.txt && sh /locks/tensorrt.sh 10.16.1.11
COPY --from=sources /src /src
COPY --from=environment-cpu /opt/solo/kernels /opt/solo/kernels
RUN /opt/solo/bin/python deploy/image/check_tensorrt.py 10.16.1. && sh deploy/image/finish.sh serving

# PyPI's torch brings gigabytes of CUDA that nothing uses: --build-arg TORCH_FLAGS="--index-url URL" for PyTorch's CPU builds
FROM tools AS environment-export
ARG TORCH_FLAGS=
COPY deploy/image/locks/export.txt /locks/
RUN ${INSTALL} --require-hashes -r /locks/export.txt && ${INSTALL} ${TORCH_FLAGS} torch==2.13.0
COPY --from=sources /src /src
COPY --from=environment-cpu /opt/solo/kernels /opt/solo/kernels
RUN sh deploy/image/finish.sh export

FROM ${BASE} AS bare
COPY deploy/image/bare.sh /tmp/
RUN sh /tmp/bare.sh && rm /tmp/bare.sh
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="solo-inference" \
      org.opencontainers.image.description="SOLO instance segmentation over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# /cache is the one place that is written to: uploads on their way, kernels for unusual processors, engines
ENV PATH=/opt/solo/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/cache TMPDIR=/cache XDG_CACHE_HOME=/cache SOLO_CACHE=/cache/solo NUMBA_CACHE_DIR=/opt/solo/kernels \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME /cache
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["solo"]

FROM bare AS serving
COPY models/solo_models/demo/person /bundle
ENV SOLO_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-S", "/opt/solo/share/solo/ready.py"]
CMD ["serve"]

FROM serving AS gpu
ENV SOLO_ENGINE=tensorrt NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# the first start builds engines, which takes many minutes
HEALTHCHECK --interval=10s --timeout=3s --start-period=1h CMD ["python", "-S", "/opt/solo/share/solo/ready.py"]
COPY --from=environment-gpu /opt/solo /opt/solo

FROM serving AS gpu-modern
ENV SOLO_ENGINE=tensorrt NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=10s --timeout=3s --start-period=1h CMD ["python", "-S", "/opt/solo/share/solo/ready.py"]
COPY --from=environment-gpu-modern /opt/solo /opt/solo

FROM bare AS export
COPY --from=environment-export /opt/solo /opt/solo
ENTRYPOINT ["solo", "export"]
CMD ["--help"]

FROM serving AS cpu
COPY --from=environment-cpu /opt/solo /opt/solo
