#!/bin/sh
# Builds the images that the Docker suites need, once, and keeps them under target/lab/.
#
#   tests/lab/images.sh mini      a root file system with redis, for `docker import`
#   tests/lab/images.sh trixie    a Debian 13 root with Docker 26.1 and Compose 2.26, to chroot into
#
# Prints the path of what was asked for. Needs root and mmdebstrap. Safe to run several times at once: a lock makes
# the second one wait, and a half-built image never gets the final name.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
lab=${PREFLIGHT_LAB_DIR:-$root/target/lab}
mkdir -p "$lab"

need() {
    command -v "$1" >/dev/null || { echo "images.sh: $1 is missing: apt-get install $1" >&2; exit 1; }
}

# build NAME COMMAND…: runs the command with the temporary name as its last argument, unless NAME is there.
build() {
    name=$1
    shift
    exec 9>"$lab/$name.lock"
    flock 9
    if [ ! -e "$lab/$name" ]; then
        rm -rf "$lab/$name.tmp"
        "$@" "$lab/$name.tmp" >"$lab/$name.log" 2>&1 || { tail -n 20 "$lab/$name.log" >&2; exit 1; }
        mv "$lab/$name.tmp" "$lab/$name"
    fi
    exec 9>&-
    echo "$lab/$name"
}

# The format of the target cannot be told from the temporary name.
mini() {
    mmdebstrap --format=tar --variant=minbase --include=redis-server,iproute2,procps bookworm "$1"
}

trixie() {
    mmdebstrap --format=directory --variant=apt \
        --include=docker.io,docker-cli,docker-compose,iptables,nftables,ca-certificates,iproute2,procps \
        trixie "$1"
}

need mmdebstrap
need flock
case ${1:-} in
    mini) build mini.tar mini ;;
    trixie) build trixie trixie ;;
    *)
        echo "usage: images.sh mini|trixie" >&2
        exit 2
        ;;
esac
