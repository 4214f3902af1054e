#!/usr/bin/env bash
# Prints where rustup's toolchains are when its cargo would not find them by itself: it looks below HOME, and with another HOME (a test's, a
# CI job's) they are still beside the cargo that is on the PATH. Prints nothing when there is nothing to say.
set -euo pipefail

if [[ -n ${RUSTUP_HOME:-} ]]; then exit 0; fi
if compgen -G "${HOME:-/nonexistent}/.rustup/toolchains/*" >/dev/null; then exit 0; fi
cargo=$(command -v cargo || true)
if [[ -z $cargo ]]; then exit 0; fi
# CARGO_HOME/bin/cargo, and .rustup beside CARGO_HOME.
beside=$(cd -- "$(dirname -- "$cargo")/../.." && pwd)/.rustup
if compgen -G "$beside/toolchains/*" >/dev/null; then printf '%s\n' "$beside"; fi
