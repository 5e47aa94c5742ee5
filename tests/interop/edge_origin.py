"""An origin for the tests of cb-edge, which does as the path says and tells what it got.

    edge_origin.py PORT [NAME]

/head    the request's head, as it came    /echo     the body, chunked if it came chunked     /name   NAME
/slow?MS waits first                       /die      ends in the middle of a declared body    /dieearly  closes without an answer
/chunks  a chunked body with a trailer     /diechunk ends in the middle of a chunked body     /hang   never answers
/drip?N,MS N bytes (byte i is i mod 251) in MS milliseconds
/big?N   N bytes                           /info     103, then 200                            /hop    hop-by-hop response fields
/status?N that status   /stall a silent rest   /ws       WebSocket echo; ?wrong: a wrong accept   /proxy  as /head, after a PROXY line
"""
import asyncio
import base64
import hashlib
import sys

NAME = sys.argv[2] if len(sys.argv) > 2 else "origin"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
connections = 0


async def read_body(reader, head):
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = int((await reader.readline()).split(b";")[0], 16)
            if size == 0:
                trailers = b""
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    trailers += line
                return fields, body, trailers
            body += await reader.readexactly(size)
            await reader.readexactly(2)
    return fields, await reader.readexactly(int(fields.get(b"content-length", 0))), b""


def whole(status, body, *extra):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n" % (status, len(body), b"".join(e + b"\r\n" for e in extra)) + body


async def websocket(reader, writer, fields, wrong):
    accept = base64.b64encode(hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest())
    if wrong:
        accept = b"d3Jvbmc="
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        try:
            first, length = await reader.readexactly(2)
        except asyncio.IncompleteReadError:
            return
        mask = await reader.readexactly(4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(await reader.readexactly(length & 0x7F)))
        writer.write(bytes([first, len(data)]) + data)
        await writer.drain()


async def answer(reader, writer, line, head):
    """False: the connection ends here."""
    path, _, query = line.split(b" ")[1].partition(b"?")
    if path == b"/ws":
        fields = {k.strip().lower(): v.strip() for k, _, v in (row.partition(b":") for row in head.split(b"\r\n")[1:])}
        await websocket(reader, writer, fields, query == b"wrong")
        return False
    if path == b"/dieearly":
        return False
    if b"100-continue" in head.lower():
        if path == b"/refuse":
            writer.write(whole(417, b"no"))
            return False
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    fields, body, trailers = await read_body(reader, head)
    if path == b"/slow":
        await asyncio.sleep(int(query) / 1000)
        writer.write(whole(200, NAME.encode()))
    elif path == b"/stall":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await asyncio.sleep(60)
        return False
    elif path == b"/hang":
        await asyncio.sleep(60)
        return False
    elif path in (b"/head", b"/proxy"):
        writer.write(whole(200, head))
    elif path == b"/name":
        writer.write(whole(200, NAME.encode()))
    elif path == b"/conns":
        writer.write(whole(200, b"%d" % connections))
    elif path == b"/echo":
        writer.write(whole(200, body, b"X-Trailers: " + trailers.strip().replace(b"\r\n", b"|")))
    elif path == b"/big":
        left = int(query)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left:
            n = min(left, 65536)
            writer.write(b"x" * n)
            left -= n
            await writer.drain()
    elif path == b"/drip":
        size, ms = (int(n) for n in query.split(b","))
        pattern, steps = bytes(range(251)) * 2000, 40
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for i in range(steps):
            at, end = size * i // steps, size * (i + 1) // steps
            while at < end:
                n = min(end - at, 251 * 1000)
                writer.write(pattern[at % 251:at % 251 + n])
                at += n
            await writer.drain()
            await asyncio.sleep(ms / 1000 / steps)
    elif path == b"/status":
        writer.write(b"HTTP/1.1 %s X\r\n\r\n" % query if query in (b"204", b"304") else whole(int(query), b"status"))
    elif path == b"/hop":
        writer.write(whole(200, b"hop", b"Connection: X-Gone, keep-alive", b"Keep-Alive: timeout=5", b"X-Gone: 1", b"X-Kept: 2", b"Alt-Svc: h3=\":1\"",
                           b"Set-Cookie: a=1", b"Set-Cookie: b=2"))
    elif path == b"/info":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + whole(200, b"after"))
    elif path == b"/chunks":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 42\r\n\r\n")
    elif path in (b"/die", b"/diechunk"):
        how = b"Content-Length: 100000" if path == b"/die" else b"Transfer-Encoding: chunked"
        writer.write(b"HTTP/1.1 200 OK\r\n" + how + b"\r\n\r\n" + (b"x" * 1000 if path == b"/die" else b"3\r\nabc\r\n"))
        await writer.drain()
        await asyncio.sleep(0.05)
        return False
    else:
        writer.write(whole(200, b"page of " + NAME.encode()))
    await writer.drain()
    return b"close" not in fields.get(b"connection", b"")


async def serve(reader, writer):
    global connections
    connections += 1
    prefix = b""
    try:
        while True:
            line = await reader.readline()
            if line.startswith(b"PROXY "):
                prefix = line
                continue
            if not line:
                break
            head = line
            while (more := await reader.readline()) not in (b"\r\n", b""):
                head += more
            if not await answer(reader, writer, line, prefix + head):
                break
    except (ConnectionError, asyncio.IncompleteReadError, ValueError, KeyError):
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
    print(f"origin on {sys.argv[1]}", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
