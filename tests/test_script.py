"""
The scripts without a browser: the logic of realtime's (socket.test.mjs) and the chat's (chat.test.mjs), by Node's own
test runner; and the types of realtime's.
"""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import npm
import pytest
from servers import REPOSITORY, require

TEMPLATE = REPOSITORY / "{{cookiecutter.project_slug}}"
SCRIPT = TEMPLATE / "placed-by-hook" / "always" / "realtime" / "static" / "realtime" / "socket.js"

# What a project with a bundler writes; each mistake must be one for the types, too.
TYPED = """
import { Close, ReconnectingSocket } from "./socket.js";

const options = { protocols: ["json"], token: async () => "a ticket", pace: 30, greets: true };
export const socket = new ReconnectingSocket(new URL("https://api.example.com/ws/"), options);
for (const address of ["/ws/", () => "/ws/?after=7"]) new ReconnectingSocket(address, { token: "abc" });
socket.addEventListener("statechange", ({ detail }) => {
  const words: string = detail.state === "closed" && detail.code === Close.NOT_LOGGED_IN ? "log in" : detail.state;
  document.title = words + (detail.reason ?? "");
});
socket.addEventListener("frame", ({ detail: { type, ...rest } }) => console.log(type.length, rest["text"]));
socket.addEventListener("message", ({ data }) => console.log(typeof data === "string" ? data : data.byteLength));
socket.removeEventListener("frame", console.log);
const isSent: boolean = socket.send({ type: "typing" }) || socket.send("<p>") || socket.send(new Uint8Array(3));
const id: string = socket.deliver({ type: "message", text: "Hello" });
socket.close({ code: Close.NORMAL, reason: String(isSent) + id + socket.pending[0]?.type });
// @ts-expect-error: a frame has a type
socket.deliver({ text: "Hello" });
// @ts-expect-error: there is no such state
if (socket.state === "opened") socket.open();
// @ts-expect-error: it is read-only
socket.state = "open";
// @ts-expect-error: a number is no token
new ReconnectingSocket("/ws/", { token: 7 });
// @ts-expect-error: there is no such code
export const code: number = Close.TEAPOT;
"""


@pytest.fixture
def node():
    node = shutil.which("node")
    require(node, "node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    require(
        int(re.match(r"v(\d+)", version)[1]) >= 20,
        f"node {version.strip()} is older than 20, the first with all of mock.timers",
    )
    return node


def run_tests(node, name, **env):
    command = [node, "--test", REPOSITORY / "tests" / name]
    result = subprocess.run(command, env=os.environ | env, capture_output=True, encoding="utf-8", timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_logic(node):
    run_tests(node, "socket.test.mjs")


def test_logic_of_the_chat(node, bake, tmp_path):
    """Its modules import each other as they lie below /static/."""
    for static in bake(starter="chat").glob("*/static"):
        shutil.copytree(static, tmp_path, dirs_exist_ok=True)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    run_tests(node, "chat.test.mjs", CHAT_SCRIPTS=tmp_path.as_uri())


def test_types(node, tmp_path):
    """TypeScript takes the types in the script's comments, and finds faults in wrong uses of them."""
    tsc = npm.install("typescript@7.0.2") / "node_modules" / "typescript" / "bin" / "tsc"
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "app.ts").write_text(TYPED, encoding="utf-8")
    flags = ["--noEmit", "--allowJs", "--checkJs", "--strict", "--noUncheckedIndexedAccess"]
    target = ["--target", "es2022", "--lib", "es2023,dom,dom.iterable", "--module", "esnext"]

    command = [node, tsc, *flags, *target, "--moduleResolution", "bundler", "app.ts", "socket.js"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")

    assert result.returncode == 0, result.stdout + result.stderr


def test_close_codes_are_those_of_the_server():
    server = ast.parse((TEMPLATE / "realtime" / "close.py").read_text("utf-8"))
    codes = {
        node.targets[0].id: node.value.value
        for node in ast.walk(server)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    script = re.search(r"const Close = Object\.freeze\(\{(.*?)\}\)", SCRIPT.read_text("utf-8"), re.DOTALL)[1]

    assert {name: int(code) for name, code in re.findall(r"(\w+): (\d+)", script)} == codes


def test_constants_follow_those_of_the_server():
    """As the script's comments say: what the server allows, or more than it takes."""
    conf = (TEMPLATE / "realtime" / "conf.py").read_text("utf-8")
    outage = (TEMPLATE / "realtime" / "outage.py").read_text("utf-8")
    script = SCRIPT.read_text("utf-8")
    names = ("REALTIME_FRAMES_PER_SECOND", "REALTIME_FRAME_BURST")
    rate, burst = (int(re.search(rf'"{name}": (\d+)', conf)[1]) for name in names)
    patience = int(re.search(r"^PATIENCE = (\d+)", outage, re.MULTILINE)[1])
    ours = {name: int(text) for name, text in re.findall(r"^const (\w+) = ([\d_]+);", script, re.MULTILINE)}

    assert f"rate: {rate}, burst: {burst} }}" in script
    assert ours["ANSWER_TIMEOUT"] > patience * 1000


def test_the_script_needs_no_page_of_ours():
    script = SCRIPT.read_text("utf-8")

    assert not re.search(r"^\s*import\b|\bimport\(", script, re.MULTILINE)
    assert set(re.findall(r"\bdocument\.(\w+)", script)) == {"addEventListener", "visibilityState"}
    assert "dataset" not in script


def test_scripts_hold_imports_in_the_form_that_django_hashes(bake):
    """https://docs.djangoproject.com/en/stable/ref/contrib/staticfiles/#manifeststaticfilesstorage"""
    for starter in ("minimal", "chat"):
        project = bake(starter=starter)
        scripts = {
            path.relative_to(static): path for static in project.glob("*/static") for path in static.rglob("*.js")
        }
        for name, script in scripts.items():
            text = script.read_text("utf-8")
            imports = re.findall(r"""(?:import|export)[\s{][^;]*?from\s*["'](.*?)["']\s*;""", text)
            assert len(imports) == len(re.findall(r"^import\b", text, re.MULTILINE)), name
            for path in imports:
                assert Path(os.path.normpath(name.parent / path)) in scripts, (name, path)


def test_scripts_of_the_chat_are_short(bake):
    for app in ("chat", "accounts"):
        for script in (bake(starter="chat") / app / "static").rglob("*.js"):
            assert len(script.read_text("utf-8").splitlines()) <= 250, script


def test_pages_name_codes_instead_of_writing_them():
    for script in TEMPLATE.rglob("chat.js"):
        assert not re.search(r"\b4[04]\d\d\b", script.read_text("utf-8")), script
