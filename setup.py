"""The one call that pyproject.toml cannot make: cffi builds the data plane."""

from setuptools import setup

setup(cffi_modules=["xbbd_bsd/native/build.py:ffibuilder"])
