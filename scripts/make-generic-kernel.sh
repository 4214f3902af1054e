#!/usr/bin/env bash
# Builds the small kernel: all that a guest needs built in, no modules, for the fastest boot.
#
#   scripts/make-generic-kernel.sh [--package linux-source-6.1] [--jobs N] [--output DIR]
#
# The sources are the distribution's own package, whose signature apt checks; the configuration is
# scripts/generic-kernel.config on top of "make allnoconfig". Takes 10 to 20 minutes on two cores. The result, in
# build/manual/kernel-generic unless told otherwise, is for:
#
#   banger kernel import generic build/manual/kernel-generic
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
package=linux-source-6.1
jobs=$(nproc)
output=$here/../build/manual/kernel-generic

fail() {
  printf 'make-generic-kernel: %s\n' "$1" >&2
  exit "${2:-1}"
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --package) package=${2:?--package takes a name} && shift 2 ;;
    --jobs) jobs=${2:?--jobs takes a number} && shift 2 ;;
    --output) output=${2:?--output takes a folder} && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown argument: $1 (see --help)" 2 ;;
  esac
done

# What stands there goes at the end: nothing but the result of an earlier run may.
if [ -e "$output" ]; then
  others=$(find "$output" -mindepth 1 -maxdepth 1 ! -name vmlinux ! -name bzImage ! -name config ! -name lib -print -quit)
  if [ ! -d "$output" ] || [ -L "$output" ] || [ -n "$others" ]; then
    fail "$output would be replaced, and is no kernel that this script has made: name a new folder" 2
  fi
fi

missing=()
for tool in apt-get:apt dpkg-deb:dpkg gcc:gcc make:make flex:flex bison:bison bc:bc xz:xz-utils strip:binutils; do
  command -v "${tool%%:*}" > /dev/null || missing+=("${tool##*:}")
done
[ -e /usr/include/libelf.h ] || missing+=(libelf-dev)
[ ${#missing[@]} -eq 0 ] || fail "these are missing: sudo apt-get install -y ${missing[*]}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf 'fetching %s\n' "$package" >&2
# Downloads, after checking that the archive's signed index names exactly this file.
(cd "$work" && apt-get -o APT::Sandbox::User=root download -q "$package" > /dev/null) ||
  fail "$package could not be had: see the names with \"apt-cache search linux-source\", and run apt-get update where there is none"
dpkg-deb -x "$work/$package"_*.deb "$work/package"
mkdir "$work/source"
tar -xf "$work/package/usr/src/$package.tar.xz" -C "$work/source" --strip-components=1
rm -r "$work/package"

cd "$work/source"
# The same sources and tools give the same kernel.
export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=banger KBUILD_BUILD_HOST=banger
config=$here/generic-kernel.config
make -s KCONFIG_ALLCONFIG="$config" allnoconfig > /dev/null

# An option that lacks what it depends on is dropped without a word.
wrong=0
while IFS= read -r line; do
  option=${line%%=*}
  case $line in
    "" | "#"*) ;;
    *=n) if grep -q "^$option=" .config; then printf 'not off: %s\n' "$option" >&2 && wrong=1; fi ;;
    *) grep -qxF "$line" .config || { printf 'not taken: %s\n' "$line" >&2 && wrong=1; } ;;
  esac
done < "$config"
[ "$wrong" -eq 0 ] || fail "$package has no such options: correct scripts/generic-kernel.config"

printf 'building with %s jobs\n' "$jobs" >&2
nice make -s -j "$jobs" LOCALVERSION=-banger vmlinux bzImage
release=$(make -s LOCALVERSION=-banger kernelrelease)

staged=$work/result
modules=$staged/lib/modules/$release
mkdir -p "$modules"
strip -o "$staged/vmlinux" vmlinux
cp arch/x86/boot/bzImage "$staged/bzImage"
cp .config "$staged/config"
# For modprobe, to which "built in" is as good as loaded.
cp modules.builtin modules.builtin.modinfo "$modules/"
: > "$modules/modules.order"

mkdir -p "$(dirname "$output")"
rm -rf "$output"
mv "$staged" "$output"
printf '%s\n' "$output"
printf 'next: banger kernel import generic %s\n' "$output" >&2
