"""Tickets: a page or an app that is logged in fetches one, and opens a socket with it where no cookie goes."""

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import REASON_BAD_ORIGIN, CsrfViewMiddleware
from django.utils.cache import patch_vary_headers
from django.utils.log import log_response
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from .process import process
from .users import MODEL_BACKEND, UserBatcher

TICKET_SECONDS = 60


def ticket_of(user):
    """
    Return a ticket for `user`, a str of characters that a subprotocol may have (RFC 9110, section 5.6.2).

    It may be used several times within TICKET_SECONDS, and until the user's password changes. It is not tied to a
    session: logout ends neither the ticket nor its socket.
    """
    return signer().sign_object([user._meta.pk.value_to_string(user), user.get_session_auth_hash()])


async def user_of_ticket(token: str, scope: dict):
    """Return the user of `token`, a str that may be anything, or None: the default of REALTIME_TOKEN_USER."""
    try:
        pk, session_hash = signer().unsign_object(token, max_age=TICKET_SECONDS)
        pk = get_user_model()._meta.pk.to_python(pk)
    except (BadSignature, ValueError, ValidationError):
        return None
    return await process()[UserBatcher].add((pk, MODEL_BACKEND, session_hash))


def signer():
    return TimestampSigner(sep=".", salt="realtime.ticket")


class FormCheck(CsrfViewMiddleware):
    """Django's check of forms; of a refusal it returns the reason, a str, instead of a page."""

    def _reject(self, request, reason):
        return reason


@csrf_exempt
@login_not_required
@never_cache
@require_http_methods(["POST", "OPTIONS"])
def ticket(request):
    """
    Answer {"ticket": str, "expires_in": seconds}, or {"error": str} with 401 or 403.

    Pages of REALTIME_ALLOWED_ORIGINS need no CSRF token, since browsers tell their Origin; all others pass Django's
    check.
    """
    origin = request.headers.get("Origin")
    is_allowed = origin is not None and origin.lower() in settings.REALTIME_ALLOWED_ORIGINS
    if request.method == "OPTIONS":
        response = HttpResponse(status=204)
    elif not is_allowed and (reason := refusal(request)):
        response = JsonResponse({"error": reason}, status=403)
        # A page of a foreign origin cannot read the reason: its developer finds it here.
        log_response("Forbidden (%s): %s", reason, request.path, response=response, request=request)
    elif not request.user.is_authenticated:
        response = JsonResponse({"error": "Log in first."}, status=401)
    else:
        response = JsonResponse({"ticket": ticket_of(request.user), "expires_in": TICKET_SECONDS})
    patch_vary_headers(response, ["Origin"])
    if is_allowed:
        # https://fetch.spec.whatwg.org/#http-cors-protocol
        response["Access-Control-Allow-Origin"] = origin
        response["Access-Control-Allow-Credentials"] = "true"
        response["Access-Control-Allow-Methods"] = "POST"
        response["Access-Control-Allow-Headers"] = "content-type, x-csrftoken"
    return response


def refusal(request):
    """Return why Django's check of forms refuses `request`, a str, or None."""
    check = FormCheck(get_response=ticket)
    check.process_request(request)
    reason = check.process_view(request, None, (), {})
    if reason and reason == REASON_BAD_ORIGIN % request.headers.get("Origin"):
        return f"{reason} If the page is yours, add its origin to DJANGO_ALLOWED_ORIGINS."
    return reason
