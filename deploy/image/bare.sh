# Prepares the base image: removes installers, compiles the standard library, adds a user and a cache folder.
# Runs in stage `bare` of the Dockerfile, as root.
set -eu

# pip, setuptools and wheel, wherever the base has them, and ensurepip, which could install them again
find / -xdev -type d \( -path '*/site-packages/*' -o -path '*/dist-packages/*' -o -path '*/lib/python3*/ensurepip' \
    -o -path '/usr/share/python-wheels' -o -path '/usr/share/python3-*' \) \
    \( -iname 'pip' -o -iname 'pip-*' -o -iname 'setuptools*' -o -iname 'wheel' -o -iname 'wheel-*' -o -name 'pkg_resources*' \
    -o -name '_distutils_hack' -o -name ensurepip -o -name python-wheels \) -prune -exec rm -rf {} +
find / -xdev -name 'distutils-precedence.pth' -exec rm -f {} +
rm -f /usr/local/bin/pip* /usr/bin/pip* /usr/local/bin/wheel /usr/bin/wheel

# the official base has no compiled modules, and a read-only container would compile them at every start
library=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    -x '/(test|tests|idlelib|tkinter|turtledemo|lib2to3|site-packages|dist-packages)/' "$library" || true

useradd --uid 10001 --user-group --no-create-home --home-dir /cache --shell /usr/sbin/nologin solo
mkdir /cache
chown solo:solo /cache
