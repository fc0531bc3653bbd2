#!/bin/bash
# Tells a story of tests/login in the guest, with the phone on the air. What xtask/src/login/enter.sh makes for it elsewhere is
# made here: the guest's root is the same Debian.
#
# $1: the story
set -eu
echo machine >/proc/sys/kernel/hostname
mkdir -p /run/lock /run/user /run/sshd /run/ble/results
ln -s /run/ble/results /opt/results
ln -s "$BLE_ROOT/docs" /opt/docs
exec env -i PATH="$BLE_BIN:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C.UTF-8 HOME=/root TERM=dumb BLE_ROOT="$BLE_ROOT" \
    POCKETCARD_BIN_DIR="$BLE_BIN" POCKETCARD_LOGIN_ROOT=1 POCKETCARD_LOGIN_AIR=1 login-story "$1"
