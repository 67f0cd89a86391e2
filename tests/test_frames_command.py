"""`manage.py frames`: what the consumers declare, as AsyncAPI, TypeScript and Markdown."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import npm
import pytest
from servers import run

PROBES = Path(__file__).parent / "probes"
PACKAGES = ["@asyncapi/parser@3.6.6", "typescript@7.0.2"]
PARSE = """
const { Parser } = require("@asyncapi/parser");
const { readFileSync } = require("node:fs");
new Parser().parse(readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const problems = diagnostics.filter(({ severity }) => severity < 2);
  for (const { code, message, path } of problems) console.log(code, message, path.join("."));
  const operations = document && document.operations().all();
  console.log(JSON.stringify(operations && operations.map((operation) => [
    operation.action(),
    operation.channels().all()[0].address(),
    operation.messages().all().map((message) => message.payload().properties().type.enum()[0]),
  ])));
  process.exitCode = document && !problems.length ? 0 : 1;
});
"""
TYPED = """
import type { BoardReceives, Message, Stroke, State, __NAME__ } from "./frames";

export function answer(frame: State | Stroke): BoardReceives {
  if (frame.type === "whole-state") {
    const corner: [number, number] = frame.corner;
    return { type: "message", text: `${frame.at} ${corner[0] + (frame.seq ?? 0)} ${frame.strokes[0]?.points[0]?.x}` };
  }
  return { ...frame, colour: "blue", width: 2 };
}

export const others: __NAME__ = { type: "message", stars: 3 };
const message: Message = { type: "message", text: "a", id: null };
// @ts-expect-error: a Message has a text
export const wrong: Message = { type: "message" };
// @ts-expect-error: unknown colour
export const green: Stroke = { type: "stroke", points: [], colour: "green" };
export default message;
"""
PAGE = """
import type { ErrorFrame } from "./frames";

export function raise(frame: ErrorFrame): never {
  throw new Error(frame.message);
}
"""


@pytest.fixture(scope="module")
def node_packages():
    """The folder that node finds PACKAGES from."""
    return npm.install(*PACKAGES)


@pytest.fixture(scope="module")
def with_routes(bake, tmp_path_factory):
    """Return a function that bakes a project whose sockets are the `websocket_urlpatterns` of a file in probes/."""

    def with_routes(name):
        project = shutil.copytree(bake(), tmp_path_factory.mktemp(name) / "project")
        shutil.copy(PROBES / f"{name}.py", project / "chat" / "probes.py")
        with (project / "chat" / "routing.py").open("a", encoding="utf-8") as routing:
            routing.write("\nfrom .probes import websocket_urlpatterns  # noqa: E402, F811\n")
        return project

    return with_routes


@pytest.fixture(scope="module")
def declared(with_routes):
    return with_routes("declared")


@pytest.fixture(scope="module")
def document(declared):
    return json.loads(run(declared, "manage.py", "frames").stdout)


def parse(node_packages, document):
    """Return [[action, address, types of its messages]] as the official parser reads them."""
    command = ["node", "-e", PARSE]
    text = json.dumps(document)
    parsed = subprocess.run(command, cwd=node_packages, input=text, capture_output=True, encoding="utf-8", timeout=120)
    assert parsed.returncode == 0, parsed.stdout + parsed.stderr
    return json.loads(parsed.stdout)


def compile_typescript(node_packages, folder):
    files = sorted(folder.glob("*.ts"))
    command = ["node_modules/.bin/tsc", "--noEmit", "--strict", "--noUncheckedIndexedAccess", *files]
    compiled = subprocess.run(command, cwd=node_packages, capture_output=True, encoding="utf-8", timeout=120)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr


def test_the_official_parser_accepts_the_document(node_packages, document):
    greetings = ["pong", "error", "wait"]
    assert parse(node_packages, document) == [
        ["receive", "/ws/board/{room}/", ["ping", "stroke", "message"]],
        ["send", "/ws/board/{room}/", [*greetings, "stroke", "message", "whole-state", "connection_established"]],
        ["receive", "/ws/other/{number}/", ["ping", "message"]],
        ["send", "/ws/other/{number}/", ["connection_established", *greetings, "message"]],
        ["receive", "/ws/chat/", ["ping", "stroke"]],
        ["send", "/ws/chat/", ["connection_established", *greetings]],
    ]


def test_frames_of_the_same_name_stay_apart(document):
    schemas = document["components"]["schemas"]

    assert schemas["chat.probes.Message"]["required"] == ["type", "text"]
    assert schemas["chat.probes.Other.Message"]["required"] == ["type", "stars"]
    assert "Message" not in schemas
    # What realtime's own are called depends on nobody else.
    assert "room" in schemas["chat.probes.ConnectionEstablished"]["required"]
    assert "ConnectionEstablished" in schemas
    assert "room" not in schemas["ConnectionEstablished"]["properties"]
    (reference,) = (
        message["$ref"]
        for message in document["channels"]["ws_other_number"]["messages"].values()
        if message["$ref"].endswith("Message")
    )
    assert reference == "#/components/messages/chat.probes.Other.Message"


def test_frames_of_the_same_name_and_module_are_refused(with_routes):
    result = run(with_routes("declared_twice"), "manage.py", "frames", check=False)

    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "CommandError: Two different frames are called chat.probes.make_consumer.<locals>.Message; rename one."
    ]


def test_every_socket_is_in_the_document(document):
    channels = {channel["address"]: channel for channel in document["channels"].values()}

    boards, tutorials = ["board/{room}", "other/{number}"], ["other/tutorial/{room}", "other-tutorial/{room}"]
    assert list(channels) == [f"/ws/{path}/" for path in [*boards, *tutorials, "chat"]]
    assert channels["/ws/board/{room}/"]["description"] == "A whiteboard for many."
    assert channels["/ws/other/tutorial/{room}/"]["messages"] == {}
    # What is in braces in an address has to be described.
    for address, channel in channels.items():
        assert [*channel["parameters"]] == re.findall(r"{(\w+)}", address)
    assert document["components"]["messages"]["Stroke"]["summary"] == "Draw a line."


def test_a_project_without_a_consumer_is_told_so(bake, tmp_path):
    project = shutil.copytree(bake(), tmp_path / "project")
    (project / "chat" / "routing.py").write_text("websocket_urlpatterns = []\n")

    result = run(project, "manage.py", "frames", check=False)

    assert result.returncode == 1
    assert result.stdout == "CommandError: ASGI_APPLICATION has no consumer behind a URLRouter for websocket.\n"


def test_limits_are_in_the_schema(document):
    text = document["components"]["schemas"]["chat.probes.Message"]["properties"]["text"]

    assert (text["minLength"], text["maxLength"]) == (1, 2000)


def test_the_types_are_typescript(node_packages, declared, tmp_path):
    types = run(declared, "manage.py", "frames", "--typescript").stdout
    (tmp_path / "frames.ts").write_text(types, encoding="utf-8")
    # Two of its consumers are both called Board.
    names = {"BoardReceives": "chat_probes_BoardReceives", "Message": "chat_probes_Message"}
    code = TYPED.replace("__NAME__", "chat_probes_OtherBoardReceives")
    for name, longer in names.items():
        code = code.replace(f" {name},", f" {longer} as {name},")
    (tmp_path / "typed.ts").write_text(code, encoding="utf-8")

    compile_typescript(node_packages, tmp_path)
    assert "/** Draw a line. It is kept for a day. */\nexport type Stroke = {" in types
    assert "\nexport type ChatReceives = Ping | Stroke;\n" in types
    assert "unknown" not in types.replace('"next-one"?: unknown;', "").replace("Record<string, unknown>", "")


def test_the_table_has_a_row_for_each_frame(declared):
    tables = run(declared, "manage.py", "frames", "--table").stdout

    assert tables.startswith("`/ws/board/{room}/`\n\n| from | frame | |\n| --- | --- | --- |\n| page | `{")
    stroke = '`{"type": "stroke", "points": […], "id"?: "…", "colour"?: "blue" or "red", "width"?: 1 or 2}`'
    assert f"| page, server | {stroke} | Draw a line. |\n" in tables
    assert "/ws/other/tutorial/" not in tables
    assert "| Say something, */ even this \\| that. |\n" in tables
    assert '| server | `{"type": "connection_established", "room": "…", "id"?: "…", "max_size"?: n,' in tables


@pytest.mark.parametrize("starter", ["minimal", "chat"])
def test_the_starters_are_described(bake, node_packages, starter, tmp_path):
    project = bake(starter=starter)
    channels = parse(node_packages, json.loads(run(project, "manage.py", "frames").stdout))
    types = run(project, "manage.py", "frames", "--typescript").stdout
    (tmp_path / "frames.ts").write_text(types, encoding="utf-8")

    # Under the name of the class, a page that imports it would have no errors of its own.
    (tmp_path / "page.ts").write_text(PAGE, encoding="utf-8")
    compile_typescript(node_packages, tmp_path)
    assert all(address.startswith("/ws/socket-server/") for _, address, _ in channels)


def frames_in(table):
    """Return {(side, type): names of its fields} of a README's rows `| page, server | `{"type": …}`, `{…}` |`."""
    listed = {}
    for sides, text in re.findall(r"^\| ((?:page|server)[^|]*) \| (.*) \|$", table, re.MULTILINE):
        sides = re.findall("page|server", sides)
        frames = re.findall(r'\{"type": "(\w+)"(.*?)\}', text)
        # Two sides: the question of the one, the answer of the other.
        for side, (type, fields) in zip(sides, frames, strict=True):
            listed[side, type] = {"type", *re.findall(r'"(\w+)": ', fields)}
    return listed


@pytest.mark.parametrize(("starter", "readme"), [("minimal", "README.md"), ("chat", "chat/README.md")])
def test_the_readme_lists_the_frames(bake, starter, readme):
    project = bake(starter=starter)
    document = json.loads(run(project, "manage.py", "frames").stdout)
    schemas = document["components"]["schemas"]
    declared = {}
    for operation in document["operations"].values():
        for message in operation["messages"]:
            schema = schemas[message["$ref"].rpartition("/")[2]]
            (type,) = schema["properties"]["type"]["enum"]
            declared["page" if operation["action"] == "receive" else "server", type] = schema

    listed = frames_in((project / readme).read_text(encoding="utf-8"))

    assert set(listed) == set(declared)
    for frame, schema in declared.items():
        assert set(schema["required"]) <= listed[frame] <= set(schema["properties"]), frame
