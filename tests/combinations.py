"""The combinations of options that the tests bake: ALL is for what is quick."""

import itertools

import pytest

OPTIONS = {"starter": ["minimal", "chat"], "docker": ["yes", "no"], "github_actions": ["yes", "no"]}

ALL = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]

# Each value at least once with each starter. Without the options the same files are baked, save those of the options.
COMBINATIONS = [
    pytest.param(answers, id="-".join(answers.values()), marks=[pytest.mark.weekly] * (answers["docker"] == "no"))
    for answers in ALL
    if answers["docker"] == answers["github_actions"]
]
MINIMAL = [parameters for parameters in COMBINATIONS if parameters.values[0]["starter"] == "minimal"]
CHAT = [parameters for parameters in COMBINATIONS if parameters.values[0]["starter"] == "chat"]
