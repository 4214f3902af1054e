#!/bin/sh
# Makes the root file system of a recipe. Runs as root of its own mount, process and network world (src/host/namespace.ts),
# without a network: all packages are there, downloaded and checked before.
#
#   build-rootfs.sh WORK RECIPE LISTS SUITE
#
#   WORK    staging folder with: packages (one per line, to install), archives (paths of .deb files), dpkg-options,
#           build.sources (apt sources of the build), image.sources (those the image keeps), image.apt.conf (may be empty),
#           uuid, extra (files to be copied into the root, may be missing). Gets: rootfs.ext4 and installed (name and version per line)
#   RECIPE  folder of the recipe; its customize.sh, if any, is run with the root folder and the recipe's folder
#   LISTS   apt's package lists, already verified
#   SUITE   code name of the release
#
# Lines `banger: …` on stderr tell the stage.
set -eu

# Also called by mmdebstrap, before it asks apt for anything: hands over lists and packages.
if [ "$1" = "--setup" ]; then
  work=$2 lists=$3 root=$4
  mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists"
  cp "$lists"/*_* "$root/var/lib/apt/lists/"
  # A link costs nothing; it needs both on one file system.
  xargs -d '\n' -a "$work/archives" cp -l -t "$root/var/cache/apt/archives" 2>/dev/null ||
    xargs -d '\n' -a "$work/archives" cp -f -t "$root/var/cache/apt/archives"
  exit 0
fi

# What every image has in common, whatever its recipe.
if [ "$1" = "--finish" ]; then
  work=$2 recipe=$3 root=$4
  # Programs from elsewhere (src/daemon/images/npm-packages.ts), whose digests have been checked.
  [ ! -d "$work/extra" ] || (cd "$work/extra" && find . -type f -exec install -D -m 0755 '{}' "$root/{}" ';')
  [ ! -e "$recipe/customize.sh" ] || sh "$recipe/customize.sh" "$root" "$recipe"
  # The host's, copied for the time of the build; the agent writes the VM's own.
  rm -f "$root/etc/resolv.conf" "$root/etc/hostname"
  : >"$root/etc/resolv.conf"
  echo debian >"$root/etc/hostname"
  printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
  : >"$root/etc/fstab"
  rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
  install -m 0644 "$work/image.sources" "$root/etc/apt/sources.list.d/debian.sources"
  [ ! -s "$work/image.apt.conf" ] || install -m 0644 "$work/image.apt.conf" "$root/etc/apt/apt.conf.d/50mirror"
  dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package} ${Version}\n' >"$work/installed"
  exit 0
fi

work=$1 recipe=$2 lists=$3 suite=$4
self=$0
root=$work/root
rootfs=$work/rootfs.ext4
exec 1>&2
# The first process of a process world gets only signals that it handles.
trap 'exit 143' TERM INT HUP
export LC_ALL=C.UTF-8 TMPDIR="$work" DEBIAN_FRONTEND=noninteractive

quote() {
  printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

echo "banger: install"
mmdebstrap --verbose --mode=root --variant=apt --format=directory --skip=update,download/empty,check/empty \
  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --setup-hook="sh $(quote "$self") --setup $(quote "$work") $(quote "$lists") \"\$1\"" \
  --customize-hook="sh $(quote "$self") --finish $(quote "$work") $(quote "$recipe") \"\$1\"" \
  --dpkgopt="$work/dpkg-options" \
  --aptopt='APT::Install-Recommends "false"' \
  --include="$(tr '\n' ' ' <"$work/packages")" \
  "$suite" "$root" "$work/build.sources"

# The kernel's devtmpfs takes its place. Logs of the build tell nothing about the VM.
find "$root/dev" -mindepth 1 -delete
find "$root/var/log" -type f -delete
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old

echo "banger: file system"
# Room for inodes and tables comes on top of the data; resize2fs takes back what is left over.
kib=$(du -s -k --apparent-size "$root" | cut -f 1)
blocks=$(du -s -k "$root" | cut -f 1)
[ "$blocks" -lt "$kib" ] || kib=$blocks
inodes=$(($(find "$root" -xdev | wc -l) * 21 / 20 + 256))
size=$((kib * 11 / 10 + inodes / 4 + 65536))
uuid=$(cat "$work/uuid")
# Read-only in every VM: no journal, nothing reserved, no room to grow. One time stamp, so that it does not differ by build.
E2FSPROGS_FAKE_TIME=1700000000 mkfs.ext4 -q -F -b 4096 -I 256 -m 0 -N "$inodes" -U "$uuid" -L banger-image \
  -O ^has_journal,^resize_inode -E "hash_seed=$uuid,root_owner=0:0" -d "$root" "$rootfs" "${size}k"
E2FSPROGS_FAKE_TIME=1700000000 resize2fs -M "$rootfs" >/dev/null
rm -rf --one-file-system "$root"
