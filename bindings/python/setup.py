from setuptools import setup

setup(cffi_modules=["cb/_build.py:ffi"])
