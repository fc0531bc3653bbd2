"""A phone in Python: pairs with a computer, answers its commands, keeps keys and asks its owner in Python.

Run by test.sh, which builds the library and generates pocketcard_ffi.py.
"""

import asyncio
import hashlib
import hmac
import os
import secrets
import tempfile
import threading
import unittest

import p256
import pocketcard_ffi as ffi

LIMIT = 10
SELECT = bytes.fromhex("00A4040009A0000003080000100000")
VERIFY = bytes.fromhex("0020008008") + b"123456\xff\xff"
# Key 9A, P-256, PIN once, touch always: every use is asked of the owner.
GENERATE = bytes.fromhex("0047009A0BAC09800111AA0102AB010200")
DIGEST = hashlib.sha256(b"what is signed").digest()
SIGN = bytes.fromhex("0087119A267C2482008120") + DIGEST + b"\x00"


async def stubborn(future):
    """Waits for a future whatever is cancelled, as code does that cannot stop."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            pass
    return future.result()


class Keys(ffi.KeyStore):
    """Keys in memory; `trouble` is raised instead of signing, and a `late` future is waited for before."""

    def __init__(self):
        self.keys = {}
        self.points = {}
        self.used = 0
        self.trouble = None
        self.late = None
        self.waiting = asyncio.Event()

    def algorithms(self):
        return [ffi.KeyAlgorithm.ECC_P256]

    async def generate(self, algorithm):
        assert algorithm == ffi.KeyAlgorithm.ECC_P256
        await asyncio.sleep(0)
        handle = secrets.token_bytes(16)
        self.keys[handle], self.points[handle] = p256.generate()
        return ffi.GeneratedKey(handle=handle, public_key=ffi.PublicKey.ECC(self.points[handle]))

    async def sign(self, handle, algorithm, input):
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        if self.late is not None:
            self.waiting.set()
            await stubborn(self.late)
        self.used += 1
        return p256.sign(self.keys[handle], input)

    async def decrypt(self, handle, algorithm, input):
        raise ffi.KeyStoreError.UnsupportedAlgorithm()

    async def agree(self, handle, algorithm, peer_point):
        raise ffi.KeyStoreError.UnsupportedAlgorithm()

    async def delete(self, handle):
        self.keys.pop(handle, None)

    async def handles(self):
        return list(self.keys)


class DeviceKey(ffi.SealingKey):
    """Seals by HMAC with a key in memory: enough to see that what comes back is what was given."""

    def __init__(self):
        self.key = secrets.token_bytes(32)

    def pad(self, context, nonce, length):
        pad = b""
        while len(pad) < length:
            pad += hmac.digest(self.key, b"pad" + context + nonce + bytes([len(pad) // 32]), "sha256")
        return pad[:length]

    async def seal(self, context, plain):
        nonce = secrets.token_bytes(16)
        body = nonce + bytes(a ^ b for a, b in zip(plain, self.pad(context, nonce, len(plain))))
        return hmac.digest(self.key, b"tag" + context + body, "sha256") + body

    async def unseal(self, context, sealed):
        tag, body = sealed[:32], sealed[32:]
        if not hmac.compare_digest(tag, hmac.digest(self.key, b"tag" + context + body, "sha256")):
            raise ffi.SealingError.Rejected()
        nonce, body = body[:16], body[16:]
        return bytes(a ^ b for a, b in zip(body, self.pad(context, nonce, len(body))))


class Owner(ffi.Approver):
    """Decides as the test says; a `Future` as decision waits for it."""

    def __init__(self):
        self.decision = ffi.ApprovalDecision.APPROVED
        self.asked = []
        self.cancelled = asyncio.Event()
        self.waiting = asyncio.Event()
        self.pin = ffi.PinAnswer.UNANSWERED()
        self.entries = []
        self.owner = None
        self.checks = []

    async def decided(self, decision):
        if isinstance(decision, Exception):
            raise decision
        if isinstance(decision, asyncio.Future):
            self.waiting.set()
            try:
                return await asyncio.shield(decision)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return decision

    async def enter_pin(self, request):
        self.entries.append(request)
        return await self.decided(self.pin)

    def has_owner_verification(self):
        return self.owner is not None

    async def verify_owner(self, check):
        self.checks.append(check)
        return await self.decided(self.owner)

    async def approve(self, request):
        self.asked.append(request)
        return await self.decided(self.decision)


class Wire(ffi.Transport):
    """Carries messages between the phone, whose thread calls `send`, and the computer, which lives in the loop."""

    def __init__(self, test, loop):
        self.test, self.loop = test, loop
        self.closed = asyncio.Event()
        self.fails = False

    def send(self, message):
        if self.fails:
            raise RuntimeError("the radio caught fire")
        self.loop.call_soon_threadsafe(self.test.arrived, self, message)
        return ffi.SendOutcome.SENT

    def disconnect(self):
        self.loop.call_soon_threadsafe(self.closed.set)


class PhoneTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        loop = asyncio.get_running_loop()
        ffi.uniffi_set_event_loop(loop)
        # UniFFI 0.32 cancels with `call_soon` from the phone's thread. A loop in debug mode refuses that, as loops of this
        # class are; others take it, but do not wake up for it.
        loop.set_debug(False)
        self.folder = tempfile.TemporaryDirectory()
        os.chmod(self.folder.name, 0o700)
        self.keys, self.device, self.owner = Keys(), DeviceKey(), Owner()
        self.host = ffi.TestHost("Python's computer")
        self.seen = asyncio.Queue()
        await self.start()

    async def asyncTearDown(self):
        await self.within(self.phone.stop())
        self.folder.cleanup()

    async def start(self, test_card=True):
        settings = ffi.PhoneSettings(
            name="Python's phone", software="test 1", state_folder=self.folder.name, test_card=test_card
        )
        self.phone = await self.within(ffi.Phone.start(settings, self.keys, self.device, self.owner))
        self.events = self.phone.events()

    async def within(self, awaitable):
        return await asyncio.wait_for(awaitable, LIMIT)

    def connect(self):
        self.wire = Wire(self, asyncio.get_running_loop())
        self.link = self.phone.link_up(self.wire)
        self.flush()

    def arrived(self, wire, message):
        if wire is self.wire:
            self.host.receive(message)
            self.flush()

    def flush(self):
        while (event := self.host.next_event()) is not None:
            self.seen.put_nowait(event)
        while (message := self.host.next_message()) is not None:
            try:
                self.link.try_push_message(message)
            except ffi.LinkError.Closed:
                return

    async def host_event(self, kind):
        while True:
            event = await self.within(self.seen.get())
            if isinstance(event, kind):
                return event

    async def phone_event(self, kind):
        while True:
            event = await self.within(self.events.next())
            assert event is not None, "the phone has stopped"
            if isinstance(event, kind):
                return event

    async def pair(self):
        text = self.host.offer()
        self.connect()
        self.assertEqual(await self.within(self.phone.scan(text)), "Python's computer")
        shown = await self.host_event(ffi.TestHostEvent.DIGITS)
        digits = await self.phone_event(ffi.PhoneEvent.PAIRING_DIGITS)
        self.assertEqual((digits.digits, digits.host_name), (shown.digits, "Python's computer"))
        self.assertEqual(shown.phone_name, "Python's phone")
        self.assertRegex(digits.digits, r"^\d{6}$")
        await self.within(self.phone.confirm_pairing(True))
        self.host.confirm(True)
        self.flush()
        await self.host_event(ffi.TestHostEvent.PAIRING_DONE)
        return (await self.phone_event(ffi.PhoneEvent.PAIRED)).host_id

    async def open(self):
        self.host.connect()
        self.connect()
        opened = await self.host_event(ffi.TestHostEvent.OPENED)
        self.assertEqual(opened.atr[0] & 0xF3, 0x33, "an answer to reset begins with 3B or 3F")

    async def transmit(self, command):
        request = self.host.transmit(command)
        self.flush()
        while True:
            answer = await self.host_event(ffi.TestHostEvent.RESPONSE)
            if answer.request_id == request:
                return answer.response

    async def restart_with_an_owners_card(self):
        await self.within(self.phone.stop())
        self.folder.cleanup()
        self.folder = tempfile.TemporaryDirectory()
        os.chmod(self.folder.name, 0o700)
        await self.start(test_card=False)

    async def enter_pin(self):
        """Has the owner enter the PIN, and gives the status word."""
        request = self.host.enter_pin()
        self.flush()
        while True:
            answer = await self.host_event(ffi.TestHostEvent.RESPONSE)
            if answer.request_id == request:
                return answer.response.hex()

    async def reset_while_asking(self):
        """Resets the card, and waits until the question to the owner has gone away."""
        self.host.reset()
        self.flush()
        await self.phone_event(ffi.PhoneEvent.COMMAND_CANCELLED)
        # See asyncSetUp: the coroutine notices when the loop next has something to do. The phone has long gone on.
        async with asyncio.timeout(LIMIT):
            while not self.owner.cancelled.is_set():
                await asyncio.sleep(0.01)

    async def with_key(self):
        """Pairs, makes a key on the phone, connects and verifies the PIN."""
        host_id = await self.pair()
        made = await self.within(self.phone.local_transmit(GENERATE))
        self.assertEqual(made[-2:], b"\x90\x00", made.hex())
        await self.open()
        self.assertEqual((await self.transmit(SELECT))[-2:], b"\x90\x00")
        self.assertEqual(await self.transmit(VERIFY), b"\x90\x00")
        return host_id

    async def assert_signs(self):
        answer = await self.transmit(SIGN)
        self.assertEqual(answer[-2:], b"\x90\x00", answer.hex())
        self.assertEqual((answer[0], answer[2]), (0x7C, 0x82))
        (point,) = self.keys.points.values()
        self.assertTrue(p256.verify(point, DIGEST, answer[4:-2]))

    async def test_pairs_and_answers(self):
        host_id = await self.pair()
        await self.open()
        event = await self.phone_event(ffi.PhoneEvent.CONNECTED)
        self.assertEqual((event.host_id, event.name), (host_id, "Python's computer"))
        self.assertTrue(self.link.is_authenticated())
        self.assertEqual((await self.transmit(SELECT))[-2:], b"\x90\x00")
        self.assertEqual(await self.transmit(b"\x00\xee\x00\x00"), b"\x6d\x00")
        (host,) = await self.within(self.phone.hosts())
        self.assertEqual((host.id, host.name, host.connected), (host_id, "Python's computer", True))
        await self.within(self.phone.rename(host_id, "Desk"))
        self.assertEqual((await self.within(self.phone.hosts()))[0].name, "Desk")

    async def test_pairs_by_comparing_digits(self):
        self.host.compare()
        await self.within(self.phone.compare())
        self.connect()
        shown = await self.host_event(ffi.TestHostEvent.DIGITS)
        digits = await self.phone_event(ffi.PhoneEvent.PAIRING_DIGITS)
        self.assertEqual(digits.digits, shown.digits)
        await self.within(self.phone.confirm_pairing(False))
        await self.host_event(ffi.TestHostEvent.CLOSED)
        await self.phone_event(ffi.PhoneEvent.PAIRING_FAILED)
        self.assertEqual(await self.within(self.phone.hosts()), [])

    async def test_advertises_for_hosts_that_are_away(self):
        advertisements = self.phone.advertise(1_000_000_000)
        self.assertEqual(await self.within(advertisements.next()), [])
        await self.within(self.phone.compare())
        self.assertEqual(await self.within(advertisements.next()), ["b7d30020-6c1e-4f55-9a0d-1c5e8f2a7b40"])
        self.phone.cancel_pairing()
        self.assertEqual(await self.within(advertisements.next()), [])
        later = self.phone.advertise(1_000_000_900)
        self.assertEqual(await self.within(later.next()), [])
        self.assertIsNone(await self.within(advertisements.next()))

    async def test_signs_with_a_key_in_python_if_the_owner_agrees(self):
        host_id = await self.with_key()
        await self.assert_signs()
        (request,) = self.owner.asked
        self.assertEqual((request.host_id, request.host_name, request.key), (host_id, "Python's computer", 0x9A))
        self.assertEqual(request.purpose, ffi.ApprovalPurpose.SIGN)
        self.assertEqual(len(request.input_digest), 32)

        self.owner.decision = ffi.ApprovalDecision.DENIED
        self.assertEqual(await self.transmit(SIGN), b"\x69\x82")
        self.assertEqual(self.keys.used, 1, "a denied signature is not made")
        self.owner.decision = ffi.ApprovalDecision.APPROVED
        self.assertEqual(await self.transmit(SIGN), b"\x69\x82", "one no is enough for a program that asks again at once")
        self.assertEqual(len(self.owner.asked), 2)
        self.phone.owner_present()
        await self.assert_signs()

    async def test_errors_of_python_are_answers_of_the_card(self):
        await self.with_key()
        troubles = [
            (ffi.KeyStoreError.Refused(), "6985"),
            (ffi.KeyStoreError.Unusable(), "6984"),
            (RuntimeError("a bug in the app"), "6f00"),
        ]
        for self.keys.trouble, status in troubles:
            self.assertEqual((await self.transmit(SIGN)).hex(), status)
        self.keys.trouble = None
        await self.assert_signs()
        for self.owner.decision in [RuntimeError("a bug in the app"), ffi.ApproverError.Failed()]:
            self.assertEqual((await self.transmit(SIGN)).hex(), "6985")
            # What was just refused is not asked again, unless the owner has come.
            self.phone.owner_present()
        self.owner.decision = ffi.ApprovalDecision.APPROVED
        await self.assert_signs()

    async def test_a_reset_takes_the_question_back(self):
        await self.with_key()
        late = asyncio.get_running_loop().create_future()
        self.owner.decision = late
        self.host.transmit(SIGN)
        self.flush()
        await self.within(self.owner.waiting.wait())
        await self.reset_while_asking()
        late.set_result(ffi.ApprovalDecision.APPROVED)
        self.owner.decision = ffi.ApprovalDecision.APPROVED
        self.assertEqual((await self.transmit(SIGN))[-2:], b"\x69\x82", "the reset took the PIN's proof away")
        self.assertEqual(self.keys.used, 0)
        self.assertEqual(await self.transmit(VERIFY), b"\x90\x00")
        await self.assert_signs()

    async def test_a_signature_that_comes_late_is_nobodys(self):
        await self.with_key()
        late = self.keys.late = asyncio.get_running_loop().create_future()
        first = self.host.transmit(SIGN)
        self.flush()
        await self.within(self.keys.waiting.wait())
        self.host.reset()
        self.flush()
        await self.phone_event(ffi.PhoneEvent.COMMAND_CANCELLED)
        self.keys.late = None
        # The phone does not wait for it.
        self.assertEqual(await self.transmit(VERIFY), b"\x90\x00")
        self.assertEqual(self.keys.used, 0)
        late.set_result(None)
        second = self.host.transmit(SIGN)
        self.flush()
        answer = await self.host_event(ffi.TestHostEvent.RESPONSE)
        self.assertNotEqual(first, second)
        self.assertEqual(answer.request_id, second)
        self.assertEqual(self.keys.used, 2, "both were made, one was given away")
        await self.assert_signs()

    async def test_a_cancelled_wait_loses_no_event(self):
        for _ in range(20):
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(self.events.next(), 0.005)
        self.phone.lock()
        event = await self.phone_event(ffi.PhoneEvent.CARD_LOCKED)
        self.assertTrue(event.locked)
        self.phone.unlock()
        event = await self.phone_event(ffi.PhoneEvent.CARD_LOCKED)
        self.assertFalse(event.locked)

    async def test_errors_are_typed(self):
        with self.assertRaises(ffi.ScanError.Text):
            await self.within(self.phone.scan("https://example.org"))
        with self.assertRaises(ffi.PhoneError.UnknownHost):
            await self.within(self.phone.forget("00" * 32))
        with self.assertRaises(ffi.PhoneError.UnknownHost):
            await self.within(self.phone.forget("not a host"))
        with self.assertRaises(ffi.PhoneError.NoPairing):
            await self.within(self.phone.confirm_pairing(True))
        with self.assertRaises(ffi.PhoneError.NotACommand):
            await self.within(self.phone.local_transmit(b"\x00"))
        with self.assertRaises(ffi.PhoneError.PinRefused):
            await self.within(self.phone.choose_pin("123456789", "12345678"))
        settings = ffi.PhoneSettings(name="x", software="x", state_folder=self.folder.name, test_card=True)
        with self.assertRaises(ffi.StartError.InUse):
            await self.within(ffi.Phone.start(settings, self.keys, self.device, self.owner))
        await self.within(self.phone.stop())
        with self.assertRaises(ffi.PhoneError.Stopped):
            await self.within(self.phone.hosts())
        with self.assertRaises(ffi.ScanError.Stopped):
            await self.within(self.phone.compare())
        while await self.within(self.events.next()) is not None:
            pass

    async def test_a_forgotten_host_is_cut_off(self):
        host_id = await self.pair()
        await self.open()
        await self.within(self.phone.forget(host_id))
        await self.within(self.wire.closed.wait())
        await self.host_event(ffi.TestHostEvent.CLOSED)
        await self.phone_event(ffi.PhoneEvent.FORGOTTEN)
        # The phone closes the transport first, and then lets the link go.
        async with asyncio.timeout(LIMIT):
            while not self.link.is_closed():
                await asyncio.sleep(0.001)
        with self.assertRaises(ffi.LinkError.Closed):
            await self.within(self.link.push_message(b"\x02"))

    async def test_a_transport_that_fails_is_a_lost_link(self):
        await self.pair()
        await self.open()
        await self.phone_event(ffi.PhoneEvent.CONNECTED)
        self.wire.fails = True
        self.host.transmit(SELECT)
        self.flush()
        await self.phone_event(ffi.PhoneEvent.DISCONNECTED)
        await self.open()
        self.assertEqual((await self.transmit(SELECT))[-2:], b"\x90\x00")
        self.link.link_down()
        await self.phone_event(ffi.PhoneEvent.DISCONNECTED)

    async def test_is_the_same_phone_after_a_restart(self):
        await self.with_key()
        await self.within(self.phone.stop())
        await self.start()
        await self.open()
        self.assertEqual((await self.transmit(SELECT))[-2:], b"\x90\x00")
        self.assertEqual(await self.transmit(VERIFY), b"\x90\x00")
        await self.assert_signs()
        await self.within(self.phone.stop())
        self.device.key = secrets.token_bytes(32)
        with self.assertRaises(ffi.StartError.Sealing):
            await self.start()

    async def test_the_pin_is_entered_in_python(self):
        host_id = await self.pair()
        await self.open()
        self.owner.pin = ffi.PinAnswer.ENTERED(current="123456", new=None)
        self.assertEqual(await self.enter_pin(), "9000")
        (request,) = self.owner.entries
        self.assertEqual((request.host_id, request.purpose, request.tries_left), (host_id, ffi.PinPurpose.VERIFY, 3))
        table = [
            (ffi.PinAnswer.ENTERED(current="999999", new=None), "63c2"),
            (ffi.PinAnswer.ENTERED(current="12345a", new=None), "6403"),
            (ffi.PinAnswer.UNANSWERED(), "6400"),
            (RuntimeError("a bug in the app"), "6400"),
            (ffi.ApproverError.Failed(), "6400"),
            (ffi.PinAnswer.CANCELLED(), "6401"),
            (ffi.PinAnswer.ENTERED(current="123456", new=None), "9000"),
        ]
        for self.owner.pin, status in table:
            self.assertEqual(await self.enter_pin(), status)

    async def test_a_pin_that_is_entered_late_is_nobodys(self):
        await self.pair()
        await self.open()
        late = self.owner.pin = asyncio.get_running_loop().create_future()
        self.host.enter_pin()
        self.flush()
        await self.within(self.owner.waiting.wait())
        await self.reset_while_asking()
        late.set_result(ffi.PinAnswer.ENTERED(current="123456", new=None))
        self.assertEqual((await self.transmit(VERIFY[:4])).hex(), "63c3", "nothing is verified, and no try is gone")
        self.owner.pin = ffi.PinAnswer.ENTERED(current="123456", new=None)
        self.assertEqual(await self.enter_pin(), "9000")

    async def test_a_pin_entry_that_ignores_its_cancellation_is_nobodys(self):
        await self.pair()
        await self.open()
        gate = asyncio.get_running_loop().create_future()
        enter_pin = self.owner.enter_pin

        async def late(request):
            self.owner.waiting.set()
            return await stubborn(gate)

        self.owner.enter_pin = late
        self.host.enter_pin()
        self.flush()
        await self.within(self.owner.waiting.wait())
        self.host.reset()
        self.flush()
        await self.phone_event(ffi.PhoneEvent.COMMAND_CANCELLED)
        gate.set_result(ffi.PinAnswer.ENTERED(current="999999", new=None))
        self.owner.enter_pin = enter_pin
        self.assertEqual((await self.transmit(VERIFY[:4])).hex(), "63c3", "the late PIN was not compared")

    async def test_python_knows_its_owner(self):
        self.owner.owner = ffi.OwnerDecision.MATCHED
        await self.within(self.phone.stop())
        await self.start()
        await self.pair()
        await self.open()
        verify = bytes.fromhex("00200096020300")
        for self.owner.owner, ends in [
            (RuntimeError("a bug in the app"), "6985"),
            (ffi.OwnerDecision.UNAVAILABLE, "6985"),
            (ffi.OwnerDecision.MATCHED, "9000"),
        ]:
            answer = (await self.transmit(verify)).hex()
            self.assertTrue(answer.endswith(ends), answer)
        self.assertEqual(len(self.owner.checks), 3)

    async def test_permissions_are_taken_back_and_given_again(self):
        host_id = await self.with_key()
        everything = (await self.within(self.phone.hosts()))[0].permissions
        self.assertTrue(everything.administer and 0x9A in everything.keys)
        late = self.owner.decision = asyncio.get_running_loop().create_future()
        request = self.host.transmit(SIGN)
        self.flush()
        await self.within(self.owner.waiting.wait())
        taken = ffi.Permissions(keys=bytes([0x9C]), typed_pin=False, administer=False, connect_unattended=True)
        await self.within(self.phone.set_permissions(host_id, taken))
        refused = await self.host_event(ffi.TestHostEvent.REFUSED)
        self.assertEqual((refused.request_id, refused.reason), (request, "KEY_NOT_PERMITTED"))
        self.assertEqual((await self.host_event(ffi.TestHostEvent.RESPONSE)).response.hex(), "6982")
        self.assertEqual((await self.host_event(ffi.TestHostEvent.PERMITTED)).permissions, taken)
        late.set_result(ffi.ApprovalDecision.APPROVED)
        self.assertEqual((await self.transmit(VERIFY)).hex(), "6982")
        self.assertEqual(self.keys.used, 0)
        self.assertEqual((await self.phone_event(ffi.PhoneEvent.PERMISSIONS_CHANGED)).permissions, taken)
        self.assertEqual((await self.within(self.phone.hosts()))[0].permissions, taken)
        await self.within(self.phone.set_permissions(host_id, everything))
        self.owner.decision = ffi.ApprovalDecision.APPROVED
        self.assertEqual(await self.transmit(VERIFY), b"\x90\x00")
        await self.assert_signs()
        with self.assertRaises(ffi.PhoneError.UnknownKey):
            bad = ffi.Permissions(keys=bytes([0x9B]), typed_pin=True, administer=False, connect_unattended=True)
            await self.within(self.phone.set_permissions(host_id, bad))
        self.assertFalse(ffi.permissions_of_a_new_host().administer)

    async def test_the_owner_confirms_a_connection(self):
        host_id = await self.pair()
        everything = (await self.within(self.phone.hosts()))[0].permissions
        everything.connect_unattended = False
        await self.within(self.phone.set_permissions(host_id, everything))
        self.owner.decision = RuntimeError("a bug in the app")
        await self.open()
        decided = await self.phone_event(ffi.PhoneEvent.CONNECTION_DECIDED)
        self.assertTrue(decided.refused)
        self.assertEqual(self.owner.asked[-1].purpose, ffi.ApprovalPurpose.CONNECT)
        self.assertEqual(await self.transmit(VERIFY), b"\x69\x85")
        await self.within(self.phone.allow_connection(host_id))
        self.assertEqual(await self.transmit(VERIFY), b"\x90\x00")

    async def test_an_owner_enrols_the_phone_and_reads_the_log(self):
        await self.restart_with_an_owners_card()
        self.events = self.phone.events()
        names = ffi.CertificateNames(common_name="Ann", organization=None, principal="ann@EXAMPLE.ORG", email=None)
        key = ffi.NewKey(
            slot=ffi.Slot.AUTHENTICATION, algorithm=ffi.KeyAlgorithm.ECC_P256, pin_policy=None, touch_policy=None
        )
        with self.assertRaises(ffi.EnrolmentError.PinBlocked):
            await self.within(self.phone.make_keys("246810", [key], names))
        await self.within(self.phone.choose_pin("246810", "87654321"))
        with self.assertRaises(ffi.EnrolmentError.WrongPin) as wrong:
            await self.within(self.phone.make_keys("999999", [key], names))
        self.assertEqual(wrong.exception.tries_left, 2)
        with self.assertRaises(ffi.EnrolmentError.Name):
            bad = ffi.CertificateNames(common_name=" ", organization=None, principal=None, email=None)
            await self.within(self.phone.make_keys("246810", [key], bad))
        await self.within(self.phone.make_keys("246810", [key], names))
        progress = await self.phone_event(ffi.PhoneEvent.KEY_PROGRESS)
        self.assertEqual((progress.slot, progress.number, progress.of), (ffi.Slot.AUTHENTICATION, 1, 1))
        content = (await self.within(self.phone.slots()))[0]
        self.assertEqual(content.algorithm, ffi.KeyAlgorithm.ECC_P256)
        self.assertIn(b"ann@EXAMPLE.ORG", content.certificate)
        request = await self.within(self.phone.request_certificate("246810", ffi.Slot.AUTHENTICATION, names))
        self.assertTrue(request.pem.startswith("-----BEGIN CERTIFICATE REQUEST-----"))
        await self.within(self.phone.import_certificate(ffi.Slot.AUTHENTICATION, content.certificate))
        with self.assertRaises(ffi.EnrolmentError.NotACertificate):
            await self.within(self.phone.import_certificate(ffi.Slot.AUTHENTICATION, b"nonsense"))
        with self.assertRaises(ffi.EnrolmentError.NoKey):
            await self.within(self.phone.import_certificate(ffi.Slot.SIGNATURE, content.certificate))
        with self.assertRaises(ffi.PhoneError.WrongPin):
            await self.within(self.phone.change_pin("999999", "135790"))
        await self.within(self.phone.change_pin("246810", "135790"))
        await self.within(self.phone.change_puk("87654321", "12345678"))
        await self.within(self.phone.factory_reset())
        self.assertTrue(all(content.algorithm is None for content in await self.within(self.phone.slots())))
        # The key store is told when the card has forgotten them.
        async with asyncio.timeout(LIMIT):
            while self.keys.keys:
                await asyncio.sleep(0.001)
        log = await self.within(self.phone.log())
        made = [entry for entry in log if entry.operation == "make_key"]
        self.assertEqual([(entry.host_id, entry.key, entry.result) for entry in made], [(None, 0x9A, "done")])
        self.assertIn(("verify_pin", "wrong_pin", 2), [(e.operation, e.result, e.tries_left) for e in log])
        self.assertEqual(log[-1].operation, "make_new")

    async def test_python_is_called_from_the_loop_it_named(self):
        here = threading.get_ident()
        there = []
        approve = self.owner.approve

        async def noting(request):
            there.append(threading.get_ident())
            return await approve(request)

        self.owner.approve = noting
        await self.with_key()
        await self.assert_signs()
        self.assertEqual(there, [here])


if __name__ == "__main__":
    unittest.main(verbosity=2)
