"""A web server in a guest: a page, a WebSocket that echoes text, an upload that is measured, and a stream of events. Listens on loopback alone."""
import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"""<!doctype html><title>from the guest</title>
<form method=post action=/upload enctype=multipart/form-data><input type=file name=file></form>"""
ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            return self.websocket()
        if self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: one\n\ndata: two\n\n")
            self.close_connection = True
            return
        self.answer("text/html", PAGE)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Between the part's headers and the boundary behind it.
        boundary = b"\r\n--" + self.headers["Content-Type"].split("boundary=")[1].encode()
        file = body.split(b"\r\n\r\n", 1)[1].split(boundary)[0]
        digest = hashlib.sha256(file).hexdigest()
        self.answer("text/plain", json.dumps({"bytes": len(file), "sha256": digest}).encode())

    def websocket(self):
        key = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + ACCEPT).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
        self.end_headers()
        while True:
            opcode, length = self.rfile.read(2)
            mask = self.rfile.read(4)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length & 0x7F)))
            if opcode != 0x81:
                break
            self.wfile.write(bytes([0x81, len(text)]) + text)
        self.wfile.write(bytes([0x88, 0]))
        self.close_connection = True

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listens", flush=True)
server.serve_forever()
