"""The combinations of options that the tests bake."""

COMBINATIONS = [
    {"github_actions": "yes"},
    {"github_actions": "no"},
]
