from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> str:
    """Run Python that has imported nothing yet, and give what it prints."""
    begin = "import sys\nfrom runtime.deferred import deferred\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_a_deferred_module_comes_when_something_of_it_is_asked_for() -> None:
    code = """
with deferred("urllib.request"):
    import urllib.request
print("http.client" in sys.modules, end=" ")
print(hasattr(urllib.request, "getproxies"), "http.client" in sys.modules, end=" ")
print(urllib.request is sys.modules["urllib.request"])
"""
    assert run(code) == "False True True True"


def test_everybody_else_imports_the_module_itself() -> None:
    code = """
with deferred("urllib.request"):
    import urllib.request as by_the_library
print("urllib.request" in sys.modules, end=" ")
from urllib.request import urlopen
import urllib.request
print(urllib.request.urlopen is urlopen, by_the_library.urlopen is urlopen)
"""
    assert run(code) == "False True True"


def test_what_is_there_already_stays() -> None:
    code = """
import urllib.request
there = urllib.request
with deferred("urllib.request"):
    import urllib.request
print(urllib.request is there, sys.modules["urllib.request"] is there)
"""
    assert run(code) == "True True"


def test_a_name_that_the_module_has_not_is_an_attribute_error() -> None:
    code = """
with deferred("urllib.request"):
    import urllib.request
print(hasattr(urllib.request, "nothing_of_this_name"))
"""
    assert run(code) == "False"


def test_several_threads_may_ask_first() -> None:
    n = 8
    code = f"""
import threading
with deferred("urllib.request"):
    import urllib.request as request
found, together = [], threading.Barrier({n})
def ask():
    together.wait()
    found.append(request.urlopen)
threads = [threading.Thread(target=ask) for _ in range({n})]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(found), len(set(found)))
"""
    assert run(code) == f"{n} 1"
