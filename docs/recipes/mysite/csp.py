from csp.constants import UNSAFE_EVAL, UNSAFE_INLINE
from django.utils.deprecation import MiddlewareMixin

# What the theme django-unfold needs. Start with nothing, and add what the browser's console complains of.
RELAXED = {"script-src": [UNSAFE_EVAL, UNSAFE_INLINE], "style-src": [UNSAFE_INLINE]}


class RelaxedAdmin(MiddlewareMixin):
    """Behind CSPMiddleware: does to all pages of the admin what the decorator csp_update() does to one view."""

    def process_response(self, request, response):
        if request.path.startswith("/admin/"):
            response._csp_update = RELAXED
        return response
