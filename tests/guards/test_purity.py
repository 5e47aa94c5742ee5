"""Cores (floors 0 and 1) open no socket, read no clock, start no thread, draw no random numbers and print nothing."""
import re
import subprocess
import tempfile
from pathlib import Path

import guard

IMPURE = re.compile(r"""^(?:
    socket|socketpair|bind|connect|listen|accept4?|send(?:to|msg|mmsg|file)?|recv(?:from|msg|mmsg)?|shutdown
    |read|write|readv|writev|pread(?:64)?|pwrite(?:64)?|close|ioctl|fcntl(?:64)?
    |epoll_\w+|poll|ppoll|select|pselect|eventfd|timerfd_\w+|signal|sigaction|fork|vfork|exec\w+|posix_spawn\w*
    |uv_\w+|ares_\w+|bpf_\w+|libbpf_\w+
    |clock_gettime|clock_nanosleep|gettimeofday|time|nanosleep|usleep|sleep
    |open(?:at)?(?:64)?|creat|fopen(?:64)?|unlink|rename|mmap(?:64)?
    |getrandom|getentropy|random|rand(?:_r)?|arc4random\w*|gnutls_rnd
    |pthread_\w+|thrd_\w+|mtx_\w+|getenv|secure_getenv|syscall
    |printf|__printf_chk|vprintf|__vprintf_chk|puts|putchar|fputs|fputc|fwrite|fprintf|__fprintf_chk|vfprintf|perror
    |syslog|stdout|stderr
)$""", re.X)

def impure(path):
    """The names of IMPURE that an object file needs."""
    names = (line.split()[-1] for line in guard.output("nm", "-u", path)[1].splitlines() if line.strip())
    return sorted(name for name in names if IMPURE.match(name.split("@")[0]))


def test_cores_are_pure():
    table = guard.sources()
    guard.report([f"libcb/{path} (F{table[path]}) uses {', '.join(names)}: take bytes, time or an operation as an argument,"
                  " or move that part to a driver (F2)"
                  for path, file in sorted(guard.objects().items())
                  if table[path] <= 1 and (names := impure(file))])


def test_guard_sees_a_clock():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bad.c"
        file.write_text("#include <time.h>\n#include <stdio.h>\nlong now(void) { puts(\"x\"); return (long)time(NULL); }\n")
        subprocess.run(["cc", "-c", file, "-o", f"{folder}/bad.o"], check=True)
        assert impure(f"{folder}/bad.o") == ["puts", "time"]


if __name__ == "__main__":
    guard.main(globals())
