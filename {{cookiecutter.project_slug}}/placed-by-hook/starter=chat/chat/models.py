"""
Rooms, who may enter them, and their messages, numbered 1, 2, 3, … in each room without a gap.

The consumer and the views read and write them with these functions only.
"""

from datetime import timedelta
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, models, transaction
from django.db.models import F, Max, Q
from django.urls import reverse
from django.utils import timezone

from realtime.socket import shown

# A process that gives no sign of life for so long is dead; see BEAT in chat/presence.py.
PRESENCE_LIFETIME = timedelta(seconds=25)


class NumberField(models.PositiveBigIntegerField):
    """
    A number that only update() changes.

    save() writes every field of an object that was read long ago, as the admin does, and would set the number back.
    """

    def pre_save(self, model_instance, add):
        return super().pre_save(model_instance, add) if add else F(self.attname)


class RoomQuerySet(models.QuerySet):
    def joinable(self, user):
        """Return the rooms that `user`, who is logged in, may enter."""
        return self.filter(Q(is_open=True) | Q(pk__in=Membership.objects.filter(user=user).values("room")))


class Room(models.Model):
    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    is_open = models.BooleanField("open to everybody who is logged in", default=True)
    # The user whose CHAT_ROOMS_PER_USER it counts for; None for rooms of the admin and of commands.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="owned_rooms"
    )
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="rooms")
    # The number of the newest message.
    last_seq = NumberField(default=0, editable=False)

    objects = RoomQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("chat:room", args=[self.slug])


class Membership(models.Model):
    """Lets a user into a room that is not open."""

    room = models.ForeignKey(Room, models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["room", "user"], name="chat_membership_once")]

    def __str__(self):
        return f"{self.user} in {self.room}"


class Message(models.Model):
    # Made by the sender's browser, which sends the message again until it knows that it is stored.
    id = models.UUIDField(primary_key=True)
    room = models.ForeignKey(Room, models.CASCADE, related_name="messages", db_index=False)
    seq = models.PositiveBigIntegerField()
    # None when the account is gone: without its messages the numbers would have gaps.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    # Empty when somebody has removed it in the admin.
    text = models.TextField(blank=True)
    sent_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["room", "seq"]
        constraints = [
            # Its index finds the messages above or below a number, too.
            models.UniqueConstraint(fields=["room", "seq"], name="chat_message_seq"),
            models.CheckConstraint(condition=Q(seq__gte=1), name="chat_message_seq_from_1"),
        ]

    def __str__(self):
        return f"{self.room_id}/{self.seq}"


class Presence(models.Model):
    """A user has a socket to a room in a process, which says so again and again; see chat/presence.py."""

    room = models.ForeignKey(Room, models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    process = models.UUIDField()
    seen_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["room", "user", "process"], name="chat_presence_once")]

    def __str__(self):
        return f"{self.user} in {self.room}"


class IdTaken(Exception):
    """The id belongs to another message."""


def can_join(user, room):
    """Tell whether `user` may enter `room`, read it and write in it. No other place decides that."""
    return user.is_authenticated and Room.objects.joinable(user).filter(pk=room.pk).exists()


def get_room(user, slug):
    """Return the Room of this slug. Raises Room.DoesNotExist, PermissionDenied if `user` may not enter it."""
    room = Room.objects.get(slug=slug)
    if not can_join(user, room):
        # Django logs the text, and a name may hold a newline.
        raise PermissionDenied(f"You are not a member of {shown(room.name)}.")
    return room


class Place(NamedTuple):
    """A user in a room. last_seq: the number of its newest message. may_enter: as can_join(), for sockets."""

    room_id: int
    last_seq: int
    may_enter: bool


def look_up(pairs, by="pk"):
    """
    Return a dict of Places by pair, without those of rooms that do not exist: two queries in all.

    pairs: of a room's primary key, or its slug with by="slug", and a user's primary key.
    """
    rooms = Room.objects.filter(**{f"{by}__in": {name for name, _ in pairs}})
    rooms = {name: room for name, *room in rooms.values_list(by, "pk", "last_seq", "is_open")}
    # Who may enter a room that is closed is decided below.
    places = {pair: Place(*rooms[pair[0]]) for pair in pairs if pair[0] in rooms}
    closed = [(place.room_id, user_id) for (_, user_id), place in places.items() if not place.may_enter]
    room_ids, user_ids = {room_id for room_id, _ in closed}, {user_id for _, user_id in closed}
    members = set(Membership.objects.filter(room__in=room_ids, user__in=user_ids).values_list("room", "user"))
    for (name, user_id), place in places.items():
        if (place.room_id, user_id) in members:
            places[name, user_id] = place._replace(may_enter=True)
    return places


def find_places(pairs):
    """As look_up(), by the slugs of rooms."""
    return look_up(pairs, by="slug")


def post_message(room_id, user, id, text):
    """
    Store a message and return it, and whether it is new: the same id from the same user is stored once.

    id: UUID. text: str. Raises IdTaken when the id is somebody else's, or in another room; Room.DoesNotExist.
    """
    try:
        return store_message(room_id, user, id, text), True
    except IntegrityError:
        message = Message.objects.filter(pk=id).select_related("user").first()
    if message is None:
        # Not the id but the number is taken: the room's number is behind, as after loading an old dump.
        catch_up(room_id)
        return store_message(room_id, user, id, text), True
    if (message.room_id, message.user_id) != (room_id, user.pk):
        raise IdTaken
    return message, False


@transaction.atomic
def store_message(room_id, user, id, text):
    # This locks the room's row until the commit, so that numbers become visible in their order.
    Room.objects.filter(pk=room_id).update(last_seq=F("last_seq") + 1)
    seq = Room.objects.values_list("last_seq", flat=True).get(pk=room_id)
    return Message.objects.create(id=id, room_id=room_id, seq=seq, user=user, text=text)


@transaction.atomic
def catch_up(room_id):
    """Set the room's number to that of its newest message, if it is behind."""
    # Writers wait from here on, so that the newest message stays the newest.
    list(Room.objects.select_for_update().filter(pk=room_id))
    newest = Message.objects.filter(room=room_id).aggregate(newest=Max("seq"))["newest"] or 0
    Room.objects.filter(pk=room_id, last_seq__lt=newest).update(last_seq=newest)


def messages_after(room_id, seq, count):
    """Return the `count` messages of the room that follow the number `seq`, oldest first, as a list."""
    return list(Message.objects.filter(room=room_id, seq__gt=seq).order_by("seq").select_related("user")[:count])


def messages_before(room_id, seq, count):
    """Return the `count` messages of the room that precede the number `seq`, oldest first, as a list."""
    messages = Message.objects.filter(room=room_id, seq__lt=seq).order_by("-seq").select_related("user")
    return list(messages[:count])[::-1]


def get_last_seqs(room_ids):
    """Return the numbers of the newest messages, 0 if there is none, a dict by room."""
    return dict(Room.objects.filter(pk__in=room_ids).values_list("pk", "last_seq"))


def record_presence(process, stored, pairs, beats):
    """
    Store who has a socket in a process, and return it: a dict of primary keys of Presence, by room and user.

    process: UUID. stored: what was returned last. pairs: the primary keys of room and user, a set. beats: whether to
    say that the process is alive, and to forget those that have not done so for PRESENCE_LIFETIME.
    """
    now = timezone.now()
    stored = dict(stored)
    # SQLite takes some 30,000 parameters; the others have to wait.
    left = list(stored.keys() - pairs)[:10_000]
    Presence.objects.filter(pk__in=[stored.pop(pair) for pair in left]).delete()
    if beats:
        if Presence.objects.filter(process=process).update(seen_at=now) < len(stored):
            # Another process took this one for dead.
            stored = {}
        Presence.objects.filter(seen_at__lt=now - PRESENCE_LIFETIME).delete()
    came = [Presence(room_id=pair[0], user_id=pair[1], process=process, seen_at=now) for pair in pairs - stored.keys()]
    fields = {"unique_fields": ["room", "user", "process"], "update_fields": ["seen_at"]}
    for row in Presence.objects.bulk_create(came, update_conflicts=True, **fields):
        stored[row.room_id, row.user_id] = row.pk
    return stored


def get_names_present(room_ids):
    """Return the sorted names of who is here in each of these rooms, a dict of lists."""
    alive = Presence.objects.filter(room__in=room_ids, seen_at__gte=timezone.now() - PRESENCE_LIFETIME)
    names = {room_id: set() for room_id in room_ids}
    for room_id, name in alive.values_list("room", f"user__{get_user_model().USERNAME_FIELD}"):
        names[room_id].add(name)
    return {room_id: sorted(names) for room_id, names in names.items()}
