# Enters a copy of a root of Debian, in namespaces that the caller has made, and runs a command there. What is written goes to
# memory, and away with the namespaces; there is no network but loopback.
#
# $1: the root  $2: an empty folder  $3: our programs  $4: where results go  $5: the pages  the rest: the command
set -eu
root=$1 memory=$2 programs=$3 results=$4 docs=$5
shift 5
ip link set lo up
echo machine >/proc/sys/kernel/hostname
mount -t tmpfs -o size=4g,mode=755 tmpfs "$memory"
mkdir "$memory/upper" "$memory/work" "$memory/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$memory/upper,workdir=$memory/work" "$memory/root"
cd "$memory/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p run/lock run/user run/sshd opt/pocketcard opt/results opt/docs
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount --bind "$programs" opt/pocketcard
# Where the package has it, and where PAM's rule finds it.
ln -sf /opt/pocketcard/pocketcard usr/bin/pocketcard
mount --bind "$results" opt/results
mount --bind "$docs" opt/docs
exec env -i PATH=/opt/pocketcard:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root TERM=dumb \
    POCKETCARD_BIN_DIR=/opt/pocketcard POCKETCARD_LOGIN_ROOT=1 chroot . "$@"
