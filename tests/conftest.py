import os
import re
import shutil

import pytest
from history import commit, copy_template
from servers import PROBES, append_settings, require, run
from services import Redis

# These run inside a baked project.
collect_ignore = ["on_bake", "probes"]


# These go first, since a worker that begins one of them at the end works alone.
LONGEST = """
    test_browser_chat.py test_docker.py test_updates.py test_random_answers.py test_realtime.py test_hostile.py
    test_existing_project.py test_startconsumer.py test_project.py test_answers.py test_handshake.py test_start.py
    test_chat.py test_deploy.py test_browser.py test_recipes.py test_pythons.py
"""


def pytest_collection_modifyitems(items):
    order = {name: number for number, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_xdist_auto_num_workers():
    """Many tests wait for a server or a browser more than they compute."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or (os.cpu_count() or 1) + 1)


def pytest_report_header(config):
    """Say what `-m` leaves out, and why: pytest itself prints no more than a number."""
    left_out = re.findall(r"not (\w+)", config.option.markexpr)
    return [f"left out: {marker}" for marker in config.getini("markers") if marker.partition(":")[0] in left_out]


@pytest.fixture(scope="session")
def bake(cookies_session):
    """Return a function that bakes with the given answers: `bake(github_actions="no") -> Path`, made once for each."""
    projects = {}

    def bake(**answers):
        key = tuple(sorted(answers.items()))
        if key not in projects:
            result = cookies_session.bake(extra_context=answers)
            assert result.exception is None, result.exception
            projects[key] = result.project_path
        return projects[key]

    return bake


@pytest.fixture(scope="session")
def project(bake):
    """The default project with a migrated database. Not to be changed by a test."""
    project = bake()
    run(project, "manage.py", "migrate")
    return project


@pytest.fixture
def redis():
    with Redis() as redis:
        yield redis


@pytest.fixture(scope="module")
def with_probe(project, tmp_path_factory):
    """
    Return a function that copies the project, and adds the sockets of a file or package of tests/probes/ and settings.

    `with_probe("pitfalls.py", "REALTIME_FRAME_BURST = 3")` returns the Path of the copy.
    """

    def with_probe(name, *settings):
        copy = shutil.copytree(project, tmp_path_factory.mktemp("probe") / "project")
        if (PROBES / name).is_dir():
            shutil.copytree(PROBES / name, copy / "chat" / "probes")
        else:
            shutil.copy(PROBES / name, copy / "chat" / "probes.py")
        with (copy / "chat" / "routing.py").open("a", encoding="utf-8") as routing:
            routing.write("\nfrom .probes import websocket_urlpatterns as probes\n\nwebsocket_urlpatterns += probes\n")
        append_settings(copy, *settings)
        return copy

    return with_probe


@pytest.fixture(scope="module")
def with_consumers(project, tmp_path_factory):
    """
    Return a function that copies the project and adds consumers to it, which then behave as a test needs it.

    `with_consumers(code, slow="Slow")` puts the class Slow of `code`, a str, at ws/slow/, and returns the Path.
    """

    def with_consumers(code, **routes):
        copy = shutil.copytree(project, tmp_path_factory.mktemp("consumers") / "project")
        (copy / "chat" / "probes.py").write_text(code, encoding="utf-8")
        lines = ["", f"from .probes import {', '.join(routes.values())}", ""]
        lines += [
            f'websocket_urlpatterns.append(path("ws/{name}/", {consumer}.as_asgi()))'
            for name, consumer in routes.items()
        ]
        with (copy / "chat" / "routing.py").open("a", encoding="utf-8") as routing:
            routing.write("\n".join(lines) + "\n")
        return copy

    return with_consumers


@pytest.fixture
def source(tmp_path):
    """A repository of the template as it is here, and no history."""
    require(shutil.which("git"), "git is not installed")
    source = tmp_path / "template"
    copy_template(source)
    commit(source)
    return source
