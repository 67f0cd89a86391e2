from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import aget_object_or_404, get_object_or_404
from django.views.decorators.http import require_POST

from realtime import anotify_user, notify_user

from .consumers import News


@login_required
@require_POST
def share(request, pk):
    """Sent when the transaction of the request commits, and never if it is rolled back."""
    user = get_object_or_404(get_user_model(), pk=pk)
    notify_user(user, News(title=f"{request.user} shares a page with you"))
    return HttpResponse(status=204)


@login_required
@require_POST
async def wave(request, pk):
    user = await aget_object_or_404(get_user_model(), pk=pk)
    await anotify_user(user, News(title=f"{await request.auser()} waves at you"))
    return HttpResponse(status=204)
