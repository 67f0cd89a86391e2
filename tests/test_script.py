"""The reconnecting script's logic, by `node --test`, and what Django's static files expect of the scripts."""

import re
import shutil
import subprocess

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from servers import REPOSITORY, require

TEMPLATE = REPOSITORY / "{{cookiecutter.project_slug}}"
