#!/bin/bash
# A person walks away with the phone, and comes back: the air, BlueZ, the unit, the watcher of the person's own systemd, logind,
# xss-lock and i3lock, PAM. Nothing stands in for anything but the phone, the radio, the keyboard and the screen.
set -eu
# pam_pkcs11 takes no other.
CARD=rsa
# shellcheck source-path=SCRIPTDIR source=system.sh
. "$BLE_ROOT/tests/ble/system.sh"

PASSWORD=a-password
# An emulated machine takes its time to check a password, or a PIN over the air.
UNLOCK=60

# as_alice COMMAND...: as in a terminal of her session.
as_alice() {
    setpriv --reuid=alice --regid=alice --init-groups env -i HOME=/home/alice USER=alice LOGNAME=alice LC_ALL=C.UTF-8 \
        PATH=/usr/bin:/bin XDG_RUNTIME_DIR="/run/user/$(id --user alice)" DISPLAY="$(display)" "$@"
}
display() { echo ":$(cat /run/alice/display 2>/dev/null)"; }
has_session() { [ -S "/run/user/$(id --user alice)/systemd/private" ] && session >/dev/null; }
session() { loginctl --no-legend list-sessions | awk '$3 == "alice" && !found { print $1; found = 1 } END { exit !found }'; }
hint() { loginctl show-session "$(session)" --property=LockedHint --value; }
hints() { [ "$(hint)" = "$1" ]; }
locker() { pgrep --euid alice --exact i3lock; }
no_locker() { ! locker; }
watcher() { journalctl --quiet --no-pager --output=cat _SYSTEMD_USER_UNIT=pocketcard-watch.service; }
# watched N TEXT: the watcher has said it N times.
watched() { [ "$(watcher | grep --count --fixed-strings "$2")" -ge "$1" ]; }
# Types into whatever has the keyboard, which is the locker.
types() { as_alice xdotool type --clearmodifiers "$1" && as_alice xdotool key Return; }
trouble_of_alice() {
    watcher
    systemctl --no-pager status alice.service
    journalctl --quiet --no-pager --lines=40 --unit=alice --unit=systemd-logind
    trouble
}
bad() {
    note "WRONG: $*"
    trouble_of_alice || true
    exit 1
}

# leaves N: the phone goes out of range, and the session locks, the Nth time.
leaves() {
    local began
    began=$(now)
    radio away 1 || bad "the radio"
    soon 60 "the phone is out of range, and logind knows the session locked" hints yes
    note "REPORT walk-away: out of range to locked: $(($(now) - began)) ms"
    soon 10 "by i3lock" locker
    soon 10 "and the watcher knows" watched "$1" "the session is locked"
}

useradd --create-home --shell /bin/bash alice
echo "alice:$PASSWORD" | chpasswd
gpasswd --add alice pocketcard >/dev/null
install -m 644 "$packaging/pocketcard/pocketcard-watch.service" /usr/lib/systemd/user
install -d --owner=alice /run/alice
# Her session, as a greeter opens it, with an X server that draws on no screen.
systemd-run --quiet --unit=alice --uid=alice --property=PAMName=login --setenv=XDG_SESSION_TYPE=x11 \
    --setenv=XDG_SESSION_CLASS=user bash -c 'Xvfb -displayfd 3 -screen 0 640x480x24 -nolisten tcp 3>/run/alice/display &
        until [ -s /run/alice/display ]; do sleep 0.1; done
        DISPLAY=:$(cat /run/alice/display) exec xss-lock -- i3lock --nofork'
soon 120 "alice has a session" has_session
soon 120 "with a screen" as_alice xset q
soon 60 "that logind may lock" pgrep --euid alice --exact xss-lock
equal "which is open" "$(hint)" no

pocketcard login setup --user alice --yes-if-fingerprint \
    "$(pocketcard login setup --user alice --dry-run | awk '$1 == "SHA-256" { print $2 }')"
as_alice mkdir -p /home/alice/.config/pocketcard
printf 'lock = true\non_arrive = "date >>~/arrivals"\n' >/home/alice/.config/pocketcard/watch.toml
as_alice systemctl --user import-environment DISPLAY
as_alice systemctl --user start pocketcard-watch
soon 60 "her watcher watches" watched 1 "slot 0"

leaves 1
types "$PASSWORD"
soon "$UNLOCK" "the password opens it while the phone is away" no_locker
soon 10 "and logind knows" hints no
arrivals() { [ "$(wc -l </home/alice/arrivals)" -ge "$1" ]; }
radio back 1 || bad "the radio"
soon 90 "the phone is back, and her command has run" arrivals 1
equal "the session, which she had opened, is open" "$(hint)" no

leaves 2
radio back 1 || bad "the radio"
soon 90 "the phone is back once more" arrivals 2
soon 60 "and its card" card
equal "the session is locked" "$(hint)" yes
locker >/dev/null || bad "and i3lock has the screen"
begin=$(now)
types 123456
soon "$UNLOCK" "the phone's PIN opens it" no_locker
note "REPORT walk-away: PIN typed to open: $(($(now) - begin)) ms"
soon 10 "and logind knows" hints no
done_by_phone() { grep '"event":"apdu"' /run/phone.log | grep "\"command\":\"$1\"" | grep -q '"status":"9000"'; }
done_by_phone VERIFY && done_by_phone "GENERAL AUTHENTICATE" || bad "the phone has checked a PIN and used a key"
equal "what the watcher had doubts about" "$(watcher | grep --count 'NOT LOCKED' || true)" 0
watcher
