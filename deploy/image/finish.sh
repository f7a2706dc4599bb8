# Turns the installed environment /opt/solo into what an image holds: pruned, compiled, with kernels and a bill of materials.
# Runs in the environment stages of the Dockerfile. $1: `serving`, or `export`.
set -eu
python=/opt/solo/bin/python
packages=$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# the package itself; what it needs is there by a lock file already
PATH=/opt/tools/bin:$PATH /opt/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheels .
$INSTALL --no-deps /tmp/wheels/*.whl

# before files are taken away, since it asks the packages themselves; Debian's are the base's
/opt/tools/bin/cyclonedx-py environment --output-format JSON --output-reproducible --pyproject pyproject.toml \
    --output-file /tmp/python.cdx.json $python
mkdir -p /opt/solo/share/doc/solo /opt/solo/share/solo
cp deploy/image/ready.py /opt/solo/share/solo/
/opt/tools/bin/python deploy/image/bill.py /tmp/python.cdx.json > /opt/solo/share/doc/solo/sbom.cdx.json
cp LICENSE /opt/solo/share/doc/solo/

/opt/tools/bin/python deploy/image/prune.py "$packages"
if [ "$1" = serving ]; then # `demo_bundle()` is what lies at /bundle: the demo model, unless something is mounted there
    rm -r "$packages/solo_models/demo/person"
    ln -s /bundle "$packages/solo_models/demo/person"
fi

# Layers keep whole seconds of a file's time, while numba and Python compare more: kernels compiled from sources of 12:00:00.5
# would be compiled again at every start of an image whose sources say 12:00:00. (A layer holds every file that a step only looks at
# to write, hence no others here, and below only rights that are wrong.)
find "$packages"/solo_* -exec touch --no-dereference --date=2000-01-01T00:00:00Z {} +
# some packages hold sources that only newer Pythons can compile, and import them only there
$python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages" || true
NUMBA_CACHE_DIR=/opt/solo/kernels /opt/solo/bin/solo warm
find /opt/solo ! -type l \( ! -perm -a=r -o -perm -u=x ! -perm -a=x -o -perm /go=w \) -exec chmod a+rX,go-w {} +
