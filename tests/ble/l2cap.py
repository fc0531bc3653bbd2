"""Channels of L2CAP of the phone and the computer on bumble, by SPEC.md section 11.3 alone: a good one, and those of a phone that means no good.

    refuse    nobody listens where Info says
    silent    opens and says nothing
    long      sends an SDU that is longer than the host takes
    cut       closes in the middle of the first message
    stingy    gives credit for one PDU and no more: the handshake does not get through
    good      carries the link

All but `good` are done once: afterwards the phone offers no channel.

What a computer does to a phone's channel, which has to end it:

    long      sends an SDU that is longer than the phone takes
    huge      announces a frame of a megabyte
    cut       closes in the middle of a frame
    stalls    begins a frame and says no more
    stingy    gives credit for one PDU: not even Info gets through. That is a host that begins no handshake, and the phone
              waits for one (SPEC.md section 10); here the host leaves before
"""

import asyncio
import contextlib
import logging

import pocketcard_ffi as ffi
from bumble import l2cap

log = logging.getLogger("radio.l2cap")

PSM = 0x80
SDU_LIMIT = 2048
# Bit and bytes of Info. Spec: SPEC.md section 3.1
CAPABILITY_BYTE, CAPABILITY = 7, 0x01
PSM_BYTES = slice(24, 26)
MODES = ["refuse", "silent", "long", "cut", "stingy", "good"]
HOST_MODES = ["long", "huge", "cut", "stalls", "stingy"]
# The phone has to be done with a bad computer by then.
END_SECONDS = 20
SPEAKS_SECONDS = 2
# Longer than the phone waits for anything that has begun.
STINGY_SECONDS = 4


def offer(info):
    """The same Info with a channel, which its link knows nothing of: it is void once a channel is open."""
    offered = bytearray(info)
    offered[CAPABILITY_BYTE] |= CAPABILITY
    return bytes(offered) + PSM.to_bytes(2, "big")


class Channels:
    def __init__(self, phone):
        self.phone = phone
        self.mode = None
        self.server = None
        self.opened = 0
        # Connections in which Info was offered already: a host that reads it again wants it without.
        self.offered = set()

    def set_mode(self, mode):
        self.mode = mode
        if self.server is not None:
            self.server.close()
            self.server = None
        if mode not in (None, "refuse"):
            credits = 1 if mode == "stingy" else 64
            spec = l2cap.LeCreditBasedChannelSpec(psm=PSM, mtu=SDU_LIMIT, mps=64, max_credits=credits)
            self.server = self.phone.device.create_l2cap_server(spec, self.open)

    def info(self, connection, info):
        if self.mode is None or connection in self.offered:
            return info
        self.offered.add(connection)
        if self.mode == "refuse":
            self.mode = None
        return offer(info)

    def open(self, channel):
        self.opened += 1
        self.phone.end_of(channel.connection)
        mode = self.mode
        if mode != "good":
            self.set_mode(None)
        asyncio.get_running_loop().create_task(self.act(channel, mode))

    async def act(self, channel, mode):
        try:
            match mode:
                case "silent":
                    channel.sink = lambda _sdu: None
                case "long":
                    channel.sink = lambda _sdu: None
                    channel.peer_mtu = 2 * SDU_LIMIT
                    channel.write(bytes(SDU_LIMIT + 1))
                case "stingy":
                    channel.peer_credits_threshold = -1
                    ChannelLink(self.phone, channel)
                case "cut":
                    channel.sink = lambda _sdu: None
                    channel.write((25).to_bytes(4, "big") + bytes(10))
                    await channel.disconnect()
                case "good":
                    ChannelLink(self.phone, channel)
        except Exception:
            log.exception("a channel: %s", mode)


async def misbehave(connection, info, mode):
    """Opens a channel to a phone, does what it should not, and says how long the phone put up with it."""
    if not info[CAPABILITY_BYTE] & CAPABILITY:
        return "no: the phone offers no channel"
    psm = int.from_bytes(info[PSM_BYTES], "big")
    credits = 1 if mode == "stingy" else 64
    spec = l2cap.LeCreditBasedChannelSpec(psm=psm, mtu=SDU_LIMIT, mps=23, max_credits=credits)
    channel = await connection.create_l2cap_channel(spec)
    closed = asyncio.Event()
    spoke = asyncio.Event()
    channel.on("close", closed.set)
    channel.sink = lambda _sdu: spoke.set()
    if mode == "stingy":
        channel.peer_credits_threshold = -1
    else:
        # The phone speaks first, at once. What comes before the sink is there is lost with bumble.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(spoke.wait(), SPEAKS_SECONDS)
    begun = asyncio.get_running_loop().time()
    match mode:
        case "stingy":
            await asyncio.sleep(STINGY_SECONDS)
            await connection.disconnect()
            return "ok it waited"
        case "long":
            channel.peer_mtu = 2 * SDU_LIMIT
            channel.write(bytes(SDU_LIMIT + 1))
        case "huge":
            channel.write((1 << 20).to_bytes(4, "big"))
        case "cut":
            channel.write((25).to_bytes(4, "big") + bytes(10))
            await channel.disconnect()
        case "stalls":
            channel.write((25).to_bytes(4, "big") + bytes(10))
    await asyncio.wait_for(closed.wait(), END_SECONDS)
    took = asyncio.get_running_loop().time() - begun
    await connection.disconnect()
    return f"ok {took:.1f} s"


class ChannelLink(ffi.Transport):
    """A link on a channel: frames of section 5, whatever the SDUs are."""

    def __init__(self, phone, channel):
        self.loop = asyncio.get_running_loop()
        self.channel = channel
        self.bytes = b""
        self.arrived = asyncio.Queue()
        channel.sink = self.take
        channel.on("close", self.end)
        self.link = phone.phone.link_up(self)
        self.task = self.loop.create_task(self.deliver())

    # The phone's thread calls these two.
    def send(self, message):
        self.loop.call_soon_threadsafe(self.channel.write, len(message).to_bytes(4, "big") + bytes(message))
        return ffi.SendOutcome.SENT

    def disconnect(self):
        self.loop.call_soon_threadsafe(self.hang_up)

    def hang_up(self):
        self.loop.create_task(self.channel.disconnect())

    def take(self, sdu):
        self.bytes += sdu
        while len(self.bytes) >= 4 and len(self.bytes) - 4 >= (length := int.from_bytes(self.bytes[:4], "big")):
            self.arrived.put_nowait(self.bytes[4 : 4 + length])
            self.bytes = self.bytes[4 + length :]

    async def deliver(self):
        try:
            while True:
                await self.link.push_message(await self.arrived.get())
        except ffi.LinkError:
            pass

    def end(self):
        self.link.link_down()
        self.task.cancel()
