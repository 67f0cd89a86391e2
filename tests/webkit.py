"""
Run WebKitGTK for WebKitWebDriver, without the buttons and the least width of its MiniBrowser.

    python webkit.py SCRIPT [--dark]

Each new window is a profile of its own; each new tab is another window in the profile of the last one. Each page runs
SCRIPT first. The warnings and errors that pages write to their consoles, from their first line on, are printed: a JSON
list `[url, text, place]` each.
"""

import ctypes
import sys

# WebKit itself prints nothing of a profile that is forgotten in the end.
NOTE = r"""{
const note = (...line) =>
  webkit.messageHandlers.note.postMessage(JSON.stringify([location.href, ...line.map(String)]));
const watch = (type, tell) => addEventListener(type, (event) => note(...tell(event)), true);
for (const type of ["warn", "error", "assert"]) {
  const write = console[type];
  console[type] = (...data) => {
    if (type !== "assert" || !data[0]) note(data.join(" "), Error().stack.split("\n")[1]);
    write.apply(console, data);
  };
}
watch("error", ({ message, filename, lineno, target }) =>
  message ? [message, `${filename}:${lineno}`] : ["not loaded", target.src ?? target.href]);
watch("unhandledrejection", ({ reason }) => [reason, reason?.stack]);
watch("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile, lineNumber }) =>
  [`against the CSP: ${violatedDirective} ${blockedURI}`, `${sourceFile}:${lineNumber}`]);
}"""
START_OF_DOCUMENT = 0
# Those that it is linked with are found through it.
library = ctypes.CDLL("libwebkit2gtk-4.1.so.0")
callback = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def call(name, *arguments):
    """Call a function of C. Each str is passed as UTF-8, and an address, if it returns one, is a c_void_p."""
    function = getattr(library, name)
    function.restype = ctypes.c_void_p
    return ctypes.c_void_p(function(*[value.encode() if isinstance(value, str) else value for value in arguments]))


def connect(source, signal, function):
    call("g_signal_connect_data", source, signal, function, None, None, 0)


def main(script, is_dark):
    """Open a window or tab whenever WebKitWebDriver asks for one, until it ends this process."""
    call("gtk_init_check", None, None)
    call("g_object_set", call("gtk_settings_get_default"), "gtk-application-prefer-dark-theme", is_dark, None)
    context = call("webkit_web_context_new")
    scripts = call("webkit_user_content_manager_new")
    script = call("webkit_user_script_new", NOTE + script, 0, START_OF_DOCUMENT, None, None)
    call("webkit_user_content_manager_add_script", scripts, script)
    views = []

    def open_view(**properties):
        named = [part for name, value in properties.items() for part in (name.replace("_", "-"), value)]
        kind = ctypes.c_size_t(call("webkit_web_view_get_type").value)
        view = call("g_object_new", kind, "user-content-manager", scripts, *named, None)
        window = call("gtk_window_new", 0)
        call("gtk_window_set_default_size", window, 1280, 720)
        call("gtk_container_add", window, view)
        call("gtk_widget_show_all", window)
        connect(view, "close", close)
        views.append(view)
        return view.value

    @callback
    def close(view, *_):
        call("gtk_widget_destroy", call("gtk_widget_get_toplevel", ctypes.c_void_p(view)))

    @callback
    def open_window(session, *_):
        return open_view(web_context=context, is_ephemeral=1, is_controlled_by_automation=1)

    @callback
    def open_tab(session, *_):
        return open_view(related_view=views[-1])

    @callback
    def start(context, session, _):
        connect(ctypes.c_void_p(session), "create-web-view::window", open_window)
        connect(ctypes.c_void_p(session), "create-web-view::tab", open_tab)

    @callback
    def write(scripts, result, _):
        value = call("webkit_javascript_result_get_js_value", ctypes.c_void_p(result))
        print(ctypes.string_at(call("jsc_value_to_string", value).value).decode(), flush=True)

    connect(scripts, "script-message-received::note", write)
    call("webkit_user_content_manager_register_script_message_handler", scripts, "note")
    connect(context, "automation-started", start)
    call("webkit_web_context_set_automation_allowed", context, 1)
    call("gtk_main")


main(sys.argv[1], "--dark" in sys.argv)
