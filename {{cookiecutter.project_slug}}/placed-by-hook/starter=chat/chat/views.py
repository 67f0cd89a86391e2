from datetime import UTC, datetime
from functools import wraps

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.http import Http404
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from .forms import MemberForm, RoomForm
from .models import Ban, Block, Membership, Reading, Room, ban, get_room, list_rooms, with_last_messages
from .routing import websocket_urlpatterns

ROOMS_ON_A_PAGE = 50


@login_required
def rooms(request):
    """The rooms that the visitor may enter, their own first, by the last message; and a form that makes another."""
    # No name is longer, and SQLite fails at a pattern of more than 50,000 bytes.
    wanted = request.GET.get("q", "").replace("\0", "").strip()[:100]
    form = RoomForm(request.user, request.POST or None, initial={"name": wanted})
    if request.method == "POST":
        with transaction.atomic():
            # One after the other, or many that come at the same moment all count the same rooms.
            get_user_model().objects.select_for_update(no_key=True).get(pk=request.user.pk)
            if form.is_valid():
                return redirect(form.save())
    context = list_context(request, wanted) | {"room_form": form}
    return render(request, "chat/items.html" if request.GET.get("part") == "list" else "chat/rooms.html", context)


def list_context(request, wanted=""):
    """Return what chat/list.html shows, a dict: a page of the rooms that have `wanted` in their names."""
    # Before the query: what is stored after it comes over the socket.
    as_of = datetime.now(UTC).timestamp() * 1000
    rooms = Paginator(list_rooms(request.user, wanted), ROOMS_ON_A_PAGE).get_page(request.GET.get("page"))
    rooms.object_list = with_last_messages(rooms.object_list)
    return {
        "as_of": as_of,
        "blocked": [block.blocked.get_username() for block in blocks_of(request.user)],
        "rooms": rooms,
        "wanted": wanted,
        "room_form": RoomForm(request.user),
        "list_socket_path": socket_path("list-socket"),
    }


def socket_path(name, *args):
    """Return the path of a socket, so that chat/routing.py stays the only place for it."""
    return reverse(name, urlconf=tuple(websocket_urlpatterns), args=args)


def enterable(view):
    """Decorate a view of a room, which is handed the Room of the slug: 404 unless the visitor may enter it."""

    @login_required
    @wraps(view)
    def of_room(request, slug, **kwargs):
        try:
            room = get_room(request.user, slug)
        except (Room.DoesNotExist, PermissionDenied):
            # One answer for both, which does not tell whether a closed room exists.
            raise Http404(_("There is no such room, or you are not a member of it.")) from None
        return view(request, room, **kwargs)

    return of_room


@enterable
def room(request, room):
    """The page of step 4."""
    form = None if room.is_open else MemberForm(room, request.user, request.POST or None)
    if request.method == "POST" and form and form.is_valid():
        form.save()
        return redirect(room)
    reading = Reading.objects.filter(room=room, user=request.user).first()
    is_owner = room.owner_id == request.user.pk
    context = list_context(request) | {
        "room": room,
        "current": room.slug,
        "members": None if room.is_open else room.members.order_by("username"),
        "is_owner": is_owner,
        "banned": Ban.objects.filter(room=room).select_related("user") if is_owner else (),
        "form": form,
        "socket_path": socket_path("socket", room.slug),
        "read_seq": reading.read_seq if reading else None,
        "max_text_length": settings.CHAT_MAX_TEXT_LENGTH,
    }
    return render(request, "chat/room.html", context)


def blocks_of(user):
    return Block.objects.filter(user=user).select_related("blocked")


@require_POST
@enterable
def leave(request, room):
    """Take the room from the visitor's list, and a closed one out of their reach."""
    if room.owner_id == request.user.pk and not room.is_open:
        raise PermissionDenied(_("The owner of a room for members only cannot leave it."))
    Membership.objects.filter(room=room, user=request.user).delete()
    Reading.objects.filter(room=room, user=request.user).delete()
    return redirect("chat:rooms")


@enterable
def person(request, room, username):
    """What the visitor can do about somebody: block them; and in a room of their own, remove and ban them."""
    person = get_object_or_404(get_user_model(), **{get_user_model().USERNAME_FIELD: username})
    is_owner = room.owner_id == request.user.pk
    acts = {
        "block": lambda: Block.objects.get_or_create(user=request.user, blocked=person),
        "unblock": lambda: Block.objects.filter(user=request.user, blocked=person).delete(),
    }
    if is_owner:
        acts |= {
            "remove": lambda: Membership.objects.filter(room=room, user=person).delete(),
            "ban": lambda: ban(room, person),
            "unban": lambda: Ban.objects.filter(room=room, user=person).delete(),
        }
    if request.method == "POST":
        act = acts.get(request.POST.get("act"))
        if act is None or person == request.user:
            raise PermissionDenied(_("Only the owner of a room can do this, and nobody to themselves."))
        act()
        return redirect(room)
    context = {
        "room": room,
        "person": person,
        "is_self": person == request.user,
        "is_owner": is_owner,
        "is_member": not room.is_open and Membership.objects.filter(room=room, user=person).exists(),
        "is_banned": Ban.objects.filter(room=room, user=person).exists(),
        "is_blocked": Block.objects.filter(user=request.user, blocked=person).exists(),
    }
    return render(request, "chat/person.html", context)
