# Enters a root of Debian in namespaces of its own and runs the trial there.
#
# $1: the root  $2: an empty folder  $3: the packages  $4: the trial
# $5: where control groups of version 2 are, to boot systemd; empty to do without
set -euo pipefail
root=$1 folder=$2 packages=$3 trial=$4 groups=$5
export root folder packages trial groups

pipe=$(mktemp --dry-run)
mkfifo "$pipe"
export pipe
group=${groups:+$groups/pocketcard-trial-$$}
clean_up() {
    rm -f "$pipe"
    [ -n "$group" ] && [ -d "$group" ] || return 0
    # systemd and all that it started, if the trial was ended from outside.
    echo 1 >"$group/cgroup.kill"
    for _ in $(seq 50); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && return
        sleep 0.1
    done
}
trap clean_up EXIT
# Held open, so that the reader sees one end and not one for each writer.
exec 9<>"$pipe"
cat "$pipe" 9>&- &
reader=$!

inside() {
    set -euo pipefail
    mount -t tmpfs -o size=4g,mode=755 tmpfs "$folder"
    mkdir "$folder/upper" "$folder/work" "$folder/root"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
    cd "$folder/root"
    mount -t proc proc proc
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    # Devices of its own: systemd would tidy up those of the machine.
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    # Not in /tmp, which systemd empties.
    mkdir trial
    mount -t tmpfs -o mode=755 tmpfs trial
    mkdir trial/packages
    mount --bind "$packages" trial/packages
    touch trial/output
    mount --bind "$pipe" trial/output
    cp "$trial" trial/trial
    cp "${trial%/packaging/*}/docs/walk-away.md" trial
    if [ -n "$groups" ]; then
        mount -t sysfs -o ro sysfs sys
        mount -t tmpfs tmpfs sys/fs/cgroup
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    fi
    # No chroot: nothing in one may make a user namespace, and Debian 13's pcscd is given one.
    mkdir trial/old
    pivot_root . trial/old
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root TERM=dumb DEBIAN_FRONTEND=noninteractive \
        container=trial /usr/sbin/chroot . bash -c "${groups:+systemd=systemd; }$begin"
}
# The first process of the new root.
begin='
    set -e
    umount --lazy /trial/old
    if [ -z "${systemd:-}" ]; then
        exec >/trial/output 2>&1
        bash /trial/trial prepare
        bash /trial/trial live
        exit
    fi
    bash /trial/trial prepare systemd >/trial/output 2>&1
    exec /lib/systemd/systemd --log-target=null --show-status=no
'
export begin
export -f inside

unshare=(unshare --mount --pid --fork --kill-child --ipc --uts --propagation private)
if [ -n "$group" ]; then
    mkdir "$group"
    unshare+=(--cgroup)
fi
code=0
(
    [ -z "$group" ] || echo "$BASHPID" >"$group/cgroup.procs"
    exec 9>&-
    exec "${unshare[@]}" -- bash -c inside
) || code=$?
exec 9>&-
wait "$reader"
exit "$code"
