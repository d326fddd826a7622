"""JupyterLab on loopback and Debian's Chromium: what a person sees, clicks and gets.

The smoke profile's stages are those of the batch run's tests; a warm cache can be named in
LASSI_TEST_CACHE while the explorers are worked on.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "loopback-only"
SECONDS = 1_000  # Playwright counts milliseconds


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here: make browser installs it or says how")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("chromium"),
            executable_path=path,
            args=FLAGS,
            viewport={"width": 1280, "height": 1600},
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A tab; what its console complains of is collected in `page.complaints`."""
    tab = chromium.new_page()
    tab.complaints = []
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.on("console", lambda line: tab.complaints.append(line.text) if line.type == "error" else None)
    yield tab
    tab.close()


def until(page, expression, seconds=20):
    """Wait until it holds: asked from here, since the pages' content policy forbids Playwright's own way."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


@pytest.fixture(scope="session")
def stages(request):
    """The cache of the smoke profile."""
    return os.environ.get("LASSI_TEST_CACHE") or request.getfixturevalue("smoke")[1]


@contextmanager
def served(base, environment, *arguments):
    """JupyterLab with folders of its own under `base`, started in the repository; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    folders |= {"JUPYTER_DATA_DIR": "data", "JUPYTERLAB_SETTINGS_DIR": "settings", "LASSI_OUTPUT": "out"}
    folders |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = environment | {name: str(base / folder) for name, folder in folders.items()}
    environment |= {"LASSI_QUIET": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    settings = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
    settings |= {"docmanager-extension/plugin": {"autosave": False}}  # sources carry no outputs
    for name, value in settings.items():
        path = base / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value))
    options = [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}"]
    options += ["--no-browser", "--allow-root", "--expose-app-in-browser", *arguments]
    with open(base / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < until, (base / "log").read_text()
            time.sleep(0.2)
    yield address
    server.terminate()  # it shuts its kernels down
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        from lassi_lib.study.notebooks import kill_tree

        kill_tree(server.pid)


@pytest.fixture(scope="session")
def lab(chromium, stages, tmp_path_factory):
    """JupyterLab over a folder of its own: (address, folder of notebooks)."""
    base = tmp_path_factory.mktemp("lab")
    notebooks = base / "notebooks"
    notebooks.mkdir()
    environment = os.environ | {"LASSI_CACHE": str(stages), "PYTHONPATH": str(ROOT)}
    with served(base, environment, f"--ServerApp.root_dir={notebooks}") as address:
        yield address, notebooks


def run_all(page, address, name):
    """Open a notebook and run all its cells."""
    page.goto(f"{address}/doc/tree/{name}?token={TOKEN}")
    ready = (
        "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.wait_for_function(ready, timeout=60 * SECONDS)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")


@pytest.fixture
def run_cells(lab, page):
    """Return a function that runs a notebook of the study in JupyterLab on the smoke profile.

    `keep` names code that a cell must contain to be run beside parameters and set-up; all by default.
    """
    address, folder = lab

    def run(name, *keep):
        (source,) = (ROOT / "notebooks").glob(f"{name}_*.ipynb")
        notebook = json.loads(source.read_text())
        given = _parameters(source.stem)
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        kept = [
            c
            for c in code[:2] + code[2:]
            if c in code[:2] or not keep or any(k in "".join(c["source"]) for k in keep)
        ]
        kept[0]["source"] = [f"{key} = {value!r}\n" for key, value in given.items()]
        notebook["cells"] = kept
        (folder / source.name).write_text(json.dumps(notebook))
        run_all(page, address, source.name)
        return page

    return run


def _parameters(stem):
    import yaml

    return yaml.safe_load((ROOT / "params" / "smoke" / f"{stem}.yaml").read_text()) | {"device": "cpu"}
