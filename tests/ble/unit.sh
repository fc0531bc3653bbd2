#!/bin/bash
# The daemon as its package runs it, by systemd behind every wall of the unit, meets a phone on the air; pcscd is the system's.
# Whether the packages put these files there, and what else they do, is for `cargo xtask test-packages`.
set -eu
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$BLE_ROOT/tests/ble/lib.sh"
packaging=$BLE_ROOT/packaging/debian

# How often bluetooth.service restarts, and how long the card may take to come back, in seconds. It takes ten or so.
RESTARTS=8
BACK=60

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
# Links that the phone has had.
links() { grep -c '"event":"radio_link".*"up":true' /run/phone.log; }
new_link() { [ "$(links)" -gt "$links" ]; }
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
status=/proc/$(systemctl show --property=MainPID --value pocketcardd)/status
equal "its user" "$(id --user --name "$(awk '/^Uid:/ { print $3 }' "$status")")" pocketcard
equal "its capabilities" "$(awk '/^Cap(Prm|Eff|Bnd|Amb)/ { print $2 }' "$status" | sort -u)" 0000000000000000
equal "no new privileges, system calls filtered" "$(awk '/^(NoNewPrivs|Seccomp):/ { print $2 }' "$status" | xargs)" "1 2"

mkfifo /run/phone /run/person
virtual-phone --script --state /run/phone-state --ble=hci1 --test-card ec --auto-approve --name Air \
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

sign() {
    echo "Signed by a phone on the air." >/run/document
    pkcs11-tool --login --pin 123456 --id 01 --sign --mechanism ECDSA-SHA256 --input-file /run/document \
        --output-file /run/signature
}
soon 60 "pkcs11-tool --login --sign" sign
radio away 1 || bad "the radio"
soon 60 "the phone goes out of range, the card leaves" no_card
radio back 1 || bad "the radio"
soon 90 "the phone returns, the card is back" card
systemctl stop bluetooth
soon 60 "bluetooth.service ends, the card leaves" no_card
systemctl start bluetooth
soon "$BACK" "bluetooth.service starts again, the card is back" card
soon 60 "pkcs11-tool --login --sign again" sign
# Computer and phone lose their BlueZ at once each time, and the phone comes back with its services in another order.
for round in $(seq "$RESTARTS"); do
    links=$(links)
    began=$(now)
    systemctl restart bluetooth
    soon "$BACK" "bluetooth.service restarts, time $round: the phone has a new link" new_link
    soon "$BACK" "the card is there" card
    note "REPORT unit: bluetooth.service restarted, time $round: card after $(($(now) - began)) ms"
done
soon 60 "pkcs11-tool --login --sign once more" sign
pocketcard status
equal "what systemd restarted" "$(systemctl show --property=NRestarts --value pocketcardd)" 0
refused=$(journalctl --quiet --unit=pocketcardd | grep -i -e 'not permitted' -e 'core dumps' -e 'stays dumpable' || true)
equal "what was refused to the daemon" "$refused" ""
journalctl --quiet --no-pager --unit=pocketcardd
