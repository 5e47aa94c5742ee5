"""A router that shares connections out by plain Maglev, as something to compare with: it has a table (Eisenbud et al., NSDI 2016, section 3.4) and
no memory of connections. nft hashes addresses and ports to a slot, and the slot's mark chooses a route; so packets go where the table of the moment says, at
once, with direct return. Its weights give a server so many turns of each round."""

import hashlib

from pop import VIP4, VIP6

SLOTS = 65537
SEED = 0x5EED


def table(weights, slots=SLOTS):
    """Slot -> name, for {name: weight}."""
    turns = {}
    for name in sorted(weights):
        number = [int.from_bytes(hashlib.sha256(f"{name}/{i}".encode()).digest()[:8], "big") for i in range(2)]
        turns[name] = [number[0] % slots, number[1] % (slots - 1) + 1]
    out, left = [None] * slots, slots
    while left:
        for name, (at, skip) in turns.items():
            for _ in range(weights[name]):
                while out[at] is not None:
                    at = (at + skip) % slots
                out[at] = name
                left -= 1
                if not left:
                    return out
            turns[name][0] = at
    return out


class Maglev:
    """On the router of one PoP. set({"s11": 1, "s12": 1}) puts a new table in place of the old one, wholly."""

    def __init__(self, world, pop):
        self.world, self.router = world, world.hosts[f"r{pop}"]
        self.servers = {s.name: s for s in world.servers.values() if s.pop == pop}
        self.marks = {name: 100 + i for i, name in enumerate(sorted(self.servers))}
        for name, mark in self.marks.items():
            server = self.servers[name]
            for six, address in (("", server.v4), ("-6 ", server.v6)):
                self.router.ip(f"{six}rule add fwmark {mark} lookup {mark}", f"{six}route add default via {address} dev lan table {mark}")
        self.router.nft(f"""
table inet maglev {{
    map owner {{ type mark : mark; }}
    chain in {{ type filter hook prerouting priority -150;
        ip daddr {VIP4} meta mark set jhash ip saddr . ip daddr . th sport . th dport mod {SLOTS} seed {SEED}
        ip6 daddr {VIP6} meta mark set jhash ip6 saddr . ip6 daddr . th sport . th dport mod {SLOTS} seed {SEED}
        ip daddr {VIP4} meta mark set meta mark map @owner
        ip6 daddr {VIP6} meta mark set meta mark map @owner
    }}
}}
""")
        self.now = None

    def set(self, weights):
        new = table({name: weight for name, weight in weights.items() if weight})
        old = self.now or [None] * SLOTS
        changed = [i for i in range(SLOTS) if new[i] != old[i]]
        text = []
        for begin in range(0, len(changed), 4000):
            part = changed[begin:begin + 4000]
            gone = [str(i) for i in part if old[i] is not None]
            if gone:
                text.append(f"delete element inet maglev owner {{ {', '.join(gone)} }}")
            text.append("add element inet maglev owner { " + ", ".join(f"{i} : {self.marks[new[i]]}" for i in part) + " }")
        if text:
            self.router.nft("\n".join(text) + "\n")
        self.now = new
        return len(changed)
