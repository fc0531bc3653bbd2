"""Virtual Bluetooth controllers for the guest of `cargo xtask test-ble`, by bumble, outside the guest.

    controllers.py ADAPTERS [--peers]

Listens at hci0.sock, hci1.sock and so on in the working folder for HCI, and at control.sock for lines:

    away N        adapter N goes out of range: nothing arrives, links end by their supervision time-out
    back N        and returns
    cut N         the links of adapter N end at once, as by the supervision time-out; it stays in range
    traffic       how many packets of data crossed the air so far
    interval MS   data waits for the next connection event, this far apart; 0 is at once
    links         how many links there are
    phone ...     something of the phone that --peers puts on the air: phone.py has the list
    host ...      the same for a computer: host.py has it

Each is answered by a line that begins with `ok` or `no`.
"""

import asyncio
import logging
import sys

from bumble import hci, ll
from bumble.controller import Controller
from bumble.core import PhysicalTransport
from bumble.link import LocalLink
from bumble.transport import open_transport

log = logging.getLogger("radio")

# After which both ends of a link learn that the other has gone.
SUPERVISION_SECONDS = 2.0
# What the data length extension gives.
PACKET_LENGTH = 251
# How long the answer to a line may take.
ANSWER_SECONDS = 60
# The unit of advertising intervals in HCI.
INTERVAL_UNIT_MS = 0.625
# Its bit of the mask of LE events.
ENHANCED_CONNECTION_COMPLETE = 1 << 9


class Adapter(Controller):
    """A controller of Bluetooth 5 that advertises several sets at once, with what bumble 0.0.236 lacks."""

    # Nobody here resolves private addresses.
    le_features = Controller.le_features & ~hci.LeFeatureMask.LL_PRIVACY
    acl_data_packet_length = PACKET_LENGTH
    le_acl_data_packet_length = PACKET_LENGTH
    supported_max_tx_octets = PACKET_LENGTH
    supported_max_rx_octets = PACKET_LENGTH

    def send_hci_packet(self, packet):
        # Core 5.4, volume 4, part E, section 7.7.65.10: a host that asked for it gets this event in place of the plain one.
        # Linux waits for it, takes the link for not made after 4 s without, and cannot end the link then.
        if isinstance(packet, hci.HCI_LE_Connection_Complete_Event) and self.le_event_mask & ENHANCED_CONNECTION_COMPLETE:
            packet = hci.HCI_LE_Enhanced_Connection_Complete_Event(
                status=packet.status,
                connection_handle=packet.connection_handle,
                role=packet.role,
                peer_address_type=packet.peer_address_type,
                peer_address=packet.peer_address,
                local_resolvable_private_address=hci.Address.ANY,
                peer_resolvable_private_address=hci.Address.ANY,
                connection_interval=packet.connection_interval,
                peripheral_latency=packet.peripheral_latency,
                supervision_timeout=packet.supervision_timeout,
                central_clock_accuracy=packet.central_clock_accuracy,
            )
        super().send_hci_packet(packet)

    def on_hci_reset_command(self, command):
        for connection in list(self.le_connections.values()):
            connection.send_ll_control_pdu(ll.TerminateInd(hci.HCI_ErrorCode.REMOTE_USER_TERMINATED_CONNECTION_ERROR))
        self.le_connections.clear()
        for advertising_set in self.advertising_sets.values():
            advertising_set.stop()
        self.advertising_sets.clear()
        self.le_legacy_advertiser.stop()
        self.le_scan_enable = False
        self.pending_le_connection = None
        return super().on_hci_reset_command(command)

    def on_hci_le_create_connection_cancel_command(self, command):
        pending, self.pending_le_connection = self.pending_le_connection, None
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        # Core 5.4, volume 4, part E, section 7.8.13: the connection ends with an event of its own. It comes after the
        # command's, hence not from here.
        event = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address.address_type,
            peer_address=pending.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        asyncio.get_running_loop().call_soon(self.send_hci_packet, event)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_hci_le_set_advertising_parameters_command(self, command):
        answer = super().on_hci_le_set_advertising_parameters_command(command)
        # bumble takes the units for milliseconds.
        self.le_legacy_advertiser.advertising_interval_min = command.advertising_interval_min * INTERVAL_UNIT_MS
        return answer


class Radio(LocalLink):
    """The air between the controllers: connection events, and who is out of range."""

    def __init__(self):
        super().__init__()
        self.away = set()
        self.interval = 0.0
        self.waiting = []
        self.carried = 0

    def send_acl_data(self, sender_controller, destination_address, transport, data):
        connection = sender_controller.le_connections.get(destination_address)
        receiver = self.find_le_controller(destination_address)
        if connection is None or receiver is None or self.away & {sender_controller, receiver}:
            return
        self.carried += 1

        # bumble 0.0.236 names the sender's random address, which BlueZ does not use.
        def deliver():
            if connection.self_address in receiver.le_connections:
                receiver.on_link_acl_data(connection.self_address, PhysicalTransport.LE, data)

        loop = asyncio.get_running_loop()
        if not self.interval:
            loop.call_soon(deliver)
            return
        # One timer for all that waits: timers with one deadline would change the order.
        if not self.waiting:
            loop.call_at((int(loop.time() / self.interval) + 1) * self.interval, self.connection_event)
        self.waiting.append(deliver)

    def connection_event(self):
        waiting, self.waiting = self.waiting, []
        for deliver in waiting:
            deliver()

    def send_advertising_pdu(self, sender_controller, packet):
        if sender_controller in self.away:
            return
        loop = asyncio.get_running_loop()
        for controller in self.controllers - self.away - {sender_controller}:
            loop.call_soon(controller.on_ll_advertising_pdu, packet)

    def send_ll_control_pdu(self, sender_address, receiver_address, packet):
        sender = self.find_le_controller(sender_address)
        receiver = self.find_le_controller(receiver_address)
        # A link may end at both sides at once.
        if receiver is None or self.away & {sender, receiver}:
            return
        super().send_ll_control_pdu(sender_address, receiver_address, packet)

    def go_away(self, controller):
        self.away.add(controller)
        asyncio.get_running_loop().call_later(SUPERVISION_SECONDS, self.supervise, controller)

    def cut(self, controller):
        # What waits for the next connection event is lost with the link.
        self.waiting = []
        self.supervise(controller)

    def supervise(self, gone):
        for controller in self.controllers:
            for connection in list(controller.le_connections.values()):
                if controller is gone or self.find_le_controller(connection.peer_address) is gone:
                    controller.on_le_disconnected(connection, hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)


class Control:
    """What the guest may ask of the radio."""

    def __init__(self, radio, adapters, peers):
        self.radio = radio
        self.adapters = adapters
        self.peers = peers

    async def serve(self, reader, writer):
        while line := await reader.readline():
            try:
                answer = await asyncio.wait_for(self.obey(line.decode().split()), ANSWER_SECONDS)
            except Exception as error:  # Whatever it is, the story has to learn of it.
                log.exception("control: %s", line)
                answer = f"no: {error!r}"
            log.info("control: %s: %s", line, answer)
            writer.write(f"{answer}\n".encode())
            await writer.drain()

    async def obey(self, words):
        match words:
            case ["away", number]:
                self.radio.go_away(self.adapters[int(number)])
            case ["back", number]:
                self.radio.away.discard(self.adapters[int(number)])
            case ["cut", number]:
                self.radio.cut(self.adapters[int(number)])
            case ["traffic"]:
                return f"ok {self.radio.carried}"
            case ["interval", milliseconds]:
                self.radio.interval = float(milliseconds) / 1000
            case ["links"]:
                return f"ok {sum(len(adapter.le_connections) for adapter in self.adapters) // 2}"
            case [peer, *words] if peer in self.peers:
                return await self.peers[peer].obey(words)
            case _:
                return f"no: {words}"
        return "ok"


async def main():
    radio = Radio()
    adapters = []
    transports = []
    for number in range(int(sys.argv[1])):
        transport = await open_transport(f"unix-server:hci{number}.sock")
        transports.append(transport)
        address = hci.Address(f"F0:F1:F2:00:00:0{number}", hci.Address.PUBLIC_DEVICE_ADDRESS)
        adapters.append(Adapter(f"hci{number}", transport.source, transport.sink, radio, address))
    peers = {}
    if "--peers" in sys.argv:
        # Only here: who has no peers needs no library for them.
        from host import Host
        from phone import Phone

        for name, kind in [("phone", Phone), ("host", Host)]:
            peers[name] = kind(Adapter(name, link=radio))
            await peers[name].start()
    control = await asyncio.start_unix_server(Control(radio, adapters, peers).serve, "control.sock")
    print("ready", flush=True)
    async with control:
        await control.serve_forever()


logging.basicConfig(level="WARNING", format="%(asctime)s %(name)s: %(message)s")
log.setLevel("INFO")
asyncio.run(main())
