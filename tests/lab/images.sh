#!/bin/sh
# Builds the images that the Docker suites need, once, and keeps them under target/lab/.
#
#   tests/lab/images.sh mini      a small root file system with this machine's redis, for `docker import`
#   tests/lab/images.sh trixie    a Debian 13 root with Docker 26.1 and Compose 2.26, for a real engine
#   tests/lab/images.sh nspawn    a Debian 12 that boots, with a message bus
#   tests/lab/images.sh debian12  the user space of a small Debian 12 with systemd; debian13 that of Debian 13
#
# Prints the path of what was asked for; its name carries a hash of this script, so that a changed script builds anew. No
# root has procps: building it would load its settings into the machine's kernel. Needs root. Safe to run several times at once: a lock makes the second one
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
    kind=$1
    shift
    name=$kind-$(sha256sum "$0" | cut -c 1-12)
    exec 9>"$lab/$kind.lock"
    flock 9
    if [ ! -e "$lab/$name" ]; then
        # Older ones are of no use any more, and large.
        rm -rf "${lab:?}/$kind" "${lab:?}/$kind"-*
        "$@" "$lab/$name.tmp" >"$lab/$kind.log" 2>&1 || { tail -n 20 "$lab/$kind.log" >&2; exit 1; }
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
        --include=docker.io,docker-cli,docker-compose,iptables,nftables,ca-certificates,iproute2,mount \
        trixie "$1"
}

booted() {
    need mmdebstrap mmdebstrap
    mmdebstrap --format=directory --variant=essential --include=systemd,systemd-sysv,dbus bookworm "$1"
}

# $1: the release, $2: where to
small() {
    need mmdebstrap mmdebstrap
    mmdebstrap --format=directory --variant=minbase --include=systemd,mount,curl "$1" "$2"
}

need flock util-linux
case ${1:-} in
    mini) build mini mini ;;
    trixie) build trixie trixie ;;
    debian12) build debian12 small bookworm ;;
    debian13) build debian13 small trixie ;;
    nspawn) build nspawn booted ;;
    *)
        echo "usage: images.sh mini|trixie|nspawn|debian12|debian13" >&2
        exit 2
        ;;
esac
