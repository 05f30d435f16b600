#!/bin/sh
# Builds a bootable Debian for the VM suite, once, and keeps it under target/lab/.
#
#   tests/lab/vm-image.sh bookworm    Debian 12
#   tests/lab/vm-image.sh trixie      Debian 13, whose systemd does not read /etc/sysctl.conf
#
# Prints the folder that holds disk.qcow2, vmlinuz, initrd.img and the ssh key `key`. Its name carries a hash of this
# script, so that a changed script builds anew. Needs root. Safe to run several times at once: a lock makes the second
# one wait, and a half-built image never gets the final name.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
lab=${CARGO_TARGET_DIR:-$root/target}/lab

# What a plain server has, and no more: every package is unpacked once and booted under emulation many times.
# libpam-systemd: a login gets a session scope of its own, as on a real server.
packages=systemd,systemd-sysv,udev,dbus,libpam-systemd,openssh-server,linux-image-cloud-amd64,initramfs-tools
packages=$packages,zstd,iproute2,procps,kmod,nftables,tuned

need() {
    command -v "$1" >/dev/null || { echo "vm-image.sh: $1 is missing: apt-get install $2" >&2; exit 1; }
}

# make SUITE FOLDER
make() {
    suite=$1
    out=$2
    tree=$out/root
    mkdir -p "$out"
    # Debian's chroots must be passable for `_apt` and sshd.
    chmod 0755 "$out"
    mmdebstrap --format=directory --variant=minbase --include="$packages" \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$suite" "$tree"

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
    printf '[Match]\nName=e*\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' \
        >"$tree/etc/systemd/network/10-lab.network"
    # Otherwise the first boot applies all presets again.
    systemd-machine-id-setup --root="$tree"
    mkdir -p "$tree/var/log/journal"

    chroot "$tree" systemctl enable systemd-networkd ssh serial-getty@ttyS0
    # A suite that wants tuned starts it. The others would only be disturbed.
    chroot "$tree" systemctl disable tuned
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
    qemu-img convert -O qcow2 "$out/disk.raw" "$out/disk.qcow2"
    rm -rf "$tree" "$out/disk.raw"
}

case ${1:-} in
    bookworm | trixie) ;;
    *)
        echo "usage: vm-image.sh bookworm|trixie" >&2
        exit 2
        ;;
esac
need flock util-linux
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need qemu-img qemu-utils
need ssh-keygen openssh-client
need systemd-machine-id-setup systemd

mkdir -p "$lab"
name=vm-$1-$(sha256sum "$0" | cut -c 1-12)
exec 9>"$lab/vm-$1.lock"
flock 9
if [ ! -e "$lab/$name" ]; then
    # Older ones are of no use any more, and large.
    rm -rf "$lab/vm-$1"-*
    (make "$1" "$lab/$name.tmp") >"$lab/vm-$1.log" 2>&1 || { tail -n 20 "$lab/vm-$1.log" >&2; exit 1; }
    mv "$lab/$name.tmp" "$lab/$name"
fi
echo "$lab/$name"
