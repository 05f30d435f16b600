#!/bin/sh
# Builds the images that the Docker suites need, once, and keeps them under target/lab/.
#
#   tests/lab/images.sh mini      a small root file system with this machine's redis, for `docker import`
#   tests/lab/images.sh trixie    a Debian 13 root with Docker 26.1 and Compose 2.26, to chroot into
#   tests/lab/images.sh debian12  the user space of a small Debian 12 with systemd; debian13 that of Debian 13
#
# Prints the path of what was asked for. Needs root. Safe to run several times at once: a lock makes the second one
# wait, and a half-built image never gets the final name.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
lab=${CARGO_TARGET_DIR:-$root/target}/lab
mkdir -p "$lab"

need() {
    command -v "$1" >/dev/null || { echo "images.sh: $1 is missing: apt-get install $2" >&2; exit 1; }
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

# Programs with the libraries they load: seconds faster to import than a whole distribution.
mini() {
    need redis-server redis-server
    tree=$(mktemp -d)
    trap 'rm -rf "$tree"' EXIT
    mkdir -p "$tree/bin" "$tree/etc" "$tree/tmp" "$tree/data"
    cp -L /bin/sh /bin/sleep "$(command -v redis-server)" "$tree/bin/"
    for program in "$tree"/bin/*; do
        # `libc.so.6 => /lib/…/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`
        ldd "$program" | sed -n 's|.*[[:space:]]\(/[^ ]*\) (0x.*|\1|p'
    done | sort -u | while read -r library; do
        mkdir -p "$tree$(dirname "$library")"
        cp -L "$library" "$tree$library"
    done
    echo 'root:x:0:0:root:/:/bin/sh' >"$tree/etc/passwd"
    tar -C "$tree" -cf "$1" .
}

trixie() {
    need mmdebstrap mmdebstrap
    mmdebstrap --format=directory --variant=apt \
        --include=docker.io,docker-cli,docker-compose,iptables,nftables,ca-certificates,iproute2,procps \
        trixie "$1"
}

# $1: the release, $2: where to
small() {
    need mmdebstrap mmdebstrap
    mmdebstrap --format=directory --variant=minbase --include=systemd,procps,curl "$1" "$2"
}

need flock util-linux
case ${1:-} in
    mini) build mini.tar mini ;;
    trixie) build trixie trixie ;;
    debian12) build debian12 small bookworm ;;
    debian13) build debian13 small trixie ;;
    *)
        echo "usage: images.sh mini|trixie|debian12|debian13" >&2
        exit 2
        ;;
esac
