#!/bin/bash
# The guest's first process: mounts what programs expect, makes a checkout out of the host's folders, of which nothing is
# changed, has inside.mjs do its work there, and switches the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 NO_COLOR=1
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
ip link set lo up
hostname guest
printf '127.0.0.1 localhost guest\n::1 localhost\n' >/etc/hosts

modprobe -a 9p 9pnet_virtio overlay
mkdir -p /results /host/{checkout,node_modules} /over/{checkout,node_modules}/{changed,work} /checkout
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 results /results
for share in checkout node_modules; do
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose $share /host/$share
done
overlay() { mount -t overlay overlay -o "lowerdir=/host/$1,upperdir=/over/$1/changed,workdir=/over/$1/work" "$2"; }
overlay checkout /checkout
[ -L /checkout/node_modules ] && rm /checkout/node_modules
mkdir -p /checkout/node_modules
overlay node_modules /checkout/node_modules

cd /checkout && node test/vm/inside.mjs
sync
echo o >/proc/sysrq-trigger
sleep 60
