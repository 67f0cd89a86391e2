"""The combinations of options that the tests bake."""

COMBINATIONS = [
    {"docker": "yes", "github_actions": "yes"},
    {"docker": "no", "github_actions": "no"},
]
