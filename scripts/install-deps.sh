#!/bin/sh
# Installs the Debian 12 packages that building, testing and the demo need. Does nothing when all
# are there.
set -eu
packages="build-essential pkg-config clang libclang-dev libcryptsetup-dev libdevmapper-dev
  libtss2-dev qemu-system-x86 ovmf swtpm swtpm-tools systemd-boot-efi sbsigntool binutils mmdebstrap
  erofs-utils fakeroot cryptsetup-bin e2fsprogs mtools zstd cpio kmod openssl python3 python3-pip
  python3-venv tpm2-tools ca-certificates xz-utils busybox-static dosfstools fdisk fuse2fs"
missing=""
for p in $packages; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' ||
    missing="$missing $p"
done
if [ -n "$missing" ]; then
  echo "installing:$missing"
  [ "$(id -u)" = 0 ] || sudo=sudo
  ${sudo:-} apt-get update -qq
  ${sudo:-} env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
# After qemu-system-x86, which may replace a qemu-utils of another version.
command -v qemu-img >/dev/null ||
  ${sudo:-} apt-get install -y -qq --no-install-recommends qemu-utils >/dev/null
command -v cargo >/dev/null || {
  echo "no cargo: install Rust 1.95 or later (rustup), then run this again" >&2
  exit 1
}
