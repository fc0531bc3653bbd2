#!/bin/bash
# The daemon as its package runs it, by systemd behind every wall of the unit, meets a phone on the air; pcscd is the system's.
# Whether the packages put these files there, and what else they do, is for `cargo xtask test-packages`.
set -eu
CARD=ec
# shellcheck source-path=SCRIPTDIR source=system.sh
. "$BLE_ROOT/tests/ble/system.sh"

# How often bluetooth.service restarts, and how long the card may take to come back, in seconds. It takes ten or so.
RESTARTS=8
BACK=60

# Links that the phone has had.
links() { grep -c '"event":"radio_link".*"up":true' /run/phone.log; }
new_link() { [ "$(links)" -gt "$links" ]; }

status=/proc/$(systemctl show --property=MainPID --value pocketcardd)/status
equal "its user" "$(id --user --name "$(awk '/^Uid:/ { print $3 }' "$status")")" pocketcard
equal "its capabilities" "$(awk '/^Cap(Prm|Eff|Bnd|Amb)/ { print $2 }' "$status" | sort -u)" 0000000000000000
equal "no new privileges, system calls filtered" "$(awk '/^(NoNewPrivs|Seccomp):/ { print $2 }' "$status" | xargs)" "1 2"

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
# Whoever calls it, the phone beside us for one, would have the bus start it again.
systemctl mask --runtime --now --quiet bluetooth
soon 60 "bluetooth.service ends, the card leaves" no_card
systemctl unmask --runtime --quiet bluetooth
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
