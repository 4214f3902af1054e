#!/usr/bin/env bash
# What publish-kernel.sh and publish-golden-image.sh share. Not a program of its own.

publish_fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit "${2:-1}"
}

# publish kernel|image NAME DIR [URL]
publish() {
  local kind=$1 name=${2:-} folder=${3:-} url=${4:-}
  if [ "$name" = "-h" ] || [ "$name" = "--help" ]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
  fi
  if [ -z "$name" ] || [ -z "$folder" ]; then
    publish_fail "a name and a folder are needed (see --help)" 2
  fi
  # Not local: the clean-up at the end needs it.
  banger=${BANGER:-$(cd "$(dirname "$0")/.." && pwd)/build/bin/banger}
  [ -x "$banger" ] || publish_fail "there is no $banger: run make build"
  # Asked without --json: what is wrong with the name is said to a person.
  "$banger" "$kind" show "$name" > /dev/null
  mkdir -p "$folder"

  local exported digest
  exported=$("$banger" "$kind" export "$name" "$folder" --json)
  digest=$("$banger" "$kind" show "$name" --json | publish_field digest)

  # As a user gets it: an empty state, a catalog of one's own, and a daemon for that alone.
  work=$(mktemp -d)
  trap 'publish_clean' EXIT
  mkdir -m 0700 "$work/run"
  mkdir -p "$work/config/banger"
  publish_env=(HOME="$work" XDG_CONFIG_HOME="$work/config" XDG_STATE_HOME="$work/state" XDG_CACHE_HOME="$work/cache"
    XDG_RUNTIME_DIR="$work/run")
  printf '%s' "$exported" | publish_catalog "$kind" > "$work/catalog.json"
  printf 'catalogs = ["%s"]\n' "$work/catalog.json" > "$work/config/banger/config.toml"
  env "${publish_env[@]}" "$banger" "$kind" pull "$name" > /dev/null
  local found
  found=$(env "${publish_env[@]}" "$banger" "$kind" show "$name" --json | publish_field digest)
  [ "$found" = "$digest" ] || publish_fail "what the bundle holds is not what was packed: $found in place of $digest"

  printf '%s' "$exported" | publish_entry "$url"
}

publish_clean() {
  env "${publish_env[@]}" "$banger" daemon stop > /dev/null 2>&1 || true
  rm -rf "$work"
}

# The interpreter that the build has brought along: no other program for JSON is needed.
publish_node() {
  "$(cd "$(dirname "$0")/.." && pwd)/build/lib/node" -e "
    let text = '';
    process.stdin.on('data', (chunk) => { text += chunk; });
    process.stdin.on('end', () => { const data = JSON.parse(text); $1 });
  " "${@:2}"
}

publish_field() {
  # shellcheck disable=SC2016
  publish_node 'console.log(data[process.argv[1]]);' "$1"
}

publish_catalog() {
  publish_node 'console.log(JSON.stringify({ version: 1, [process.argv[1] + "s"]: [data.entry] }));' "$1"
}

publish_entry() {
  publish_node '
    const [base] = process.argv.slice(1);
    const file = data.path.split("/").at(-1);
    if (base) for (const source of data.entry.sources) source.url = base.replace(/\/*$/, "/") + file;
    console.log(JSON.stringify(data.entry, undefined, 2));
  ' "$1"
}
