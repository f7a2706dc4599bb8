# The CPU image: the demo model on port 8000, or a bundle mounted at /bundle with SOLO_BUNDLE=/bundle.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY models models
COPY export export
COPY server server
COPY client client
RUN python -m venv /opt/solo \
 && /opt/solo/bin/python -m pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[server,client]' \
 && /opt/solo/bin/python -m pip uninstall -y -q pip setuptools
RUN NUMBA_CACHE_DIR=/opt/solo/kernels /opt/solo/bin/solo warm

FROM ${BASE}
LABEL org.opencontainers.image.title="solo-inference" \
      org.opencontainers.image.description="SOLO instance segmentation over HTTP, ONNX Runtime on the CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/solo /opt/solo
ENV PATH=/opt/solo/bin:$PATH NUMBA_CACHE_DIR=/opt/solo/kernels PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SOLO_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('SOLO_PORT', '8000') + '/readyz')"]
ENTRYPOINT ["solo"]
CMD ["serve"]
