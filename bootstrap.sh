#!/bin/sh
# Make .venv and build the extension in place: what "make" calls first.
#
#   sh bootstrap.sh run | net | ceph | test | lint
#
# The argument says which tools are wanted besides xbbd itself; net is ip(8) on Linux,
# ceph what a cluster for tests is made of, on Debian.  Does nothing but look for changed
# C files when all is there.  Missing system packages are installed when run as root on
# Debian or FreeBSD, else named.
set -eu
cd "$(dirname "$0")"
want=${1:-run}

find_python() {
	for p in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
		if command -v "$p" >/dev/null 2>&1 && "$p" -c \
		    'import sys; sys.exit(sys.version_info < (3, 11))'; then
			echo "$p"
			return 0
		fi
	done
	echo "xbbd needs Python 3.11 or newer; set PYTHON to one" >&2
	return 1
}

# What a bare Debian python3 lacks: venv with pip, and Python.h.  On FreeBSD cffi
# is built here, and finds libffi, which came with Python, by pkg-config.
can_build() {
	[ "$(uname)" != FreeBSD ] || command -v pkg-config >/dev/null 2>&1 ||
	    return 1
	"$1" -c 'import ensurepip, pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' \
	    2>/dev/null && command -v "${CC:-cc}" >/dev/null 2>&1
}

install_system_packages() {
	if [ "$(id -u)" -ne 0 ]; then
		echo "missing: a C compiler, Python's headers or its venv module, or pkg-config." >&2
		echo "Debian: apt-get install gcc libc6-dev python3-dev python3-venv" >&2
		echo "FreeBSD: pkg install python311 pkgconf" >&2
		return 1
	elif command -v apt-get >/dev/null 2>&1; then
		apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
		    gcc libc6-dev python3-dev python3-venv >/dev/null
	elif command -v pkg >/dev/null 2>&1; then
		pkg install -qy python311 pkgconf
	fi
}

if [ "$want" = net ]; then
	want=run
	if [ "$(uname)" = Linux ] && [ "$(id -u)" -eq 0 ] &&
	    ! command -v ip >/dev/null 2>&1 &&
	    command -v apt-get >/dev/null 2>&1; then
		apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
		    iproute2 >/dev/null
	fi
fi

if [ "$want" = ceph ]; then
	want=test
	if [ "$(id -u)" -eq 0 ] && ! command -v ceph-osd >/dev/null 2>&1 &&
	    command -v apt-get >/dev/null 2>&1; then
		apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
		    --no-install-recommends ceph-common ceph-mon ceph-osd \
		    >/dev/null
	fi
fi

python=$(find_python)
if [ ! -x .venv/bin/python ]; then
	if ! can_build "$python"; then
		install_system_packages
		python=$(find_python)
	fi
	echo "making .venv with $("$python" --version)"
	"$python" -m venv .venv
fi

stamp=.venv/installed-$want
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
	echo "installing what xbbd needs into .venv"
	case $want in
	run) extra= ;;
	*) extra="[$want]" ;;
	esac
	pip=".venv/bin/python -m pip --disable-pip-version-check -q"
	$pip install "setuptools>=63" wheel "cffi>=1.15"
	$pip install --no-build-isolation -e ".$extra"
	touch "$stamp"
fi
.venv/bin/python -W ignore setup.py -q build_ext --inplace
