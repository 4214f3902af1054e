#!/usr/bin/env bash
# Makes a bundle of an installed kernel, checks that it installs, and prints its catalog entry.
#
#   scripts/publish-kernel.sh KERNEL DIR [URL]
#
# DIR is where the bundle goes. URL is the folder that it will be served from; without it the entry names the file here.
# The check pulls the kernel from the bundle into an empty state of its own, as a user would, and compares the digests.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/publish.sh
. "$here/publish.sh"
publish kernel "$@"
