"""Writes down which frames the consumers take and send, for whoever builds a page, an app or a script for them."""

import inspect
import json
import re
from collections import Counter

import msgspec
from channels.routing import URLRouter, get_default_application
from django.conf import settings
from django.contrib.admindocs.utils import (
    remove_non_capturing_groups,
    replace_metacharacters,
    replace_named_groups,
    replace_unnamed_groups,
)
from django.core.management.base import BaseCommand, CommandError
from django.urls.resolvers import RegexPattern

from realtime.checks import inner_of
from realtime.frames import ConnectionEstablished, Error, Ping, Pong, Wait

BASE_RECEIVES = [Ping]
BASE_SENDS = [ConnectionEstablished, Pong, Error, Wait]
# Types of TypeScript and its browsers that a frame is likely to be called by.
GLOBALS = {"Array", "Date", "Error", "Event", "Map", "Notification", "Object", "Range", "Record", "Selection", "Set"}


class Command(BaseCommand):
    help = "Prints the frames of all consumers as an AsyncAPI 3 document, TypeScript types or Markdown tables."

    def add_arguments(self, parser):
        formats = parser.add_mutually_exclusive_group()
        formats.add_argument("--typescript", action="store_true", help="Print TypeScript types.")
        formats.add_argument("--table", action="store_true", help="Print a Markdown table for each path.")

    def handle(self, *args, typescript, table, **options):
        routes = list(find_routes(get_default_application()))
        if not routes:
            raise CommandError("ASGI_APPLICATION has no consumer behind a URLRouter for websocket.")
        frames = [frame for _, consumer in routes for frames in frames_of(consumer) for frame in frames]
        names, schemas = describe(dict.fromkeys(frames))
        declared = [(path, consumer) for path, consumer in routes if any(frames_of(consumer))]
        if typescript:
            self.stdout.write(to_typescript(declared, names, schemas))
        elif table:
            self.stdout.write(to_tables(declared, names, schemas))
        else:
            document = to_asyncapi(routes, names, schemas)
            self.stdout.write(json.dumps(document, indent=2, ensure_ascii=False))


def find_routes(application, path=""):
    """Yield (path, consumer class) of each WebSocket below an ASGI application: "/ws/chat/{room}/"."""
    if isinstance(application, URLRouter):
        for route in application.routes:
            yield from find_routes(route.callback, path + path_of(route.pattern))
    elif hasattr(application, "consumer_class"):
        yield "/" + path.lstrip("/"), application.consumer_class
    elif application is not None:
        yield from find_routes(inner_of(application), path)


def path_of(pattern):
    """Return the pattern of a path() or re_path() with {names} in place of what they catch."""
    text = str(pattern)
    if isinstance(pattern, RegexPattern):
        text = replace_named_groups(remove_non_capturing_groups(text))
        text = replace_metacharacters(replace_unnamed_groups(text))
    return re.sub(r"<(?:[^<>:]+:)?(\w+)>", r"{\1}", text)


def frames_of(consumer):
    """Return two lists of Frame classes: what this consumer takes, and what it sends. Channels' own declare none."""
    if not hasattr(consumer, "receives"):
        return [], []
    return with_base(consumer.receives, BASE_RECEIVES), with_base(consumer.sends, BASE_SENDS)


def with_base(frames, base):
    """Return `frames`, behind those of the base class that they do not replace by one of the same type."""
    types = {type_of(frame) for frame in frames}
    return list(dict.fromkeys([*[frame for frame in base if type_of(frame) not in types], *frames]))


def type_of(frame):
    return frame.__struct_config__.tag


def describe(frames):
    """
    Return {Frame class: name} and {name: JSON schema}, of these frames and all that is in them.

    Classes of the same name are called by their modules, too, save those of realtime: their names are the same
    in every project, and do not change with the next app.
    """
    places = Counter((frame.__module__, frame.__qualname__) for frame in frames)
    if twice := [".".join(place) for place, count in places.items() if count > 1]:
        raise CommandError(f"Two different frames are called {twice[0]}; rename one.")
    taken = {frame.__name__ for frame in frames}
    same = [frame for frame in (*BASE_RECEIVES, *BASE_SENDS) if frame.__name__ in taken and frame not in frames]
    references, schemas = msgspec.json.schema_components(
        [*frames, *same], schema_hook=lambda type: {}, ref_template="#/components/schemas/{name}"
    )
    names = {frame: short(reference["$ref"]) for frame, reference in zip(frames, references, strict=False)}
    return names, {short(name): tidy(schema) for name, schema in schemas.items()}


def short(reference):
    """Return the name that a reference ends with, without the module of realtime's own frames."""
    return reference.rpartition("/")[2].removeprefix(f"{Ping.__module__}.")


def tidy(schema):
    """
    Return a JSON schema with short references, and without the objects that OpenAPI calls "discriminator".

    AsyncAPI has strings of this name, and the types say it anyway.
    """
    if isinstance(schema, list | tuple):
        return [tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return schema | {"$ref": f"#/components/schemas/{short(schema['$ref'])}"}
    return {
        key: tidy(value) for key, value in schema.items() if not (key == "discriminator" and "propertyName" in value)
    }


def summary_of(anything):
    """Return the first paragraph of a docstring, in one line; "" without one."""
    return " ".join(inspect.cleandoc(anything.__doc__ or "").partition("\n\n")[0].split())


def to_asyncapi(routes, names, schemas):
    """Return an AsyncAPI document, a dict. https://www.asyncapi.com/docs/reference/specification/v3.0.0"""
    channels, operations = {}, {}
    for path, consumer in routes:
        key = re.sub(r"\W+", "_", path).strip("_") or "root"
        while key in channels:
            key += "_"
        receives, sends = frames_of(consumer)
        channels[key] = {
            "address": path,
            "title": consumer.__name__,
            "description": inspect.cleandoc(consumer.__doc__ or ""),
            "parameters": {name: {} for name in re.findall(r"{(\w+)}", path)},
            "messages": {
                names[frame]: {"$ref": f"#/components/messages/{names[frame]}"} for frame in [*receives, *sends]
            },
        }
        for action, frames in (("receive", receives), ("send", sends)):
            if frames:
                operations[f"{key}.{action}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{key}"},
                    "messages": [{"$ref": f"#/channels/{key}/messages/{names[frame]}"} for frame in frames],
                }
    messages = {
        name: {
            "name": type_of(frame),
            "title": frame.__name__,
            "summary": summary_of(frame),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        for frame, name in names.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": settings.SETTINGS_MODULE.partition(".")[0], "version": "1"},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def to_typescript(routes, names, schemas):
    """Return a TypeScript module: a type for each schema, and two unions for each consumer."""
    blocks = ["// Made by `manage.py frames --typescript`."]
    for name, schema in schemas.items():
        description = " ".join(schema.get("description", "").split()).replace("*/", "* /")
        comment = f"/** {description} */\n" if description else ""
        blocks.append(f"{comment}export type {identifier(name)} = {typescript_of(schema)};")
    consumers = dict.fromkeys(consumer for _, consumer in routes)
    for consumer in consumers:
        same = [other for other in consumers if other.__name__ == consumer.__name__]
        name = consumer.__name__ if len(same) == 1 else f"{consumer.__module__}.{consumer.__qualname__}"
        paths = ", ".join(path for path, other in routes if other is consumer)
        for word, frames in zip(("Receives", "Sends"), frames_of(consumer), strict=True):
            union = " | ".join(identifier(names[frame]) for frame in frames)
            comment = f"/** What {consumer.__name__} at {paths} {word.lower()}. */"
            blocks.append(f"{comment}\nexport type {identifier(name)}{word} = {union};")
    return "\n\n".join(blocks)


def identifier(name):
    """Return the name of a type, which must not hide one of the language from the module that imports it."""
    return f"{name}Frame" if name in GLOBALS else re.sub(r"\W", "_", name)


def typescript_of(schema):
    """Return the TypeScript type for a JSON schema, a dict, as msgspec makes them."""
    if "$ref" in schema:
        return identifier(schema["$ref"].rpartition("/")[2])
    if values := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
    if parts := schema.get("anyOf", schema.get("oneOf")):
        return " | ".join(dict.fromkeys(map(typescript_of, parts)))
    match schema.get("type"):
        case "integer" | "number":
            return "number"
        case "string" | "boolean" | "null" as type:
            return type
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(map(typescript_of, schema['prefixItems']))}]"
        case "array":
            return f"Array<{typescript_of(schema.get('items') or {})}>"
        case "object" if "properties" in schema:
            required = schema.get("required", ())
            fields = [
                f"  {json.dumps(name)}{'' if name in required else '?'}: {typescript_of(field)};"
                for name, field in schema["properties"].items()
            ]
            return "\n".join(["{", *fields, "}"])
        case "object":
            return f"Record<string, {typescript_of(schema.get('additionalProperties') or {})}>"
    return "unknown"


def to_tables(routes, names, schemas):
    """Return Markdown: for each path who sends which frame. A name with a question mark may be missing."""
    blocks = []
    for path, consumer in routes:
        receives, sends = frames_of(consumer)
        lines = [f"`{path}`", "", "| from | frame | |", "| --- | --- | --- |"]
        for frame in dict.fromkeys([*receives, *sends]):
            sides = [side for side, frames in (("page", receives), ("server", sends)) if frame in frames]
            schema = schemas[names[frame]]
            required = schema["required"]
            fields = [
                f'"{name}"{"" if name in required else "?"}: {example_of(field, schemas)}'
                for name, field in sorted(schema["properties"].items(), key=lambda item: item[0] not in required)
            ]
            summary = summary_of(frame).replace("|", "\\|")
            shape = "{" + ", ".join(fields) + "}"
            lines.append(f"| {', '.join(sides)} | `{shape}` | {summary} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def example_of(schema, schemas):
    """Return what stands for a value of this schema in a table."""
    if parts := schema.get("anyOf"):
        schema = parts[0]
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if values := schema.get("enum"):
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in values)
    examples = {"string": '"…"', "integer": "n", "number": "n", "boolean": "true", "array": "[…]", "object": "{…}"}
    return examples.get(schema.get("type"), "…")
