#!/bin/busybox sh
# What systemd starts in the test machine: runs the task, tells its exit code on a line of its own,
# and switches the machine off. systemd has mounted what a machine has mounted.

# Where Debian has a program of the name, it stays.
/bin/busybox --install -s 2>/dev/null
export PATH=/usr/bin:/usr/sbin HOME=/root RUST_BACKTRACE=1

echo 1 >/proc/sys/kernel/printk
mount -t tmpfs tmpfs /tmp
while read -r module; do
    insmod "$module" || echo "init: $module was not loaded"
done </modules.list
hostname fdtrace-vm
ip link set lo up

# Nobody else is here: tests may change limits of the whole system.
export FDTRACE_BIN=/usr/bin/fdtrace FDTRACE_VM=1
cd /tmp || exit 1
{
    sh /task
    printf '\nFDTRACE-VM-EXIT %d\n' $?
} </dev/null 2>&1 | cat
poweroff -f
