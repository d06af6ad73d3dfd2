#!/bin/sh
# Makes what `cargo xtask vm` boots, and says where it is: a Debian kernel, a small initramfs and a root file system with
# systemd as PID 1, all below target/vm. Nothing is installed on the machine but QEMU and the tools that make images,
# and nothing is made again while the files of this folder stay as they are.
#
#   dev/vm/setup.sh TARGET_DIR      prints the directory with vmlinuz, initrd and root.img
#
# A machine that cannot have such a guest is said in one line on standard output, with exit code 77.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$1
mirror=http://deb.debian.org/debian

say() { echo "vm: $*" >&2; }
fail() { say "$*"; exit 1; }
cannot() { echo "$*"; exit 77; }

[ "$(id -u)" = 0 ] || cannot "not root"
[ "$(uname -m)" = x86_64 ] || cannot "the machine is not x86_64"
# shellcheck disable=SC1091 # there on every Debian
suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || cannot "the machine is not Debian"

missing=
for package in qemu-system-x86 debootstrap e2fsprogs kmod busybox-static; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null >&2 || true
    # shellcheck disable=SC2086 # a list of words on purpose
    apt-get install -q -y --no-install-recommends $missing </dev/null >&2 || cannot "cannot install$missing"
fi

# Of the same release as this machine, whose libraries our programs were linked with.
stamp=$(cat "$here"/* /etc/debian_version | sha256sum | cut -c 1-16)
base=$work/vm/base-$stamp
if [ -e "$base/root.img" ]; then
    echo "$base"
    exit 0
fi

apt-get update -q </dev/null >&2 || cannot "no Debian mirror answers"
mkdir -p "$work/vm/debs"
make=$(mktemp -d "$work/vm/make-XXXXXX")
trap 'rm -rf "$make"' EXIT
root=$make/root

say "debootstrap of $suite (a few minutes, once)"
packages=$(grep -v '^#' "$here/packages" | tr '\n' ',' | sed 's/,$//')
debootstrap --variant=minbase --cache-dir="$work/vm/debs" --include="$packages" "$suite" "$root" "$mirror" \
    >"$work/vm/debootstrap.log" 2>&1 || { tail -n 20 "$work/vm/debootstrap.log" >&2; fail "debootstrap failed"; }

say "kernel"
mkdir "$make/deb"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
[ -n "$kernel" ] || fail "no Debian kernel in the package lists"
(cd "$make/deb" && apt-get -o APT::Sandbox::User=root download "$kernel" >&2)
# Unpacked, not installed: neither this machine's /boot nor the guest's needs it.
dpkg-deb -x "$make"/deb/*.deb "$make/kernel"
version=$(ls "$make/kernel/lib/modules")
depmod -b "$make/kernel" "$version"
cp -a "$make/kernel/lib/modules" "$root/lib/"

say "initramfs"
ram=$make/ram
mkdir -p "$ram/bin" "$ram/dev" "$ram/proc" "$ram/sys" "$ram/root" "$ram/modules"
cp /bin/busybox "$ram/bin/busybox"
cp "$here/init" "$ram/init"
chmod 755 "$ram/init"
for module in virtio_pci virtio_blk virtio_console; do
    modprobe -d "$make/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' >"$make/modules"
while read -r module; do
    cp "$module" "$ram/modules/"
    basename "$module" >>"$ram/modules/order"
done <"$make/modules"
(cd "$ram" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$make/initrd"

say "root file system"
install -m 755 "$here/start" "$root/usr/local/sbin/berth-vm"
install -m 644 "$here/berth-vm.service" "$root/etc/systemd/system/berth-vm.service"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/berth"
ln -sf ../berth-vm.service "$root/etc/systemd/system/multi-user.target.wants/berth-vm.service"
# What would start by itself and is not under test.
for unit in containerd docker-registry getty.target console-getty systemd-timesyncd systemd-networkd systemd-resolved \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap fstrim.timer dpkg-db-backup.timer \
    systemd-journal-flush systemd-update-utmp systemd-random-seed; do
    case $unit in *.*) ;; *) unit=$unit.service ;; esac
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
echo berth-vm >"$root/etc/hostname"
echo '127.0.0.1 localhost berth-vm' >"$root/etc/hosts"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/locale
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$make/root.img" 6G >&2

mkdir -p "$base"
cp "$make/kernel/boot/vmlinuz-$version" "$base/vmlinuz"
mv "$make/initrd" "$base/initrd"
# Last: it is what says that the rest is there.
mv "$make/root.img" "$base/root.img"
for old in "$work"/vm/base-*; do
    [ "$old" = "$base" ] || rm -rf "$old"
done
echo "$base"
