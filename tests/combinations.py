"""The combinations of options that the tests bake: ALL is for what is quick."""

import itertools

OPTIONS = {"starter": ["minimal", "chat"], "docker": ["yes", "no"], "github_actions": ["yes", "no"]}

ALL = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]

# Each value at least once with each starter.
COMBINATIONS = [answers for answers in ALL if answers["docker"] == answers["github_actions"]]
MINIMAL = [answers for answers in COMBINATIONS if answers["starter"] == "minimal"]
CHAT = [answers for answers in COMBINATIONS if answers["starter"] == "chat"]
