import pytest
from servers import run


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
