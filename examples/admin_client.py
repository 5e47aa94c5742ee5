#!/usr/bin/env python3
"""Reads a cb-edge's metrics, adds an origin to a group, and takes that back, by its admin socket.

    admin_client.py SOCKET GROUP URL
"""

import asyncio
import sys

import cb.admin


async def add_origin(edge, group, url):
    """Adds an origin, whoever else changes the configuration meanwhile: what we have read must still be what runs."""
    for _ in range(5):
        origins = await edge.config(f"/groups/{group}/origins")
        if any(origin["url"] == url for origin in origins.value):
            return origins.revision, origins.revision
        try:
            change = await edge.put(f"/groups/{group}/origins", [*origins.value, {"url": url}], if_match=origins.revision, why=f"{url} joins")
            return origins.revision, change.revision
        except cb.admin.Conflict:
            continue  # somebody was faster: look again
    raise SystemExit("it is changed all the time")


async def main(socket, group, url):
    async with cb.admin.Admin(socket) as edge:
        page = await edge.metrics()
        took = page.histogram("cb_http_server_request_seconds")
        print(f"{page.value('cb_http_server_requests'):.0f} requests, p99 {took.quantile(0.99) * 1000:.1f} ms")
        try:
            before, after = await add_origin(edge, group, url)
            print(f"revision {before} became {after}")
            back = await edge.rollback(before, why="it was a try")
            print(f"and {before} again, as {back.revision}")
        except cb.admin.InvalidConfig as problem:
            for mistake in problem.errors:
                print(f"{mistake.pointer}: {mistake.detail}")
        except cb.admin.Denied as problem:
            print(f"not allowed: {problem}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
