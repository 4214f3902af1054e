"""A guest's network card on tap0, by hand: prints what it may do, who answers as the gateway, and what two SYN packets get.

usage: tap-guest.py HOST PORT
"""
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
TAP, NO_PI, VNET_HDR = 0x0002, 0x1000, 0x4000
MAC = b"\x02\0\0\0\0\1"
OWN, GATEWAY = bytes([10, 0, 2, 15]), bytes([10, 0, 2, 2])

tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", TAP | NO_PI | VNET_HDR))
status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
print("capabilities", status["CapEff"].strip(), status["CapBnd"].strip())


def send(frame):
    os.write(tap, bytes(10) + frame)


def receive(matches, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([tap], [], [], end - time.monotonic())[0]:
            frame = os.read(tap, 70000)[10:]
            if matches(frame):
                return frame
    return None


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~total & 0xFFFF)


def syn(to, port, source):
    tcp = struct.pack("!HHIIBBHHH", source, port, 1, 0, 0x50, 2, 64000, 0, 0)
    tcp = tcp[:16] + checksum(OWN + to + struct.pack("!BBH", 0, 6, 20) + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, OWN, to)
    return ip[:10] + checksum(ip) + ip[12:] + tcp


# Asked again as every guest does: a tap takes nothing in for a moment after it was opened.
answer = None
for _ in range(20):
    send(b"\xff" * 6 + MAC + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + MAC + OWN + bytes(6) + GATEWAY)
    answer = receive(lambda frame: frame[12:14] == b"\x08\x06", 1)
    if answer:
        break
print("gateway", ".".join(map(str, answer[28:32])) if answer else None)
gateway = answer[22:28]
host, port = bytes(map(int, sys.argv[1].split("."))), int(sys.argv[2])


def answered(source):
    return lambda frame: frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[36:38] == struct.pack("!H", source)


# The forbidden one first: an answer to it would come before that to the other.
send(gateway + MAC + b"\x08\0" + syn(bytes([127, 0, 0, 1]), port, 5000))
send(gateway + MAC + b"\x08\0" + syn(host, port, 5001))
loopback = []
seen = receive(lambda frame: (answered(5000)(frame) and loopback.append(frame)) or answered(5001)(frame), 20)
RST = 0x04
print("loopback", "silent" if not loopback else "refused" if loopback[0][47] & RST else "open")
print("host", bool(seen and seen[47] & 0x12 == 0x12))
