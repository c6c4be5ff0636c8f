#!/bin/sh
# Run a real xenstored, in the foreground, on a machine without Xen.
#
#   run.sh RUNDIR [xenstored options]     e.g. run.sh /tmp/xs -T /tmp/xs/trace
#   run.sh --fetch                        only fetch and build what that needs
#   XENSTORED_RUNDIR=RUNDIR xenstore-ls   (dom0's view; see guest.py for guests)
#
# Needs no privilege, only cc, apt-get and dpkg. The Debian 12 packages are
# unpacked (not installed) below $XENSTORED_CACHE, by default
# ~/.cache/xbbd/xenstored. The daemon is a program of its own that we start;
# none of its code becomes part of ours.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
run=${1:?usage: run.sh RUNDIR [xenstored options] | run.sh --fetch}
shift
cache=${XENSTORED_CACHE:-$HOME/.cache/xbbd/xenstored}
v=4.17

# What is made here gets its name at the end, so an interrupted run, or two of
# them at once, leave nothing that is half done.
if [ ! -x "$cache/usr/lib/xen-$v/bin/xenstored" ]; then
    new=$cache/new.$$
    mkdir -p "$new"
    trap 'rm -rf "$new"' EXIT
    (cd "$new" && apt-get -qq download "xen-utils-$v" "libxenmisc$v" \
        xenstore-utils libxenstore4 libxencall1 libxendevicemodel1 \
        libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxentoolcore1 \
        libxentoollog1)
    for deb in "$new"/*.deb; do dpkg -x "$deb" "$new"; done
    # Fails, and nothing is lost, if another run was first.
    mv -T "$new/usr" "$cache/usr" 2>/dev/null || [ -e "$cache/usr" ]
    rm -rf "$new"
    trap - EXIT
fi
if [ ! "$cache/noxen.so" -nt "$here/noxen.c" ]; then
    "${CC:-cc}" -O2 -Wall -shared -fPIC -o "$cache/noxen.so.$$" "$here/noxen.c"
    mv "$cache/noxen.so.$$" "$cache/noxen.so"
fi
[ "$run" != --fetch ] || exit 0

mkdir -p "$run"
run=$(cd "$run" && pwd)
rm -f "$run"/*.ring "$run"/*.event "$run"/*.shutdown "$run"/*socket
for lib in "$cache"/usr/lib/*-linux-gnu; do :; done
exec env LD_LIBRARY_PATH="$lib" LD_PRELOAD="$cache/noxen.so" NOXEN_DIR="$run" \
    XENSTORED_RUNDIR="$run" XENSTORED_ROOTDIR="$run" \
    "$cache/usr/lib/xen-$v/bin/xenstored" --no-fork "$@"
