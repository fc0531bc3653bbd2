"""A phone on bumble, with the phone core by its Python binding: no BlueZ, no Rust between the core and the air.

Its MTU is small, and its radio address changes every few seconds. Used by controllers.py; the library and
pocketcard_ffi.py are where PYTHONPATH says.
"""

import asyncio
import datetime
import logging
import os
import secrets
import tempfile
import time

import pocketcard_ffi as ffi
from bumble import att, core, device, gatt, hci
from bumble.host import Host
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import fragments
import l2cap

log = logging.getLogger("radio.phone")

MTU = 185
# How often the radio address changes. Real phones take minutes.
ADDRESS_SECONDS = 4
ADVERTISING_INTERVAL_MS = 100
# General discoverable, no BR/EDR.
FLAGS = 0x06
SERVICE = "b7d30000-6c1e-4f55-9a0d-1c5e8f2a7b40"
INFO = "b7d30010-6c1e-4f55-9a0d-1c5e8f2a7b40"
HOST_TO_PHONE = "b7d30011-6c1e-4f55-9a0d-1c5e8f2a7b40"
PHONE_TO_HOST = "b7d30012-6c1e-4f55-9a0d-1c5e8f2a7b40"
# An application error: the instance serves another host.
TAKEN = 0x80
# Key 9A: P-256, PIN once, touch never.
GENERATE = bytes.fromhex("0047009A0BAC09800111AA0102AB010100")


def spawn(work):
    """A task whose failure is in the log: nobody waits for it."""

    async def told():
        try:
            await work
        except Exception:
            log.exception("a task of the phone failed")

    return asyncio.get_running_loop().create_task(told())


class Keys(ffi.KeyStore):
    """Keys in memory, by the cryptography package."""

    def __init__(self):
        self.keys = {}

    def algorithms(self):
        return [ffi.KeyAlgorithm.ECC_P256]

    async def generate(self, algorithm):
        handle, key = secrets.token_bytes(16), ec.generate_private_key(ec.SECP256R1())
        self.keys[handle] = key
        point = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return ffi.GeneratedKey(handle=handle, public_key=ffi.PublicKey.ECC(point))

    async def sign(self, handle, algorithm, input):
        return self.keys[handle].sign(input, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    async def decrypt(self, handle, algorithm, input):
        raise ffi.KeyStoreError.UnsupportedAlgorithm()

    async def agree(self, handle, algorithm, peer_point):
        raise ffi.KeyStoreError.UnsupportedAlgorithm()

    async def delete(self, handle):
        self.keys.pop(handle, None)

    async def handles(self):
        return list(self.keys)


class DeviceKey(ffi.SealingKey):
    def __init__(self):
        self.key = AESGCM(secrets.token_bytes(32))

    async def seal(self, context, plain):
        nonce = secrets.token_bytes(12)
        return nonce + self.key.encrypt(nonce, plain, context)

    async def unseal(self, context, sealed):
        return self.key.decrypt(sealed[:12], sealed[12:], context)


class Owner(ffi.Approver):
    async def approve(self, request):
        return ffi.ApprovalDecision.APPROVED


class Link(ffi.Transport):
    """One link to a computer, from its read of Info to the end of the connection."""

    def __init__(self, phone, connection):
        self.phone, self.connection = phone, connection
        self.loop = asyncio.get_running_loop()
        self.info = self.loop.create_future()
        self.sender = fragments.Sender(phone.device.gatt_server.max_mtu - 3)
        self.receiver = fragments.Receiver()
        self.arrived = asyncio.Queue()
        self.leaving = asyncio.Queue()
        self.link = phone.phone.link_up(self)
        self.tasks = [spawn(self.deliver()), spawn(self.notify())]

    # The phone's thread calls these two.
    def send(self, message):
        self.loop.call_soon_threadsafe(self.say, message)
        return ffi.SendOutcome.SENT

    def disconnect(self):
        self.loop.call_soon_threadsafe(self.phone.end, self)

    def say(self, message):
        if not self.info.done():
            # The first message is of kind 00; a read gives it without the kind.
            self.info.set_result(message[1:])
            return
        self.sender.push(message)
        self.flush()

    def flush(self):
        for fragment in self.sender.ready():
            self.leaving.put_nowait(fragment)

    async def notify(self):
        while True:
            value = await self.leaving.get()
            await self.phone.device.notify_subscriber(self.connection, self.phone.phone_to_host, value)

    def written(self, value):
        if value and value[0] == fragments.CREDIT and len(value) == 3:
            self.sender.credit(int.from_bytes(value[1:], "big"))
            self.flush()
            return
        for message in self.receiver.take(value):
            self.arrived.put_nowait(message)
        if (credit := self.receiver.credit()) is not None:
            self.leaving.put_nowait(credit)

    async def deliver(self):
        try:
            while True:
                await self.link.push_message(await self.arrived.get())
        except ffi.LinkError:
            self.phone.end(self)

    def close(self):
        self.link.link_down()
        for task in self.tasks:
            task.cancel()


class Phone:
    """The phone, its GATT service and its advertisements."""

    def __init__(self, controller):
        self.device = device.Device(
            config=device.DeviceConfiguration(name="", address=self.new_address()), host=Host(controller, controller)
        )
        server = self.device.gatt_server
        server.max_mtu = MTU
        self.long_reads = set()
        self.read_on, server.on_att_read_blob_request = server.on_att_read_blob_request, self.read_more
        self.links = {}
        self.channels = l2cap.Channels(self)
        self.addresses = 0
        self.address_seconds = ADDRESS_SECONDS
        self.static_address = None
        self.digits = asyncio.Queue()
        self.paired = asyncio.Event()
        self.identifiers = []
        self.sets = []
        self.turn = asyncio.Event()

    @staticmethod
    def new_address():
        return hci.Address.generate_private_address()

    async def start(self):
        ffi.uniffi_set_event_loop(asyncio.get_running_loop())
        self.folder = tempfile.TemporaryDirectory()
        os.chmod(self.folder.name, 0o700)
        settings = ffi.PhoneSettings(
            name="Phone on bumble", software="bumble", state_folder=self.folder.name, test_card=True
        )
        self.keys = Keys()
        self.phone = await ffi.Phone.start(settings, self.keys, DeviceKey(), Owner())
        self.events = self.phone.events()
        await self.certify()
        await self.serve()
        self.tasks = [spawn(self.watch_events()), spawn(self.watch_advertisements()), spawn(self.advertise())]

    async def certify(self):
        """Puts a key and its certificate into 9A, as the owner."""
        await self.admin(GENERATE)
        (key,) = self.keys.keys.values()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Phone on bumble")])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        )
        body = tlv(0x70, certificate) + bytes.fromhex("710100FE00")
        data = bytes.fromhex("5C035FC105") + tlv(0x53, body)
        await self.admin(bytes.fromhex("00DB3FFF00") + len(data).to_bytes(2, "big") + data)

    async def admin(self, command):
        answer = await self.phone.local_transmit(command)
        assert answer[-2:] == b"\x90\x00", answer.hex()

    async def serve(self):
        read = gatt.Characteristic.Properties.READ
        write = gatt.Characteristic.Properties.WRITE | gatt.Characteristic.Properties.WRITE_WITHOUT_RESPONSE
        self.phone_to_host = gatt.Characteristic(
            PHONE_TO_HOST, gatt.Characteristic.Properties.NOTIFY, gatt.Characteristic.READABLE, b""
        )
        self.phone_to_host.on("subscription", self.subscribed)
        info = gatt.CharacteristicValue(read=self.read_info)
        written = gatt.CharacteristicValue(write=self.written)
        self.characteristics = [
            gatt.Characteristic(INFO, read, gatt.Characteristic.READABLE, info),
            gatt.Characteristic(HOST_TO_PHONE, write, gatt.Characteristic.WRITEABLE, written),
            self.phone_to_host,
        ]
        self.first = len(self.device.gatt_server.attributes)
        self.device.add_service(gatt.Service(SERVICE, self.characteristics))
        self.device.on("connection", self.connected)
        await self.device.power_on()

    def move(self):
        """Serves the same at the same handles in another order, as another version of an app may."""
        server = self.device.gatt_server
        del server.attributes[self.first:]
        server.attributes_by_handle.clear()
        server.services.pop()
        self.characteristics.insert(0, self.characteristics.pop())
        self.device.add_service(gatt.Service(SERVICE, self.characteristics))

    def connected(self, connection):
        connection.on("disconnection", lambda _: self.left(connection))

    def read_more(self, connection, request):
        # bumble reads the value anew for each part of it; a part that is not the first begins nothing new.
        self.long_reads.add(connection)
        self.read_on(connection, request)

    async def read_info(self, connection):
        if connection in self.long_reads:
            self.long_reads.discard(connection)
            return self.last_info
        # bumble keeps one service instance here, and one link for each connection; the core decides about hosts.
        self.end_of(connection)
        if self.links:
            raise att.ATT_Error(TAKEN)
        link = self.links[connection] = Link(self, connection)
        self.last_info = self.channels.info(connection, await link.info)
        return self.last_info

    def written(self, connection, value):
        if (link := self.links.get(connection)) is not None:
            try:
                link.written(value)
            except fragments.Breach as breach:
                log.warning("breach: %s", breach)
                self.end(link)

    def subscribed(self, connection, notify, _indicate):
        if not notify:
            self.end_of(connection)

    def left(self, connection):
        self.end_of(connection)
        # A connection ends its advertisement.
        self.turn.set()

    def end_of(self, connection):
        if (link := self.links.pop(connection, None)) is not None:
            link.close()

    def end(self, link):
        if self.links.get(link.connection) is link:
            self.end_of(link.connection)

    async def watch_events(self):
        while (event := await self.events.next()) is not None:
            log.info("%s", event)
            if isinstance(event, ffi.PhoneEvent.PAIRING_DIGITS):
                self.digits.put_nowait(event.digits)
            elif isinstance(event, ffi.PhoneEvent.PAIRED):
                self.paired.set()

    async def watch_advertisements(self):
        while True:
            advertisements = self.phone.advertise(int(time.time()))
            try:
                async with asyncio.timeout(60):
                    while (identifiers := await advertisements.next()) is not None:
                        self.identifiers = identifiers
                        self.turn.set()
            except TimeoutError:
                pass

    async def advertise(self):
        """Advertises each identifier from a random address of its own, all of them new when something changes."""
        while True:
            for advertising_set in self.sets:
                await advertising_set.remove()
            # A static address is that of one device, and so of one identifier.
            identifiers = self.identifiers[:1] if self.static_address else self.identifiers
            self.sets = [await self.advertise_one(identifier) for identifier in identifiers]
            self.turn.clear()
            try:
                await asyncio.wait_for(self.turn.wait(), self.address_seconds)
            except TimeoutError:
                pass

    async def advertise_one(self, identifier):
        self.addresses += 1
        data = core.AdvertisingData([
            (core.AdvertisingData.FLAGS, bytes([FLAGS])),
            (core.AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(core.UUID(identifier))),
        ])
        parameters = device.AdvertisingParameters(
            primary_advertising_interval_min=ADVERTISING_INTERVAL_MS,
            primary_advertising_interval_max=ADVERTISING_INTERVAL_MS,
        )
        return await self.device.create_advertising_set(
            advertising_parameters=parameters,
            random_address=self.static_address or self.new_address(),
            advertising_data=bytes(data),
        )

    async def obey(self, words):
        match words:
            case ["scan", text]:
                return f"ok {await self.phone.scan(text)}"
            case ["compare"]:
                await self.phone.compare()
                return "ok"
            case ["digits"]:
                return f"ok {await self.digits.get()}"
            case ["confirm"]:
                await self.phone.confirm_pairing(True)
                await self.paired.wait()
                return "ok"
            case ["keep"]:
                # The address of the next advertisement: a slow computer may not keep up with so many.
                self.address_seconds = 1000
                self.turn.set()
                return "ok"
            case ["static"]:
                # One address that never changes, as few phones have.
                self.static_address = hci.Address.generate_static_address()
                self.address_seconds = 1000
                self.turn.set()
                return "ok"
            case ["move"]:
                self.move()
                return "ok"
            case ["mtu", mtu]:
                # For the connections to come.
                self.device.gatt_server.max_mtu = int(mtu)
                return "ok"
            case ["l2cap", mode] if mode in l2cap.MODES:
                self.channels.set_mode(mode)
                return "ok"
            case ["state"]:
                mtus = [connection.att_mtu for connection in self.links]
                return f"ok {len(self.links)} links, MTU {mtus}, {self.addresses} addresses, {self.channels.opened} channels"
        return f"no: {words}"


def tlv(tag, value):
    length = len(value)
    return bytes([tag]) + (bytes([length]) if length < 0x80 else b"\x82" + length.to_bytes(2, "big")) + value
