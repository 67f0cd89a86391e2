"""
Measure the lists of rooms of the chat starter: `python benchmarks/lists.py` prints a table for each database.

Queries and milliseconds with 10,000 rooms, 1,000 users who have 50 of them each, and a room in which all of them are.
Nothing is asserted. docs/performance.md says how it is measured.
"""

import shutil

import machine
import subjects

# Importing `machine` has put the tests on the path.
from servers import LOCAL_PRODUCTION, run, run_probe
from services import Postgres


def main():
    project, _ = subjects.bake("starter=chat")
    try:
        with Postgres() as postgres:
            sqlite = f"sqlite:///{project.parent / 'lists.sqlite3'}"
            for name, url in {"SQLite": sqlite, "PostgreSQL": postgres.create_database()}.items():
                env = LOCAL_PRODUCTION | {"DATABASE_URL": url}
                run(project, "manage.py", "migrate", env=env)
                run(project, "manage.py", "collectstatic", "--no-input", env=env)
                print(f"\n| {name} | queries | ms |\n| --- | ---: | ---: |")
                print(run_probe(project, "lists.py", env=env), end="", flush=True)
    finally:
        shutil.rmtree(machine.RUN, ignore_errors=True)


if __name__ == "__main__":
    main()
