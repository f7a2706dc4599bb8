# Finishes the environment /opt/solo of a container image: prunes it, compiles modules and kernels, writes the bill of materials.
# Runs in the environment stages of the Dockerfile. $1: `serving` or `export`.
set -eu
python=/opt/solo/bin/python
packages=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# the package itself; its dependencies are installed already, from a lock file
PATH=/opt/tools/bin:$PATH /opt/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheels .
$INSTALL --no-deps /tmp/wheels/*.whl

# before pruning, since it reads the packages' metadata; bill.py adds the base's Debian packages
/opt/tools/bin/cyclonedx-py environment --output-format JSON --output-reproducible --pyproject pyproject.toml \
    --output-file /tmp/python.cdx.json $python
mkdir -p /opt/solo/share/doc/solo /opt/solo/share/solo
cp deploy/image/ready.py /opt/solo/share/solo/
/opt/tools/bin/python deploy/image/bill.py /tmp/python.cdx.json > /opt/solo/share/doc/solo/sbom.cdx.json
cp LICENSE /opt/solo/share/doc/solo/

/opt/tools/bin/python deploy/image/prune.py "$packages"
if [ "$1" = serving ]; then # `demo_bundle()` is /bundle: the demo model, unless something is mounted there
    rm -r "$packages/solo_models/demo/person"
    ln -s /bundle "$packages/solo_models/demo/person"
fi

# Image layers store file times in whole seconds, but numba and Python compare fractions: kernels compiled from a source of
# 12:00:00.5 would be compiled again at every start of a container whose source says 12:00:00. (Every touched file is stored again in
# the layer, so only these are touched, and below only wrong permissions are changed.)
find "$packages"/solo_* -exec touch --no-dereference --date=2000-01-01T00:00:00Z {} +
# `|| true`: some packages have sources that only newer Pythons can compile
$python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages" || true
NUMBA_CACHE_DIR=/opt/solo/kernels /opt/solo/bin/solo warm
find /opt/solo ! -type l \( ! -perm -a=r -o -perm -u=x ! -perm -a=x -o -perm /go=w \) -exec chmod a+rX,go-w {} +
