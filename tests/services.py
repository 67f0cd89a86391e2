"""Real services on free loopback ports, as context managers: they can be stopped, killed and started again."""

import itertools
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from servers import Process, free_port, require, wait_until


class Service(Process):
    """A service in a directory of its own. Subclasses set `command` and `url`."""

    def __init__(self):
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp())
        self.log_file = self.directory / "log"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __exit__(self, *error):
        self.kill()
        shutil.rmtree(self.directory)


class Redis(Service):
    """
    Without persistence: a restarted one has forgotten everything.

    tls: the Paths of a key and a certificate; then it has a password, too. program: "redis-server" or "valkey-server".
    options: further ones of its configuration.
    """

    def __init__(self, tls=None, program="redis-server", **options):
        require(shutil.which(program), f"{program} is not installed")
        super().__init__()
        further = {name.replace("_", "-"): value for name, value in options.items()}
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        if tls:
            key, certificate = tls
            options |= {"port": 0, "tls-port": self.port, "tls-key-file": key, "tls-cert-file": certificate}
            options |= {"tls-auth-clients": "no", "requirepass": "p@ss/word"}
            self.url = f"rediss://:p%40ss%2Fword@127.0.0.1:{self.port}/0?ssl_ca_certs={certificate}"
        options |= further
        words = [(f"--{name}", *(str(value).split() or [""])) for name, value in options.items()]
        self.command = [program, *itertools.chain(*words)]

    def execute(self, *words):
        """Return what redis-cli prints for a command."""
        return subprocess.check_output(["redis-cli", "-p", str(self.port), *words], text=True)


def tls_lines(port, key, certificate):
    """Return the lines of sentinel.conf with which it speaks TLS, also to the servers that it watches."""
    lines = ["port 0", f"tls-port {port}", f"tls-key-file {key}", f"tls-cert-file {certificate}"]
    return [*lines, f"tls-ca-cert-file {certificate}", "tls-auth-clients no", "tls-replication yes"]


class Sentinel(Service):
    """
    Watches `master`, a Redis with this password, with others of which `quorum` must agree that it is gone.

    tls: the Paths of a key and a certificate, if it and the master speak TLS.
    The program is that of Redis: Debian's package redis-sentinel has a link to it.
    """

    def __init__(self, master, password, quorum=2, tls=None):
        require(shutil.which("redis-server"), "redis-server is not installed")
        super().__init__()
        lines = [
            *(tls_lines(self.port, *tls) if tls else [f"port {self.port}"]),
            "bind 127.0.0.1",
            f"requirepass {password}",
            f"sentinel sentinel-pass {password}",
            f"sentinel monitor master 127.0.0.1 {master.port} {quorum}",
            f"sentinel auth-pass master {password}",
            "sentinel down-after-milliseconds master 1000",
            "sentinel failover-timeout master 6000",
        ]
        self.file = self.directory / "sentinel.conf"
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.command = ["redis-server", self.file, "--sentinel"]


class Postgres(Service):
    """A cluster of its own. PostgreSQL refuses to run as root, so that root becomes the user postgres."""

    def __init__(self):
        programs = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)
        require(programs, "PostgreSQL is not installed")
        super().__init__()
        self.bin = Path(programs).resolve().parent
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        data = self.directory / "data"
        self.user = []
        if os.name == "posix" and os.geteuid() == 0:
            self.user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(self.directory, "postgres")
        initdb = [self.bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*self.user, *initdb], cwd=self.directory, check=True, stdout=subprocess.DEVNULL)
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.directory), "-F"]
        self.command = [*self.user, str(self.bin / "postgres"), "-D", str(data), *options]

    def start(self):
        super().start()
        ready = [self.bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        wait_until(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL is ready")

    def kill(self):
        """Stop at once: every connection breaks."""
        stop = [self.bin / "pg_ctl", "-D", self.directory / "data", "-m", "immediate", "stop"]
        subprocess.run([*self.user, *stop], cwd=self.directory, check=True, stdout=subprocess.DEVNULL)
        self.process.wait()

    def connections(self):
        """Return the number of clients, without the one that asks."""
        query = "select count(*) - 1 from pg_stat_activity where backend_type = 'client backend'"
        psql = [self.bin / "psql", self.url.replace("postgres:", "postgresql:", 1), "-Atc", query]
        return int(subprocess.check_output(psql, text=True))

    def create_database(self):
        """Make an empty database, and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        createdb = [self.bin / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name]
        subprocess.run(createdb, check=True)
        return self.url.rpartition("/")[0] + f"/{name}"
