#!/bin/sh
# Boots systemd as PID 1 of its own namespaces, on a file system where nothing that it writes stays.
#
#   unshare --mount sh boot.sh CGROUP TREE PYTHON SITE SOURCE
#
# CGROUP: the name of a control group of its own. TREE: a directory with srv, units and settings, which become /srv,
# /etc/systemd/system and /etc/ostler. PYTHON, SITE, SOURCE: the interpreter's prefix, its site-packages and the
# package ostler, which become /srv/python, /srv/site and /srv/source/ostler: wherever they are, the made-up user of
# a hardened unit may not look there.
set -eu

if [ "${INSIDE:-}" = "" ]; then
  # The control group first: a namespace's root is the group that its maker is in.
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir "/sys/fs/cgroup/$1"
  echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
  INSIDE=yes exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child sh "$0" "$@"
fi

tree=$2 python=$3 site=$4 source=$5
mount -t proc proc /proc
umount /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup

mount --bind "$tree/srv" /srv
mount --bind "$python" /srv/python
mount --bind "$site" /srv/site
mount --bind "$source" /srv/source/ostler

mount -t tmpfs tmpfs /run
mkdir /run/etc
cp -a /etc/. /run/etc
rm -rf /run/etc/systemd/system
mkdir -p /run/etc/systemd/system /run/etc/ostler
mount --bind /run/etc /etc
mount --bind "$tree/units" /etc/systemd/system
mount --bind "$tree/settings" /etc/ostler
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var
mkdir /var/lib /var/log /var/tmp
ln -s /run /var/run

# The machine's own kernel settings and files are none of its business.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /
mkdir -p /run/systemd/system
for unit in systemd-binfmt.service systemd-journald-audit.socket systemd-modules-load.service \
  systemd-remount-fs.service systemd-sysctl.service systemd-sysusers.service systemd-tmpfiles-setup.service \
  systemd-tmpfiles-setup-dev.service systemd-update-utmp.service dbus.socket; do
  ln -s /dev/null "/run/systemd/system/$unit"
done

exec env -i PATH="$PATH" container=other /lib/systemd/systemd --system --unit=basic.target --show-status=no
