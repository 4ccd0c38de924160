#!/usr/bin/env python3
"""Stands in for Django and its chat server, to try the example without either.

    python3 server.py                    both
    python3 server.py chat               127.0.0.1:5002, needs the package websockets (Debian: python3-websockets)
    python3 server.py web                127.0.0.1:8000, pages and /session/
    python3 server.py token [user] [seconds]    prints a token as Django's JWT apps make them

The chat server takes its path apart as django-private-chat does: split("/").
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SESSIONS = {"k3y": "bob", "al1ce": "alice"}
FOLDER = Path(__file__).parent


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signature(text):
    secret = (FOLDER / "chat.key").read_bytes().rstrip(b"\r\n")
    return b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())


def token(user, seconds):
    now = int(time.time())
    claims = {"user_id": len(user), "username": user, "exp": now + seconds, "email": user + "@example.gov", "orig_iat": now}
    text = b64(b'{"typ":"JWT","alg":"HS256"}') + "." + b64(json.dumps(claims).encode())
    return text + "." + signature(text)


def user_of_token(t):
    text, _, sign = t.rpartition(".")
    if not hmac.compare_digest(sign, signature(text)):
        return None
    payload = text.partition(".")[2]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["username"]


class Web(BaseHTTPRequestHandler):
    """Django's pages, and the endpoint that knows its sessions."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print("web", self.path.split("?")[0], flush=True)
        if self.path == "/session/":
            asked = self.headers.get("X-Forwarded-Uri", "").split("?")[0].split("/")  # /ws/<session>/<user>
            self.answer(204 if len(asked) > 2 and asked[2] in SESSIONS else 401, b"")
        elif self.path == "/":
            self.answer(200, b"Django's first page\n")
        else:
            self.answer(404, b"Django has no such page\n")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("X-Node", "web1")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


clients = {}  # (who, with whom) → connection


async def chat(connection, path=None):
    path = path or getattr(connection, "path", None) or connection.request.path
    url = urlsplit(path)
    query = parse_qs(url.query)
    if "token" in query:
        who, opponent = user_of_token(query["token"][0]), query.get("opponent", [""])[0]
    else:
        parts = url.path.split("/")
        who, opponent = SESSIONS.get(parts[1]), parts[2] if len(parts) > 2 else ""
    if who is None:
        await connection.close(4001, "who are you?")
        return
    import websockets

    clients[who, opponent] = connection
    try:
        await connection.send(json.dumps({"type": "hello", "path": path, "user": who, "opponent": opponent}))
        async for message in connection:
            packet = json.dumps({"type": "message", "from": who, "message": json.loads(message)["message"]})
            for c in (connection, clients.get((opponent, who))):
                if c is not None:
                    await c.send(packet)
    except websockets.ConnectionClosed:
        pass
    finally:
        if clients.get((who, opponent)) is connection:
            del clients[who, opponent]


async def heard(*_):
    print("chat heard a handshake", flush=True)


async def serve_chat():
    import websockets

    async with websockets.serve(chat, "127.0.0.1", 5002, process_request=heard):
        print("chat on 127.0.0.1:5002", flush=True)
        await asyncio.Future()


def main(what="", user="bob", seconds="3600"):
    if what == "token":
        print(token(user, int(seconds)))
        return
    if what in ("", "web"):
        server = ThreadingHTTPServer(("127.0.0.1", 8000), Web)
        print("web on 127.0.0.1:8000", flush=True)
        if what == "web":
            server.serve_forever()
        threading.Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(serve_chat())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
