# What guest.sh and the stories share. Sourced, never run.
# shellcheck shell=bash

# The exit code by which a story says that the virtual radio let it down, not what it tests.
LOST=75

# A line of the log with the guest's clock.
note() {
    local up _
    read -r up _ </proc/uptime
    echo "[$up] $*"
}

# lost REASON: ends the story; it is run once more.
lost() {
    note "LOST: $*"
    exit $LOST
}

# wait_for SECONDS COMMAND...: until the command works, asked every tenth of a second.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.1
    done
}

powered() {
    dbus-send --system --print-reply --dest=org.bluez "/org/bluez/$1" org.freedesktop.DBus.Properties.Get \
        string:org.bluez.Adapter1 string:Powered | grep -q 'boolean true'
}

on_the_bus() {
    dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner "string:$1" |
        grep -q 'boolean true'
}

adapters() { seq 0 $((BLE_ADAPTERS - 1)); }

# -E: without the experimental interfaces the advertising interval that a peripheral asks for is ignored.
start_bluetoothd() {
    if [ -d /run/systemd/system ]; then
        systemctl start bluetooth || return 1
    else
        /usr/libexec/bluetooth/bluetoothd --nodetach --experimental >>/run/bluetoothd.log 2>&1 &
    fi
    wait_for 30 on_the_bus org.bluez || return 1
    # Who sets Powered while bluetoothd does so gets org.bluez.Error.Busy.
    local i
    for i in $(adapters); do
        wait_for 30 powered "hci$i" || { note "hci$i has no power"; return 1; }
    done
}

# D-Bus, controllers, bluetoothd.
bring_up() {
    local i
    if [ ! -d /run/systemd/system ]; then
        mkdir -p /run/dbus
        [ -s /etc/machine-id ] || dbus-uuidgen >/etc/machine-id
        dbus-daemon --system --fork --nopidfile || return 1
    fi
    if [ -n "$BLE_CHANNELS" ]; then
        sed -i '/^Channels/d' /etc/bluetooth/main.conf
        sed -i "s/^\[GATT\]/[GATT]\nChannels = $BLE_CHANNELS/" /etc/bluetooth/main.conf
    fi
    [ "$BLE_ADAPTERS" -gt 0 ] || return 0
    case $BLE_CONTROLLERS in
    btvirt) btvirt -L "-l$BLE_ADAPTERS" >/run/btvirt.log 2>&1 & ;;
    esac
    for i in $(adapters); do
        # One after the other: they are numbered as they come.
        [ "$BLE_CONTROLLERS" != bumble ] || "$BLE_BIN/ble-bridge" "$(port "hci$i")" &
        wait_for 30 test -e "/sys/class/bluetooth/hci$i" || { note "hci$i does not appear"; return 1; }
    done
    start_bluetoothd
}

# port NAME: the device of a port to the host.
port() {
    grep --files-with-matches --line-regexp "$1" /sys/class/virtio-ports/*/name |
        sed 's,/sys/class/virtio-ports/\(.*\)/name,/dev/\1,'
}

# radio COMMAND...: asks something of the virtual radio; tests/ble/controllers.py has the list.
radio() {
    local answer
    exec 9<>"$(port control)"
    echo "$*" >&9
    IFS= read -r -t 60 answer <&9
    exec 9>&-
    note "radio $*: $answer"
    [[ $answer == ok* ]]
}
