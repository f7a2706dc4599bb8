"""Small random networks of the other tests: their conftest.py, which pytest does not load here, under a name of its own."""

from importlib.util import module_from_spec, spec_from_file_location

from standin import ROOT

_spec = spec_from_file_location("networks_of_all_tests", ROOT / "tests/conftest.py")
if _spec is None or _spec.loader is None:
    raise ImportError("tests/conftest.py")
_module = module_from_spec(_spec)
_spec.loader.exec_module(_module)

bundle_content = _module.bundle_content
tiny_network = _module.tiny_network
