#!/bin/sh
# Makes Debian fit for a VM of banger: $1 is the root folder, $2 this recipe's folder. Runs as root, without a network.
set -eu
root=$1 recipe=$2

# Files of our own, owned by root whoever owns this folder.
(cd "$recipe/files" && find . -type f) | while read -r file; do
  install -D -m 0644 "$recipe/files/$file" "$root/$file"
done
chmod 0700 "$root/root"

# Each VM gets its own from the agent; one in the image would be the same for all.
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub
# No password is right, and no key is known until the agent brings one.
sed -i 's/^root:[^:]*:/root:*:/' "$root/etc/shadow"

# Programs of other places ask for en_US; more can be had with locale-gen.
echo 'en_US.UTF-8 UTF-8' >"$root/etc/locale.gen"
chroot "$root" locale-gen >/dev/null

unit() {
  verb=$1
  shift
  chroot "$root" systemctl --quiet "$verb" "$@"
}

# vim-tiny calls itself vi only; with its own priority a real vim takes the name over when it is installed.
chroot "$root" update-alternatives --quiet --install /usr/bin/vim vim /usr/bin/vim.tiny 10

# Consoles: nobody logs in there, and a login prompt fills the console log.
unit mask getty@.service serial-getty@.service console-getty.service container-getty@.service autovt@.service getty-static.service
mkdir -p "$root/etc/systemd/system-generators"
ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-getty-generator"

# Upkeep that a VM of some hours or days only pays for.
unit mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
unit mask systemd-pstore.service systemd-rfkill.service systemd-rfkill.socket

# Steps of the boot that a VM gains nothing from: the journal is in memory (nothing to flush), there are no screens, no
# device mapper and nobody reads who was logged in.
unit mask systemd-journal-flush.service systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-binfmt.service
unit mask modprobe@drm.service modprobe@dm_mod.service modprobe@loop.service modprobe@configfs.service sys-kernel-config.mount

# Docker needs the program to load its profile; Debian's own profiles are not for this machine.
unit mask apparmor.service

# The agent sets up network, names and clock; whoever waits for these services would wait for nothing.
unit mask systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service
[ ! -e "$root/usr/lib/systemd/system/systemd-timesyncd.service" ] || unit mask systemd-timesyncd.service

# Docker and containerd start with the first connection to Docker's socket, not at each boot.
unit disable docker.service containerd.service ssh.service
unit enable docker.socket ssh.socket
# These must not lie on an overlay: the agent puts folders of the VM's own disk in their place.
mkdir -p "$root/var/lib/docker" "$root/var/lib/containerd"
chmod 0710 "$root/var/lib/docker"
chmod 0711 "$root/var/lib/containerd"

# Nothing in /etc or /var waits for a first boot: without these marks systemd rebuilds caches on every VM's first start.
for folder in etc var; do
  printf '# This file was created by the build of the image.\nTIMESTAMP_NSEC=%s000000000\n' "$(date +%s)" >"$root/$folder/.updated"
done
touch "$root/usr" "$root/etc/.updated" "$root/var/.updated"
