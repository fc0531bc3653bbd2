"""Fragments and credits of SPEC.md, section 4, written from the specification alone: a second opinion on it."""

import collections

START, END, CREDIT = 0x01, 0x02, 0x80
WINDOW = 4
CREDIT_AFTER = 2
LONGEST_MESSAGE = 65_536


class Breach(Exception):
    """The other side broke the rules; the link has to end."""


class Sender:
    """Cuts messages into fragments and keeps the window."""

    def __init__(self, size):
        self.size = size
        self.waiting = collections.deque()
        self.message = 0
        # Both in all, never modulo anything.
        self.sent = 0
        self.credited = 0

    def push(self, message):
        message = bytes(message)
        rest, index = message, 0
        while index == 0 or rest:
            head = len(message).to_bytes(4, "big") if index == 0 else b""
            room = self.size - 4 - len(head)
            payload, rest = rest[:room], rest[room:]
            flags = (START if index == 0 else 0) | (0 if rest else END)
            self.waiting.append(bytes([flags, self.message]) + index.to_bytes(2, "big") + head + payload)
            index += 1
        self.message = (self.message + 1) % 256

    def credit(self, count):
        gained = (count - self.credited) % 65_536
        if gained <= self.sent - self.credited:
            self.credited += gained
        elif 65_536 - gained > WINDOW:
            raise Breach("a credit for what was not sent")
        # Else it was overtaken by a later one.

    def ready(self):
        """The fragments that may leave now."""
        while self.waiting and self.sent - self.credited < WINDOW:
            self.sent += 1
            yield self.waiting.popleft()


class Receiver:
    """Puts fragments together, in whatever order they come."""

    def __init__(self):
        self.ahead = {}
        self.expected = (0, 0)
        self.message = b""
        self.length = 0
        self.taken = 0
        self.credited = 0

    def take(self, fragment):
        """The messages that are complete with this fragment."""
        if len(fragment) < 5:
            raise Breach("a fragment without payload")
        key = (fragment[1], int.from_bytes(fragment[2:4], "big"))
        if key in self.ahead or len(self.ahead) >= WINDOW:
            raise Breach("a fragment that came before, or is too far ahead")
        self.ahead[key] = fragment
        while (fragment := self.ahead.pop(self.expected, None)) is not None:
            yield from self.next_in_order(fragment)

    def next_in_order(self, fragment):
        flags, index = fragment[0], self.expected[1]
        if flags & ~(START | END) or bool(flags & START) != (index == 0):
            raise Breach("flags that do not fit")
        payload = fragment[4:]
        if flags & START:
            self.length, payload = int.from_bytes(payload[:4], "big"), payload[4:]
            if not 0 < self.length <= LONGEST_MESSAGE:
                raise Breach("a length that no message has")
        self.message += payload
        self.taken += 1
        self.expected = (self.expected[0], index + 1)
        if bool(flags & END) != (len(self.message) == self.length) or len(self.message) > self.length:
            raise Breach("a message that is not as long as it said")
        if flags & END:
            yield self.message
            self.message, self.expected = b"", ((self.expected[0] + 1) % 256, 0)

    def credit(self):
        """A credit, if one is due."""
        if self.taken - self.credited < CREDIT_AFTER:
            return None
        self.credited = self.taken
        return bytes([CREDIT]) + (self.taken % 65_536).to_bytes(2, "big")
