#!/bin/sh
# Puts the pieces beside this script together and installs what is in them, without a network.
#
#   sh assemble.sh [FOLDER]      FOLDER must not exist [tritonflare-gpu-check beside this script]
#
# Needs coreutils and the Python that MANIFEST names, with venv; PYTHON=… names another program for it.
set -eu
fail() { echo "assemble.sh: $*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/tritonflare-gpu-check}
cd "$here"
[ -r MANIFEST ] || fail "MANIFEST is missing; copy it beside this script."
[ ! -e "$target" ] || fail "$target exists; remove it, or name another folder."

fact() { while read -r name value _; do [ "$name" != "$1" ] || echo "$value"; done <MANIFEST; }
# Name and sum of every piece or file, as sha256sum reads them; prefixed with a folder.
sums() { while read -r kind _ sum name; do [ "$kind" != "$1" ] || echo "$sum  $2$name"; done <MANIFEST; }

wanted=$(fact python)
python=${PYTHON:-python$wanted}
"$python" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$wanted')" 2>/dev/null ||
	fail "Python $wanted with venv is needed (Debian: apt-get install python$wanted-venv), or PYTHON=/its/path."

# Of those that are missing, sha256sum says it, too.
sums piece "" | sha256sum --check --quiet - || fail "these pieces are missing or damaged; copy them again."

mkdir -p "$target"
target=$(cd "$target" && pwd)
while read -r kind _ _ name; do [ "$kind" != piece ] || cat "$name"; done <MANIFEST | while read -r kind size _ path <&3; do
	[ "$kind" = file ] || continue
	mkdir -p "$(dirname "$target/$path")"
	head -c "$size" >"$target/$path"
done 3<MANIFEST
sums file "$target/" | sha256sum --check --quiet - || fail "the files are not those that were packed."

mkdir "$target/project"
"$python" -W ignore::DeprecationWarning -m tarfile -e "$target/project.tar" "$target/project"
[ ! -e "$target/wrk/wrk" ] || chmod +x "$target/wrk/wrk" "$target/wrk/wrk.bin"
"$python" -m venv "$target/venv"
export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
install() { "$target/venv/bin/python" -m pip install --quiet --no-compile --no-index --find-links "$target/wheels" "$@"; }
install --require-hashes --requirement "$target/requirements.txt"
install --no-deps --editable "$target/project"

# The programs of the wheels are read from here on: what is left of the wheels is room that nobody needs.
rm -r "$target/wheels" "$target/project.tar"
cat >"$target/gpu-check" <<-'END'
	#!/bin/sh
	# The checks; --help tells the options.
	here=$(cd "$(dirname "$0")" && pwd)
	cd "$here/project"
	PATH=$here/wrk:$PATH exec "$here/venv/bin/python" -m tools.gpu_check "$@"
END
chmod +x "$target/gpu-check"
echo "Done. Now: $target/gpu-check --device cuda --output $here"
