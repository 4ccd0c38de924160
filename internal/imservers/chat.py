"""A chat server for tests, as Django sites have them beside Django: Python's
websockets on 127.0.0.1, which takes a client's address apart by its slashes.

The arguments are its id, the port, the session key that it knows and the secret
of its tokens (HS256). A client is at /<session key>/<user>, or at /?token=… whose
claim "username" is the user. Every message is answered with what the server saw;
one that begins with "@user " goes to that user instead.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
import urllib.parse

import websockets

node, port, session_key, secret = sys.argv[1:]
clients = {}


def claims_of(token):
    """The claims of a token, or None for one that is not good."""
    try:
        head, body, signature = token.split(".")
        signed = base64.urlsafe_b64decode(signature + "==")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        good = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
        return claims if hmac.compare_digest(good, signed) and claims["exp"] > time.time() else None
    except (KeyError, ValueError):
        return None


def client_of(address):
    """Session, user, query and whether they may come in."""
    path, _, query = address.partition("?")
    if query:
        claims = claims_of(urllib.parse.parse_qs(query).get("token", [""])[0])
        return "", (claims or {}).get("username", ""), query, path == "/" and claims is not None
    parts = path.split("/")
    session, user = parts[1], "/".join(parts[2:])
    return session, user, query, session == session_key and user != ""


async def serve(socket):
    session, user, query, welcome = client_of(socket.path)
    if not welcome:
        await socket.close(4401, "log in first")
        return
    clients[user] = socket
    async for message in socket:
        if message.startswith("@"):
            to, _, text = message[1:].partition(" ")
            await clients[to].send(json.dumps({"from": user, "text": text}))
        else:
            saw = {"node": node, "session": session, "user": user, "query": query, "echo": message}
            await socket.send(json.dumps(saw))


async def main():
    async with websockets.serve(serve, "127.0.0.1", int(port)):
        print("chat.py: serving", flush=True)
        await asyncio.Future()


asyncio.run(main())
