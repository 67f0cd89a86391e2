from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse

from .forms import MemberForm, RoomForm
from .models import Room, get_room
from .routing import websocket_urlpatterns

ROOMS_ON_A_PAGE = 50


@login_required
def rooms(request):
    """The rooms that the visitor may enter, a page of them, by name; and a form that makes another."""
    form = RoomForm(request.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect(form.save())
    wanted = request.GET.get("q", "").replace("\0", "").strip()
    rooms = Room.objects.joinable(request.user)
    if wanted:
        rooms = rooms.filter(name__icontains=wanted)
    context = {
        "rooms": Paginator(rooms, ROOMS_ON_A_PAGE).get_page(request.GET.get("page")),
        "wanted": wanted,
        "form": form,
    }
    return render(request, "chat/rooms.html", context)


@login_required
def room(request, slug):
    """The page of step 4. It learns the socket's path here, so that chat/routing.py stays the only place for it."""
    try:
        room = get_room(request.user, slug)
    except (Room.DoesNotExist, PermissionDenied):
        # One answer for both, which does not tell whether a closed room exists.
        raise Http404("There is no such room, or you are not a member of it.") from None
    form = None if room.is_open else MemberForm(request.POST or None)
    if request.method == "POST" and form and form.is_valid():
        form.save(room)
        return redirect(room)
    context = {
        "room": room,
        "members": None if room.is_open else room.members.order_by("username"),
        "form": form,
        "socket_path": reverse("socket", urlconf=tuple(websocket_urlpatterns), args=[slug]),
        "max_text_length": settings.CHAT_MAX_TEXT_LENGTH,
    }
    return render(request, "chat/room.html", context)
