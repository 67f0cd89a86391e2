FORCE_SCRIPT_NAME = "/shop"
# Other sites on the same host do not get them.
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = LANGUAGE_COOKIE_PATH = "/shop/"
