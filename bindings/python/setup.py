import subprocess

from setuptools import setup

# cb.xdp only where libcb-xdp is installed: the rest of the package needs no more than libcb.
xdp = subprocess.run(["pkg-config", "--exists", "libcb-xdp"]).returncode == 0
setup(cffi_modules=["cb/_build.py:ffi"] + (["cb/_build_xdp.py:ffi"] if xdp else []))
