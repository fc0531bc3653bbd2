#!/bin/bash
# Process 1 of the guest: brings up D-Bus, the virtual controllers and bluetoothd, runs the story, leaves its verdict in
# the shared folder and switches the machine off. `cargo xtask test-ble` wrote /run/ble/environment and /run/ble/story.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
# shellcheck source=/dev/null
. /run/ble/environment
PATH=$BLE_BIN:$PATH
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$BLE_ROOT/tests/ble/lib.sh"

finish() {
    echo "ble: the story ended: $1"
    echo "$1" >/run/ble/verdict.new && mv /run/ble/verdict.new /run/ble/verdict
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}

# Once more by systemd, which then is the first process.
if [ -n "$BLE_SYSTEMD" ] && [ $$ -eq 1 ]; then
    cat >/run/ble/ble.service <<-END
	[Service]
	ExecStart=/bin/bash $BLE_ROOT/tests/ble/guest.sh
	StandardOutput=tty
	StandardError=tty
	TTYPath=/dev/ttyS0
	END
    mkdir -p /etc/systemd/system/multi-user.target.wants
    cp /run/ble/ble.service /etc/systemd/system
    ln -s ../ble.service /etc/systemd/system/multi-user.target.wants
    ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target
    # Nothing happens by the clock, and nobody else has the console.
    ln -s /dev/null /etc/systemd/system/timers.target
    ln -s /dev/null /etc/systemd/system/serial-getty@ttyS0.service
    exec /lib/systemd/systemd --show-status=no
fi

busybox ip link set lo up
note "root is up"
bring_up || finish $LOST
note "the radio is up"

if [ -n "$BLE_TRACE" ]; then
    btmon --write /run/ble/btmon.snoop >/dev/null 2>&1 &
fi

echo "ble: the story begins"
cd "$BLE_ROOT" || finish 1
# A group of its own, so that its limit ends what it started, too.
setsid timeout --kill-after=10 "$BLE_LIMIT" bash /run/ble/story </dev/null
code=$?
if [ $code -ne 0 ]; then
    echo "ble: bluetoothd's log ends so:"
    tail -n 30 /run/bluetoothd.log
fi
finish $code
