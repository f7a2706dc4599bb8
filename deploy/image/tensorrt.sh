# Installs TensorRT $1 into /opt/solo: libraries and bindings, from the index TENSORRT_INDEX, which must be NVIDIA's.
# Runs in the environment stages of `gpu` and `gpu-modern`.
set -eu
$INSTALL --no-deps ${TENSORRT_INDEX:+--index-url "$TENSORRT_INDEX"} "tensorrt-cu12-libs==$1" "tensorrt-cu12-bindings==$1"

# Programs import `tensorrt`, which the package tensorrt-cu12 provides; on PyPI that package calls pip for the other two.
packages=$(/opt/solo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$packages/tensorrt"
printf '%s\n' '"""TensorRT by the name that programs import."""' 'from tensorrt_bindings import *' \
    'from tensorrt_bindings import __version__' > "$packages/tensorrt/__init__.py"
