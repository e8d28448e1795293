#!/bin/busybox sh
# The first process of the test machine: makes the machine usable, runs the task, tells its exit
# code on a line of its own, and switches the machine off.

/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root RUST_BACKTRACE=1

mount -t proc proc /proc
# A message of the kernel in the middle of a line would spoil a result that is read from it.
echo 1 >/proc/sys/kernel/printk
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Not tracefs: a host may lack it too, and fdtrace must cope.

while read -r module; do
    insmod "$module" || echo "init: $module was not loaded"
done </modules.list

hostname fdtrace-vm
ip link set lo up
# Tests raise their own limit up to this; the kernel's default is 4096.
ulimit -H -n 20000

# Nobody else is here: tests may change limits of the whole system.
export FDTRACE_BIN=/usr/bin/fdtrace FDTRACE_VM=1
cd /tmp || exit 1
# Through a pipe, as on any machine where a program reads the results: no colours.
# The exit code goes the same way, because a process that the task left behind keeps the pipe open;
# the task's last line may have no end.
{
    sh /task
    printf '\nFDTRACE-VM-EXIT %d\n' $?
} </dev/null 2>&1 | cat
poweroff -f
