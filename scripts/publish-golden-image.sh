#!/usr/bin/env bash
# Makes a bundle of the golden image, checks that it installs, and prints its catalog entry.
#
#   scripts/publish-golden-image.sh DIR [URL] [IMAGE]
#
# DIR is where the bundle goes. URL is the folder that it will be served from; without it (or with "") the entry names the
# file here. IMAGE is debian-bookworm unless told otherwise. The check pulls the image from the bundle into an empty state of
# its own, as a user would, and compares the digests.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/publish.sh
. "$here/publish.sh"
if [ $# -eq 0 ] || [ "$1" = "-h" ] || [ "$1" = "--help" ]; then
  publish image --help
fi
publish image "${3:-debian-bookworm}" "$1" "${2:-}"
