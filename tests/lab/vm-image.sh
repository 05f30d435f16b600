#!/bin/sh
# Builds what the VM suite boots, once, and keeps it under target/lab/.
#
#   tests/lab/vm-image.sh bookworm    Debian 12
#   tests/lab/vm-image.sh trixie      Debian 13, whose systemd does not read /etc/sysctl.conf
#   tests/lab/vm-image.sh qemu        the emulator
#
# Prints the folder: of an image it holds disk.raw, vmlinuz, initrd.img and the ssh key `key`; of the emulator, a tree of
# Debian's packages that is run where it lies. Its name carries a hash of this script, so that a changed script builds
# anew. Needs root. Safe to run several times at once: a lock makes the second one wait, and a half-built folder never
# gets the final name.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
lab=${CARGO_TARGET_DIR:-$root/target}/lab

# What a plain server has, and no more: every package is unpacked once and booted under emulation many times.
# libpam-systemd: a login gets a session scope of its own, as on a real server.
packages=systemd,systemd-sysv,udev,dbus,libpam-systemd,openssh-server,linux-image-cloud-amd64,initramfs-tools
packages=$packages,zstd,iproute2,procps,kmod,nftables
# Only where a test wants them: none of these is enabled.
packages=$packages,docker.io,iptables,ufw,redis-server

need() {
    command -v "$1" >/dev/null || { echo "vm-image.sh: $1 is missing: apt-get install $2" >&2; exit 1; }
}

# debian SUITE TREE ARGUMENT…
debian() {
    suite=$1
    tree=$2
    shift 2
    mmdebstrap --format=directory --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$@" "$suite" "$tree"
}

# The same emulator everywhere, from Debian 13: that of Debian 12 now and then lets one emulated processor run code that
# another is just patching. As a tree of its own it disturbs no QEMU that the machine has, and needs none.
make_qemu() {
    debian trixie "$1" --variant=extract --include=qemu-system-x86,qemu-utils
    cat >"$1/run" <<'END'
#!/bin/sh
# run PROGRAM ARGUMENT…: a program of this tree, with its own libraries.
here=$(dirname "$0")
name=$1
shift
libraries=$here/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$libraries/qemu"
case $name in
    qemu-system-*) set -- -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" "$@" ;;
esac
exec "$here/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$here/usr/bin/$name" "$@"
END
    chmod 0755 "$1/run"
}

# make_image SUITE FOLDER
make_image() {
    suite=$1
    out=$2
    tree=$out/root
    mkdir -p "$out"
    # Debian's chroots must be passable for `_apt` and sshd.
    chmod 0755 "$out"
    # Of its own package since Debian 13.
    [ "$suite" != trixie ] || packages=$packages,docker-cli
    # The first disk holds only what reaches the root: an emulated processor unpacks slowly.
    # shellcheck disable=SC2016 # `$1` is the tree, for mmdebstrap
    debian "$suite" "$tree" --variant=minbase --include="$packages" \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
        --essential-hook='echo "MODULES=list" >"$1/etc/initramfs-tools/conf.d/lab"' \
        --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/etc/initramfs-tools/modules"'

    ssh-keygen -q -t ed25519 -N '' -C 'preflight lab' -f "$out/key"
    install -d -m 0700 "$tree/root/.ssh"
    install -m 0600 "$out/key.pub" "$tree/root/.ssh/authorized_keys"
    # Logins are what takes the time of the suite.
    mkdir -p "$tree/etc/ssh/sshd_config.d"
    printf 'UseDNS no\nPrintMotd no\nPermitRootLogin prohibit-password\nMaxStartups 50\n' \
        >"$tree/etc/ssh/sshd_config.d/lab.conf"

    echo "preflight-$suite" >"$tree/etc/hostname"
    printf '127.0.0.1 localhost preflight-%s\n::1 localhost\n' "$suite" >"$tree/etc/hosts"
    echo '/dev/vda / ext4 defaults 0 1' >"$tree/etc/fstab"
    mkdir -p "$tree/etc/systemd/network"
    printf '[Match]\nName=eth0\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' \
        >"$tree/etc/systemd/network/10-lab.network"
    # Otherwise the first boot applies all presets again.
    systemd-machine-id-setup --root="$tree"
    mkdir -p "$tree/var/log/journal"

    chroot "$tree" systemctl enable systemd-networkd ssh serial-getty@ttyS0
    with_docker "$tree"
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer systemd-networkd-wait-online.service; do
        chroot "$tree" systemctl mask "$unit"
    done

    cp "$tree"/boot/vmlinuz-* "$out/vmlinuz"
    cp "$tree"/boot/initrd.img-* "$out/initrd.img"
    # /boot/config-* stays: it says what the kernel was built to do with huge pages.
    rm -rf "$tree"/boot/vmlinuz-* "$tree"/boot/initrd.img-* "$tree"/boot/System.map-* \
        "$tree"/var/cache/apt/*.bin "$tree"/var/lib/apt/lists/*
    mke2fs -q -F -t ext4 -d "$tree" "$out/disk.raw" 3G
    rm -rf "$tree"
}

# A test that wants Docker and ufw enables them. The others would only be disturbed.
# /opt/redis.tar becomes a container image by `docker import`, without a registry.
with_docker() {
    chroot "$1" systemctl disable docker.service docker.socket containerd.service ufw.service redis-server.service
    # shellcheck disable=SC2016 # for the shell within
    chroot "$1" sh -c 'cd / && tar --dereference -cf /opt/redis.tar usr/bin/redis-server \
        $(ldd /usr/bin/redis-server | grep -o "/[^ ]*" | cut -c 2-)'
}

case ${1:-} in
    bookworm | trixie | qemu) ;;
    *)
        echo "usage: vm-image.sh bookworm|trixie|qemu" >&2
        exit 2
        ;;
esac
need flock util-linux
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need ssh-keygen openssh-client
need systemd-machine-id-setup systemd

mkdir -p "$lab"
name=vm-$1-$(sha256sum "$0" | cut -c 1-12)
exec 9>"$lab/vm-$1.lock"
flock 9
if [ ! -e "$lab/$name" ]; then
    # Older ones are of no use any more, and large.
    rm -rf "$lab/vm-$1"-*
    case $1 in
        qemu) (make_qemu "$lab/$name.tmp") ;;
        *) (make_image "$1" "$lab/$name.tmp") ;;
    esac >"$lab/vm-$1.log" 2>&1 || { tail -n 20 "$lab/vm-$1.log" >&2; exit 1; }
    mv "$lab/$name.tmp" "$lab/$name"
fi
echo "$lab/$name"
