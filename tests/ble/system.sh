# The daemon as its package runs it, by systemd behind every wall of the unit, and a phone on the air that is paired with it;
# pcscd is the system's. Sourced by the stories of both, never run.
#
# CARD: what the phone has, `ec` or `rsa`
# shellcheck shell=bash
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$BLE_ROOT/tests/ble/lib.sh"
packaging=$BLE_ROOT/packaging/debian

good() { note "good: $*"; }
# What happened, and what BlueZ believes that the phone has.
trouble() {
    journalctl --quiet --no-pager --lines=40 --unit=pocketcardd --unit=pcscd --unit=bluetooth
    tail -n 5 /run/phone.log
    tail -n +1 /var/lib/bluetooth/*/cache/*
    busctl tree --list org.bluez | grep char || true
}
bad() {
    note "WRONG: $*"
    trouble
    exit 1
}
# soon SECONDS WHAT COMMAND...: the command works after a while.
soon() {
    local limit=$1 what=$2
    shift 2
    wait_for "$limit" "$@" || bad "not within $limit s: $what"
    good "$what"
}
# equal WHAT ONE OTHER
equal() { if [ "$2" = "$3" ]; then good "$1: $2"; else bad "$1: $2, not $3"; fi; }
phone_says() { grep -q "$1" /run/phone.log; }
# Milliseconds since the boot.
now() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
card() { opensc-tool --reader 0 --name; }
no_card() { ! card; }

install -m 755 "$BLE_BIN/pocketcard" /usr/bin
install -m 755 "$BLE_BIN/pocketcardd" /usr/sbin
install -D -m 644 "$BLE_BIN/libifd_pocketcard.so" -t /usr/lib/pcsc/drivers/serial
install -D -m 644 "$packaging/libifd-pocketcard/reader.conf" "$packaging/pocketcard/pocketcardd.toml" -t /etc/pocketcard
install -D -m 755 "$packaging/libifd-pocketcard/reader-conf" -t /usr/lib/pocketcard
install -m 644 "$packaging/pocketcard/pocketcardd.service" /usr/lib/systemd/system
install -m 644 "$packaging/pocketcard/pocketcard.conf" /usr/lib/sysusers.d
systemd-sysusers pocketcard.conf
/usr/lib/pocketcard/reader-conf install
mkdir /etc/systemd/system/pocketcardd.service.d
printf '[Service]\nEnvironment=RUST_LOG=info,pocketcard_daemon=debug\n' >/etc/systemd/system/pocketcardd.service.d/log.conf
# The other adapter is the phone's.
sed -i 's/^#adapter/adapter/' /etc/pocketcard/pocketcardd.toml
systemctl daemon-reload
systemctl start pocketcardd
soon 60 "the daemon listens" pocketcard status

mkfifo /run/phone /run/person
virtual-phone --script --state /run/phone-state --ble=hci1 --test-card "$CARD" --auto-approve --name Air \
    </run/phone >/run/phone.log 2>&1 &
exec 3>/run/phone
soon 120 "a phone is on the air" phone_says '"event":"ready"'
script --quiet --flush --return --command 'pocketcard pair' /run/pair.log </run/person >/dev/null &
exec 4>/run/person
soon 60 "pocketcard pair shows a code" grep -q '^pocketcard:' /run/pair.log
echo "{\"command\":\"scan\",\"qr\":\"$(grep -m1 -o '^pocketcard:[^[:space:]]*' /run/pair.log)\"}" >&3
soon 120 "the computer shows digits" grep -q 'yes/no' /run/pair.log
soon 60 "the phone shows digits" phone_says '"digits"'
digits=$(grep -m1 -o '"digits":"[0-9 ]*"' /run/phone.log | tr -dc 0-9)
equal "the digits" "$(tr -d ' ' </run/pair.log | grep -m1 -o '^[0-9]\{6\}')" "$digits"
echo '{"command":"confirm","agree":true}' >&3
echo yes >&4
soon 60 "paired" grep -q '^Paired: Air' /run/pair.log
soon 60 "OpenSC sees the card, by the system's pcscd" card
