"""A computer on bumble, with the computer that the Python binding has inside for its tests (feature test-host).

It pairs by digits with whatever phone is ready for that, and finds a paired one by having nobody else on the air. Used by
controllers.py.
"""

import asyncio
import logging

import pocketcard_ffi as ffi
from bumble import core, device, gatt, hci
from bumble.host import Host as BumbleHost

import fragments
import l2cap
from phone import HOST_TO_PHONE, INFO, PHONE_TO_HOST, SERVICE, spawn

log = logging.getLogger("radio.host")

MTU = 185
# Key 9A of a test card of the virtual phone, P-256; the digest is that of nothing in particular.
SELECT = bytes.fromhex("00A4040009A0000003080000100000")
VERIFY = bytes.fromhex("0020008008") + b"123456\xff\xff"
CERTIFICATE = bytes.fromhex("00CB3FFF055C035FC10500")
SIGN = bytes.fromhex("0087119A267C2482008120") + bytes(32) + b"\x00"


class Host:
    def __init__(self, controller):
        self.device = device.Device(
            config=device.DeviceConfiguration(name="", address=hci.Address.generate_static_address()),
            host=BumbleHost(controller, controller),
        )
        self.device.gatt_server.max_mtu = MTU
        self.host = ffi.TestHost("Computer on bumble")
        self.connection = None

    async def start(self):
        await self.device.power_on()

    async def obey(self, words):
        match words:
            case ["compare"]:
                self.host.compare()
                await self.link()
                event = await self.event(ffi.TestHostEvent.DIGITS)
                return f"ok {event.digits}"
            case ["confirm"]:
                self.host.confirm(True)
                self.flush()
                await self.event(ffi.TestHostEvent.PAIRING_DONE)
                await self.leave()
                return "ok"
            case ["connect"]:
                self.host.connect()
                await self.link()
                await self.event(ffi.TestHostEvent.OPENED)
                return f"ok MTU {self.connection.att_mtu}"
            case ["sign"]:
                for command in [SELECT, VERIFY, SIGN]:
                    answer = await self.transmit(command)
                    if answer[-2:] != b"\x90\x00":
                        return f"no: {answer.hex()}"
                return "ok"
            case ["certificate"]:
                return f"ok {len(await self.read(SELECT, CERTIFICATE))} bytes"
            case ["l2cap", mode] if mode in l2cap.HOST_MODES:
                find = await self.find()
                return await l2cap.misbehave(self.connection, await find[INFO].read_value(), mode)
            case ["leave"]:
                await self.leave()
                return "ok"
        return f"no: {words}"

    async def find(self):
        """Finds a phone and connects to it."""
        found = asyncio.get_running_loop().create_future()

        def seen(advertisement):
            uuids = advertisement.data.get(core.AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS)
            if uuids and not found.done():
                found.set_result(advertisement.address)

        self.device.on("advertisement", seen)
        await self.device.start_scanning()
        address = await found
        self.device.remove_listener("advertisement", seen)
        await self.device.stop_scanning()
        self.connection = await self.device.connect(address, own_address_type=hci.OwnAddressType.RANDOM)
        peer = device.Peer(self.connection)
        await peer.request_mtu(MTU)
        (service,) = await peer.discover_service(core.UUID(SERVICE))
        await service.discover_characteristics()
        find = {str(c.uuid).lower(): c for c in service.characteristics}
        return find

    async def link(self):
        """Finds a phone and gets as far as its first message."""
        find = await self.find()
        self.sender = fragments.Sender(self.connection.att_mtu - 3)
        self.receiver = fragments.Receiver()
        self.events = asyncio.Queue()
        self.writing = asyncio.Queue()
        self.host_to_phone = find[HOST_TO_PHONE]
        info = await find[INFO].read_value()
        await find[PHONE_TO_HOST].subscribe(self.notified)
        self.writer = spawn(self.write())
        self.host.receive(b"\x00" + info)
        self.flush()

    def notified(self, value):
        if value[0] == fragments.CREDIT and len(value) == 3:
            self.sender.credit(int.from_bytes(value[1:], "big"))
        else:
            for message in self.receiver.take(value):
                self.host.receive(message)
            if (credit := self.receiver.credit()) is not None:
                self.writing.put_nowait(credit)
        self.flush()

    def flush(self):
        while (event := self.host.next_event()) is not None:
            log.info("%s", event)
            self.events.put_nowait(event)
        while (message := self.host.next_message()) is not None:
            self.sender.push(message)
        for fragment in self.sender.ready():
            self.writing.put_nowait(fragment)

    async def write(self):
        while True:
            await self.host_to_phone.write_value(await self.writing.get())

    async def event(self, kind):
        while not isinstance(event := await self.events.get(), kind):
            if isinstance(event, ffi.TestHostEvent.CLOSED):
                raise ConnectionError(event.reason)
        return event

    async def transmit(self, command):
        request = self.host.transmit(command)
        self.flush()
        while (event := await self.event(ffi.TestHostEvent.RESPONSE)).request_id != request:
            pass
        return event.response

    async def read(self, *commands):
        """The data that the last command gives, in as many pieces as the card makes of it."""
        data = b""
        for command in commands:
            answer = await self.transmit(command)
        while answer[-2] == 0x61:
            data += answer[:-2]
            answer = await self.transmit(bytes([0x00, 0xC0, 0x00, 0x00, answer[-1]]))
        if answer[-2:] != b"\x90\x00":
            raise ConnectionError(answer.hex())
        return data + answer[:-2]

    async def leave(self):
        self.writer.cancel()
        await self.connection.disconnect()
