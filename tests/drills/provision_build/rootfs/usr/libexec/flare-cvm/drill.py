"""A root shell for failure drills: each connection sends one line, a command for bash, and gets its output.

`extend N` extends TPM register N, which nothing else in the guest can do from the shell. `agent JSON` asks cvm-agent:
a token is longer than an argument may be.
"""

import socket
import socketserver
import struct
import subprocess


def extend(register: int) -> bytes:
    # TPM2_PCR_Extend (TPM 2.0 part 3, 22.2): one password session without a password, one SHA-256 digest.
    session = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
    body = struct.pack(">I", register) + session + struct.pack(">IH", 1, 0x000B) + b"drill".ljust(32, b"\0")
    with open("/dev/tpmrm0", "r+b", buffering=0) as tpm:
        tpm.write(struct.pack(">HII", 0x8002, 10 + len(body), 0x182) + body)
        return b"extended" if tpm.read(4096)[6:10] == b"\0\0\0\0" else b"refused"


def agent(request: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(300)
        connection.connect("/run/flare-cvm/agent.sock")
        connection.sendall(request.encode() + b"\n")
        with connection.makefile("rb") as answer:
            return answer.read()


class Drill(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline(3 << 20).decode().strip()
        verb, _, argument = line.partition(" ")
        if verb == "extend":
            self.wfile.write(extend(int(argument)))
            return
        if verb == "agent":
            self.wfile.write(agent(argument))
            return
        shell = subprocess.run(["/usr/bin/bash", "-c", line], capture_output=True, timeout=300, check=False)
        self.wfile.write(shell.stdout + shell.stderr)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("0.0.0.0", 9999), Drill).serve_forever()
