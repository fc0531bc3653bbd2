#!/usr/bin/env python3
"""Records what a program sends to the card of `pocketcard dev`, as recordings/NAME.apdu.

    cargo build -p pocketcard -p pocketcardd -p pocketcard-driver -p pocketcard-examples
    target/debug/pocketcard dev --card rsa -- tests/simulator/record.py pkcs11-sign-rsa -- \\
        pkcs11-tool --login --pin 123456 --sign --mechanism SHA256-RSA-PKCS --id 01 -i /etc/hostname -o /dev/null
    target/debug/pocketcard dev --card rsa -- tests/simulator/record.py ssh-login-rsa -- ssh-login /usr/sbin/sshd
    target/debug/pocketcard dev --card rsa -- tests/simulator/record.py pam-login-rsa -- pam-login FOLDER

`ssh-login` logs in at an sshd of its own on loopback. `pam-login` runs pam_pkcs11 under pamtester; FOLDER is where
libpam-pkcs11 and pamtester are unpacked (apt-get download, dpkg-deb --extract), or / where they are installed.
Anything else is run as it stands, if it reaches the card through OpenSC: pcsc-lite's spy (libpcsclite-dev) sits between
OpenSC and pcscd. The recordings of ykman and yubico-piv-tool are those of phone-core, without their status words.
Only commands are kept, and the PIN in them is the test card's.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

SPY = "libpcscspy.so.0"
PIN = "123456"
LEAVE = 0
TITLES = {"ssh-login": "ssh login by OpenSC's PKCS#11 module", "pam-login": "login by pam_pkcs11 and OpenSC"}
HEX = re.compile(r"^(?:[0-9A-F]{2} )+$")


def library(name):
    for folder in pathlib.Path("/usr/lib").glob("*-linux-gnu*"):
        if (folder / name).exists():
            return folder / name
    sys.exit(f"{name} is missing: apt-get install libpcsclite-dev opensc-pkcs11")


class Spy:
    """Collects what the library writes to the pipe in the home directory."""

    def __init__(self, folder):
        self.pipe = folder / "pcsc-spy"
        os.mkfifo(self.pipe)
        # Held open, so that one program after another may write.
        self.reader = os.open(self.pipe, os.O_RDWR)
        self.text = b""
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while chunk := os.read(self.reader, 65536):
            self.text += chunk

    def lines(self):
        known = -1
        while known != len(self.text):
            known = len(self.text)
            time.sleep(0.3)
        return [line.partition("@")[2] for line in self.text.decode().splitlines()]


def calls(lines):
    """(function, arguments and results) of every call."""
    pending = None
    for line in lines:
        if line.startswith(">|"):
            pending = (line.split("|")[3], [])
        elif line.startswith("<|") and pending:
            yield pending
            pending = None
        elif pending:
            pending[1].append(line)


def recording(lines):
    steps, objects, connected = [], {}, False
    algorithm = None
    for function, words in calls(lines):
        if function == "SCardTransmit":
            command, *answer = [line for line in words if HEX.match(line)]
            command, answer = bytes.fromhex(command), bytes.fromhex(answer[0] if answer else "")
            steps.append(command.hex().upper())
            if command[:4] == bytes.fromhex("00CB3FFF") and command[5:7] == b"\x5c\x03" and answer[:2] == b"\x53\x82":
                objects[command[7:10].hex().upper()] = int.from_bytes(answer[2:4], "big")
            if command[1] == 0x87 and command[3] != 0x9B:
                algorithm = command[2]
        elif function == "SCardDisconnect" and int(words[1], 16) != LEAVE:
            steps.append("reset")
        elif function == "SCardReconnect" and int(words[3], 16) != LEAVE:
            steps.append("reset")
    while steps and steps[-1] == "reset":
        steps.pop()
    while steps and steps[0] == "reset":
        steps.pop(0)
    return steps, objects, algorithm


def run(arguments, environment, **more):
    result = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, text=True, capture_output=True, **more)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, arguments))} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


ENTER = """mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd || exit 1
if ! getent passwd sshd >/dev/null; then
    { cat /etc/passwd; echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin'; } >/run/passwd
    mount --bind /run/passwd /etc/passwd || exit 1
fi
exec "$0" "$@\""""


def ssh_login(folder, environment, sshd):
    """An ssh login with the key in 9A, at an sshd that ends with it. The key is asked for before the spy listens."""
    module = library("opensc-pkcs11.so")
    plain = {name: value for name, value in environment.items() if name not in ("OPENSC_CONF", "HOME")}
    keys = run(["ssh-keygen", "-D", module], plain).splitlines()
    (folder / "authorized_keys").write_text(next(key for key in keys if "AUTH" in key) + "\n")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], plain)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPermitRootLogin prohibit-password\n"
    )
    ask = folder / "ask-pass"
    ask.write_text(f"#!/bin/sh\necho {PIN}\n")
    ask.chmod(0o700)
    server = [sshd, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")]
    if os.geteuid() == 0:
        server = ["unshare", "--mount", "--", "sh", "-c", ENTER, *server]
    server = subprocess.Popen(server, stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        client = {**environment, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        user = run(["id", "-un"], plain).strip()
        options = ["-F", "none", "-p", str(port), "-o", f"UserKnownHostsFile={folder}/known_hosts"]
        options += ["-o", "IdentityFile=none", "-o", "IdentityAgent=none", "-o", "PreferredAuthentications=publickey"]
        run(["ssh", *options, "-I", module, f"{user}@127.0.0.1", "true"], client)
    finally:
        server.terminate()
        server.wait()


def pam_login(folder, environment, root):
    """A login by pam_pkcs11: the certificate in 9A is mapped to the user by a file."""
    root = pathlib.Path(root)
    find = lambda name: next(path for path in root.rglob(name) if path.is_file())
    module = library("opensc-pkcs11.so")
    plain = {name: value for name, value in environment.items() if name not in ("OPENSC_CONF", "HOME")}
    certificate = folder / "certificate.der"
    run(["pkcs11-tool", "--read-object", "--type", "cert", "--id", "01", "-o", certificate], plain)
    (folder / "cacerts").mkdir()
    (folder / "crls").mkdir()
    pem = folder / "cacerts" / "ca.pem"
    run(["openssl", "x509", "-inform", "DER", "-in", certificate, "-out", pem], plain)
    name = run(["openssl", "x509", "-in", pem, "-noout", "-hash"], plain).strip()
    (folder / "cacerts" / f"{name}.0").symlink_to(pem)
    subject = run(["openssl", "x509", "-in", pem, "-noout", "-subject", "-nameopt", "compat"], plain)
    user = run(["id", "-un"], plain).strip()
    (folder / "subjects").write_text(f"{subject.removeprefix('subject=').strip()} -> {user}\n")
    (folder / "pam_pkcs11.conf").write_text(
        f"pam_pkcs11 {{ use_pkcs11_module = opensc; debug = {str('DEBUG' in os.environ).lower()};\n"
        f"  pkcs11_module opensc {{ module = {module}; slot_num = 0; support_threads = false;\n"
        f"    ca_dir = {folder}/cacerts; crl_dir = {folder}/crls; cert_policy = signature; token_type = \"Card\"; }}\n"
        f"  use_mappers = pwent, cn, null;\n"
        f"  mapper null {{ debug = false; module = internal; default_match = true; default_user = {user}; }}\n"
        f"  mapper cn {{ debug = false; module = internal; ignorecase = true; mapfile = \"none\"; }}\n"
        f"  mapper pwent {{ debug = false; ignorecase = false; module = internal; }} }}\n"
    )
    service = folder / "pam.d"
    service.mkdir()
    configuration = folder / "pam_pkcs11.conf"
    (service / "recorded").write_text(
        f"auth required {find('pam_pkcs11.so')} config_file={configuration} nodebug\naccount required pam_permit.so\n"
    )
    # PAM looks in /etc/pam.d alone: a namespace of our own has ours there.
    enter = 'mount --make-rprivate / && mount --bind "$0" /etc/pam.d && exec "$@"'
    command = ["unshare", "--mount", "--", "sh", "-c", enter, service, find("pamtester"), "recorded", user, "authenticate"]
    result = subprocess.run(command, env=environment, input=f"{PIN}\n", text=True, capture_output=True)
    if result.returncode:
        sys.exit(f"pamtester failed:\n{result.stdout}{result.stderr}")


def main():
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(__doc__)
    name, command = sys.argv[1], sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        configuration = folder / "opensc.conf"
        spy_library = library(SPY)
        configuration.write_text(f"app default {{ reader_driver pcsc {{ provider_library = {spy_library}; }} }}\n")
        environment = {**os.environ, "HOME": str(folder), "OPENSC_CONF": str(configuration)}
        spy = Spy(folder)
        if command[0] == "ssh-login":
            ssh_login(folder, environment, *command[1:])
        elif command[0] == "pam-login":
            pam_login(folder, environment, *command[1:])
        else:
            run(command, environment)
        steps, objects, algorithm = recording(spy.lines())
    words = " ".join([pathlib.Path(command[0]).name, *command[1:]])
    lines = [f"# {TITLES.get(command[0], words)}"]
    lines += [f"keys {algorithm or 0x07:02X}"]
    lines += [f"object {tag} {length}" for tag, length in objects.items()]
    target = pathlib.Path(__file__).parent / "recordings" / f"{name}.apdu"
    target.write_text("\n".join(lines + steps) + "\n")
    print(f"{target}: {sum(step != 'reset' for step in steps)} commands")


main()
