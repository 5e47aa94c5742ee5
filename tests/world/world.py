"""Hosts in network namespaces on this machine, the wires between them, and the programs that run on them. As root:

    with World() as w:
        a, r = w.host("a"), w.host("r", forwards=True)
        w.link(a, "eth0", r, "to-a", v4=("10.1.0.2/24", "10.1.0.1/24"), v6=("2001:db8:1::2/64", "2001:db8:1::1/64"))
        a.ip("route add default via 10.1.0.1")
        server = r.start("python3", "-m", "http.server", "80").wait_for("Serving")
        print(a.run("curl", "-s", "http://10.1.0.1/").stdout)
        r.loss("to-a", 2)              # 2 % of what leaves there is lost; 0 = nothing
        a.cut("eth0"), a.mend("eth0")  # the cable is pulled, and put back

Names of namespaces are cbw-PID-NUMBER-HOST, so worlds do not meet. At the end all programs of all hosts are ended and the namespaces go; when this process
is killed, a second one does it (`--reap`), and the next world takes away what both left. pop.py has the world of a PoP on top of this, capture.py looks at packets.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
PREFIX = "cbw"
NUMBERS = itertools.count(1)


def why_not(*programs):
    """Why there can be no world here, or None. programs: what else is needed, by name."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name in ("ip", "nsenter", *programs):
        if shutil.which(name, path=path) is None:
            return f"{name} is not installed (scripts/setup test installs it)"
    probe = f"{PREFIX}-{os.getpid()}-0-probe"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None if done.returncode == 0 else f"no network namespaces here: {done.stderr.strip()}"


def spaces():
    """Names of all namespaces of worlds."""
    try:
        return [name for name in os.listdir("/run/netns") if name.startswith(PREFIX + "-")]
    except FileNotFoundError:
        return []


def clear(names):
    """Ends all that runs in these namespaces, and removes them."""
    for name in names:
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        for pid in done.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def clear_orphans():
    """What worlds left whose processes are gone."""
    clear(name for name in spaces() if not Path(f"/proc/{name.split('-')[1]}").exists())


class Process:
    """A program on a host; what it writes is in .log."""

    def __init__(self, command, log, stdin=subprocess.DEVNULL):
        self.command, self.log = [str(c) for c in command], Path(log)
        with open(log, "ab") as out:
            # A session of its own: the Ctrl-C of a terminal is for us, and we end the programs.
            self.popen = subprocess.Popen(self.command, stdout=out, stderr=subprocess.STDOUT, stdin=stdin, start_new_session=True)
        self.pid = self.popen.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def wait_for(self, text, seconds=20):
        """Waits until the output contains text; returns the process."""
        wait_for(lambda: text in self.output() or not self.alive(), seconds, lambda: f"{self.command} did not say {text!r}:\n{self.output()}")
        if text not in self.output():
            raise AssertionError(f"{self.command} ended with {self.popen.returncode} and did not say {text!r}:\n{self.output()}")
        return self

    def send(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=10):
        """Ends it; its exit code, -9 when it had to be killed."""
        if self.alive():
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        if self.popen.stdin:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()
        return self.popen.returncode


def wait_for(what, seconds=30, why="it did not happen"):
    """Calls what() until it returns something true, which is returned; AssertionError after so many seconds. why: text, or what makes it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > end:
            raise AssertionError(f"{why() if callable(why) else why} (in {seconds} s)")
        time.sleep(0.02)
    return found


class Host:
    """One namespace."""

    def __init__(self, world, name, forwards):
        self.world, self.name, self.space = world, name, f"{world.tag}-{name}"
        self.processes, self.ruled = [], {}
        subprocess.run(["ip", "netns", "add", self.space], check=True)
        self.sysctl({"net.ipv6.conf.default.accept_dad": 0, "net.ipv6.conf.all.accept_dad": 0, "net.ipv4.conf.all.rp_filter": 0,
                     "net.ipv4.conf.default.rp_filter": 0, "net.ipv4.conf.all.promote_secondaries": 1})
        if forwards:
            # The hash of TCP's and UDP's ports decides between equal paths, as in the routers of a data centre.
            self.sysctl({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1, "net.ipv4.fib_multipath_hash_policy": 1,
                         "net.ipv6.fib_multipath_hash_policy": 1, "net.ipv4.conf.all.send_redirects": 0, "net.ipv4.conf.default.send_redirects": 0})
        self.ip("link set dev lo up")

    def __repr__(self):
        return f"<{self.name}>"

    def inside(self, *command):
        """The command that runs a command here. The mounts stay as they are, so that /sys/fs/bpf can be seen."""
        return ["nsenter", f"--net=/run/netns/{self.space}", *map(str, command)]

    def run(self, *command, timeout=60, check=True, **kw):
        """Runs a program to its end. check: it must exit with 0."""
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=timeout, stdin=kw.pop("stdin", None) or
                              (None if "input" in kw else subprocess.DEVNULL), **kw)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *command, name=None, stdin=subprocess.DEVNULL):
        """Starts a program that runs beside; its output goes to NAME.log in the world's folder."""
        name = name or Path(str(command[0])).name
        process = Process(self.inside(*command), self.world.folder / f"{self.name}-{name}-{next(self.world.logs)}.log", stdin)
        self.processes.append(process)
        return process

    def sysctl(self, values):
        text = "".join(f"echo {value} > /proc/sys/{key.replace('.', '/')}\n" for key, value in values.items())
        subprocess.run(self.inside("sh", "-ec", text), check=True)

    def ip(self, *commands, check=True):
        """Commands of ip(8), each as one text: ip("link set dev lo up", "-6 route add ...")."""
        for command in commands:
            done = subprocess.run(["ip", "-n", self.space, *command.split()], capture_output=True, text=True)
            if check and done.returncode != 0:
                raise AssertionError(f"{self.name}: ip {command}: {done.stderr}")

    def address(self, device, *addresses):
        for address in addresses:
            self.ip(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))

    def nft(self, text):
        """Loads rules, all or none of them."""
        self.run("nft", "-f", "-", input=text)

    def loss(self, device, percent):
        """So much of what leaves by a device is lost by chance."""
        self.nft(f"add table netdev loss_{self.plain(device)}\ndelete table netdev loss_{self.plain(device)}\n")
        if percent:
            self.nft(f"""table netdev loss_{self.plain(device)} {{
    chain out {{
        type filter hook egress device "{device}" priority 0
        {f"numgen random mod 10000 < {int(percent * 100)} " if percent < 100 else ""}drop
    }}
}}
""")

    @staticmethod
    def plain(device):
        return re.sub(r"\W", "_", device)

    def cut(self, device):
        """The cable is pulled: both ends lose their carrier."""
        there = self.world.wires.get((self.name, device))
        self.world.pulled.add((self.name, device))
        if there:
            there[0].ip(f"link set dev {there[1]} down")
        self.ip(f"link set dev {device} down")

    def mend(self, device):
        self.world.pulled.discard((self.name, device))
        there = self.world.wires.get((self.name, device))
        if there:
            there[0].ip(f"link set dev {there[1]} up")
            self.world.restore(*there)
        self.ip(f"link set dev {device} up")
        self.world.restore(self, device)

    def offloads(self, device, on):
        """What a card would do with packets is done in software (off: as on a wire; XDP_TX on veth needs that)."""
        state = "on" if on else "off"
        self.run("ethtool", "-K", device, *itertools.chain(*((what, state) for what in ("tx", "tso", "gso", "gro"))), check=False)

    def xdp_pass(self, device):
        """A program that passes everything: what the other end of a veth sends by XDP_TX is taken only where there is one."""
        self.run("ip", "link", "set", "dev", device, "xdp", "obj", self.world.xdp_object(), "sec", "xdp")

    def pids(self):
        return [int(pid) for pid in subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True).stdout.split()]

    def die(self):
        """All programs of this host are gone at once, and nothing says so to anybody."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.stop()
        self.processes.clear()

    def metrics(self, port):
        """What a program here exports for Prometheus, as text."""
        return self.run("curl", "-s", "--max-time", "10", f"http://127.0.0.1:{port}/metrics").stdout


class World:
    def __init__(self, folder=None):
        self.tag = f"{PREFIX}-{os.getpid()}-{next(NUMBERS)}"
        self.hosts, self.wires, self.kept_routes, self.pulled = {}, {}, {}, set()
        self.own_folder = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="cb-world.") if folder is None else folder)
        self.folder.chmod(0o755)
        self.logs = itertools.count(1)
        self.closers = []
        self._reaper = None

    # ---- life ----
    def __enter__(self):
        clear_orphans()
        self._reaper = subprocess.Popen([sys.executable, __file__, "--reap", self.tag, str(self.folder), "all" if self.own_folder else "mounts"], stdin=subprocess.PIPE,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        """For worlds that are made of this one: hosts and wires."""

    def __exit__(self, *exc):
        for close in reversed(self.closers):
            close()
        for host in self.hosts.values():
            for process in host.processes:
                if process.alive():
                    process.send(signal.SIGTERM)
        for host in self.hosts.values():
            for process in reversed(host.processes):
                process.stop(seconds=5)
        clear([host.space for host in self.hosts.values()])
        unmount(self.folder / "bpf")
        if self._reaper:
            self._reaper.stdin.close()
            self._reaper.wait()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- making ----
    def host(self, name, forwards=False):
        self.hosts[name] = Host(self, name, forwards)
        return self.hosts[name]

    def link(self, a, name_a, b, name_b, v4=None, v6=None, mtu=1500, offloads=True):
        """A wire from a to b. v4, v6: the two addresses with their lengths. offloads False: packets are as on a wire."""
        subprocess.run(["ip", "link", "add", name_a, "netns", a.space, "mtu", str(mtu), "type", "veth", "peer", "name", name_b, "netns", b.space], check=True)
        for i, (host, name) in enumerate(((a, name_a), (b, name_b))):
            host.ip(f"link set dev {name} mtu {mtu}")
            host.address(name, *(pair[i] for pair in (v4, v6) if pair))
            if not offloads:
                host.offloads(name, False)
            host.ip(f"link set dev {name} up")
        self.wires[a.name, name_a], self.wires[b.name, name_b] = (b, name_b), (a, name_a)

    def keep(self, host, device, *commands):
        """Commands of ip(8) about a device, done now and again when it comes back: the kernel forgets routes, and addresses of IPv6, when a cable is pulled."""
        self.kept_routes.setdefault((host.name, device), []).extend(commands)
        host.ip(*commands)

    def restore(self, host, device):
        host.ip(*self.kept_routes.get((host.name, device), ()), check=False)

    def bpffs(self):
        """A BPF file system of this world, where programs can leave what goes on without them."""
        path = self.folder / "bpf"
        if not path.exists():
            path.mkdir()
            subprocess.run(["mount", "-t", "bpf", "-o", "mode=0700", "bpf", path], check=True)
        return path

    def xdp_object(self):
        out = self.folder / "xdp_pass.o"
        if not out.exists():
            subprocess.run(["clang", "-O2", "-target", "bpf", "-c", HERE / "xdp_pass.bpf.c", "-o", out], check=True)
        return out


def unmount(path):
    if os.path.ismount(path):
        subprocess.run(["umount", "-l", path], capture_output=True)


def reap(tag, folder, what):
    sys.stdin.buffer.read()  # it ends when the world's process does, in whatever way
    clear(name for name in spaces() if name.startswith(tag + "-"))
    unmount(Path(folder) / "bpf")
    if what == "all":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__" and sys.argv[1:2] == ["--reap"]:
    reap(*sys.argv[2:5])
