"""Pulls the plug: with this folder on PYTHONPATH a Python process reaches nothing but its own machine.

What is tried is refused, and written to the file named in LASSI_CALLS.
"""

import os
import socket
import sys

_HERE = {"127.0.0.1", "::1", "localhost", "", None, socket.gethostname()}


def _refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        connection, address = arguments
        # a connected datagram socket has sent nothing yet: distributed asks so for the machine's own address
        quiet = event == "socket.connect" and connection.type == socket.SOCK_DGRAM
        target = None if quiet or not isinstance(address, tuple) else address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        target = arguments[0]
    else:
        return
    target = target.decode() if isinstance(target, bytes) else target
    if target not in _HERE:
        with open(os.environ["LASSI_CALLS"], "a") as file:
            file.write(f"{event} {target}\n")
        raise OSError(f"the network is unplugged: {event} {target}")


sys.addaudithook(_refuse)
