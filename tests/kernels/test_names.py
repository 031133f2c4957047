"""Operations are names of the package, whichever of their files has been imported before."""

import subprocess
import sys

import tilestream as ts


def test_every_name_is_there_and_documented() -> None:
    for name in ts.kernels.__all__:
        found = getattr(ts.kernels, name)
        assert callable(found), name
        assert found.__doc__, name


def test_an_operation_is_no_module_and_is_loaded_when_it_is_used() -> None:
    code = (
        "import sys, tilestream as ts; from tilestream.kernels.resample import resample; import tilestream.kernels.mip;"
        "assert ts.kernels.resample is resample; assert callable(ts.kernels.mip);"
        "assert 'tilestream.kernels.hash_decode' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
