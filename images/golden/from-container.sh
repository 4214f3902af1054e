#!/bin/sh
# Turns a container of Debian into the golden image: what build-rootfs.sh does around customize.sh, for the Dockerfile.
#
#   from-container.sh packages RECIPE        prints the names of the packages
#   from-container.sh npm RECIPE TARGET      puts the programs of npm packages below TARGET, their digests checked; needs node and npm
#   from-container.sh install RECIPE         installs everything into /
set -eu

# Elements of a list of strings, one per line, as recipe.json is formatted.
list() {
  sed -n "/^  \"$2\": \\[/,/^  \\]/s/^    \"\\(.*\\)\",\\{0,1\\}\$/\\1/p" "$1/recipe.json"
}

# A string of the (one) npm package.
npm_field() {
  sed -n "/^  \"npm\": \\[/,/^  \\]/s/^ *\"$2\": \"\\(.*\\)\",\{0,1\}\$/\\1/p" "$1/recipe.json"
}

case $1 in
  packages) list "$2" packages ;;
  npm)
    folder=$(mktemp -d)
    name=$(npm_field "$2" name)
    npm pack --silent --ignore-scripts --pack-destination "$folder" "$name@$(npm_field "$2" version)"
    # shellcheck disable=SC2016 # a template of JavaScript's
    found=$(node -p '`sha512-${crypto.createHash("sha512").update(fs.readFileSync(process.argv[1])).digest("base64")}`' "$folder"/*.tgz)
    wanted=$(npm_field "$2" integrity)
    [ "$found" = "$wanted" ] || { echo "$name has the digest $found, and should have $wanted" >&2 && exit 1; }
    tar -xzf "$folder"/*.tgz -C "$folder"
    sed -n 's/^ *"files": { "\(.*\)": "\(.*\)" }$/\1 \2/p' "$2/recipe.json" | while read -r from to; do
      install -D -m 0755 "$folder/package/$from" "$3/$to"
    done
    rm -r "$folder"
    ;;
  install)
    list "$2" dpkgOptions >/etc/dpkg/dpkg.cfg.d/banger
    apt-get update -q
    # shellcheck disable=SC2046 # one word each
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(list "$2" packages)
    sh "$2/customize.sh" / "$2"
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/lib/dpkg/*-old
    # Debian's container images keep packages from starting their services, apt from keeping anything, and dpkg from waiting for the
    # disk: a VM is no container.
    rm -f /usr/sbin/policy-rc.d /etc/apt/apt.conf.d/docker-* /etc/dpkg/dpkg.cfg.d/docker*
    # Each VM gets its own.
    : >/etc/machine-id
    rm -f /var/lib/dbus/machine-id
    find /var/log -type f -delete
    ;;
  *)
    echo "from-container.sh: packages, npm or install" >&2
    exit 2
    ;;
esac
