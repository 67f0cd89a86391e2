"""
Rooms, who may enter them, and their messages, numbered 1, 2, 3, … in each room without a gap.

The consumer and the views read and write them with these functions only.
"""

from datetime import timedelta
from functools import cache
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, connection, models, transaction
from django.db.models import Case, Exists, F, FilteredRelation, Max, OuterRef, Q, When
from django.db.models.functions import Coalesce, Greatest, Now
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy

from realtime.socket import shown

# A process that gives no sign of life for so long is dead; see BEAT in chat/presence.py.
PRESENCE_LIFETIME = timedelta(seconds=25)


class OnlyUpdated:
    """
    A field that only update() changes.

    save() writes every field of an object that was read long ago, as the admin does, and would set the value back.
    """

    def pre_save(self, model_instance, add):
        return super().pre_save(model_instance, add) if add else F(self.attname)


class NumberField(OnlyUpdated, models.PositiveBigIntegerField):
    pass


class TimeField(OnlyUpdated, models.DateTimeField):
    pass


class RoomQuerySet(models.QuerySet):
    def joinable(self, user):
        """Return the rooms that `user`, who is logged in, may enter."""
        is_member = Q(pk__in=Membership.objects.filter(user=user).values("room"))
        return self.filter(Q(is_open=True) | is_member).exclude(pk__in=Ban.objects.filter(user=user).values("room"))


class Room(models.Model):
    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    is_open = models.BooleanField(gettext_lazy("open to everybody who is logged in"), default=True)
    # The user whose CHAT_ROOMS_PER_USER it counts for; None for rooms of the admin and of commands.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="owned_rooms"
    )
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="rooms")
    # The number of the newest message, and when it was stored; without one, when the room was made.
    last_seq = NumberField(default=0, editable=False)
    last_at = TimeField(default=timezone.now, db_default=Now(), editable=False, db_index=True)
    # How often the text of a message was changed or taken back. A page that has missed one starts anew.
    edits = NumberField(default=0, db_default=0, editable=False)

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


class Ban(models.Model):
    """Keeps a user out of a room, also out of one that is open to everybody else."""

    room = models.ForeignKey(Room, models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["room", "user"], name="chat_ban_once")]

    def __str__(self):
        return f"{self.user} not in {self.room}"


class Block(models.Model):
    """A user does not want to read another one, nor be added to rooms by them."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="blocks")
    blocked = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="blocked_by")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "blocked"], name="chat_block_once")]

    def __str__(self):
        return f"{self.user} blocks {self.blocked}"


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


class ReadingQuerySet(models.QuerySet):
    def permitted(self):
        """Leave out the rooms that their reader may not enter any more; as joinable() for many users."""
        theirs = {"room": OuterRef("room"), "user": OuterRef("user")}
        is_member = Exists(Membership.objects.filter(**theirs))
        return self.filter(Q(room__is_open=True) | is_member).exclude(Exists(Ban.objects.filter(**theirs)))


class Reading(models.Model):
    """
    How far a user has read in a room, which makes it one of their rooms. chat/unread.py writes it.

    Unread are the room's last_seq - read_seq - own messages.
    """

    room = models.ForeignKey(Room, models.CASCADE, related_name="readings")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    read_seq = models.PositiveBigIntegerField(default=0)
    # Messages above read_seq that the user has written.
    own = models.PositiveBigIntegerField(default=0)
    changed_at = models.DateTimeField(default=timezone.now, db_index=True)

    objects = ReadingQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["room", "user"], name="chat_reading_once")]

    def __str__(self):
        return f"{self.user} in {self.room}: {self.read_seq}"


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


@transaction.atomic
def ban(room, user):
    """Keep `user` out of `room` from now on. A second call changes nothing."""
    Ban.objects.get_or_create(room=room, user=user)
    Membership.objects.filter(room=room, user=user).delete()
    Reading.objects.filter(room=room, user=user).delete()


def list_rooms(user, wanted=""):
    """
    Return the rooms that `user` may enter and that have `wanted` in their names, each with what is `unread`.

    A QuerySet: first those that the user has read in, then the others, each by the last message.
    """
    rooms = Room.objects.joinable(user)
    if wanted:
        rooms = rooms.filter(name__icontains=wanted)
    rooms = rooms.annotate(reading=FilteredRelation("readings", condition=Q(readings__user=user)))
    unread = Greatest(F("last_seq") - F("reading__read_seq") - F("reading__own"), 0)
    rooms = rooms.annotate(unread=Coalesce(unread, 0), is_other=Q(reading__isnull=True))
    return rooms.order_by("is_other", "-last_at", "-pk")


def with_last_messages(rooms):
    """Return `rooms`, an iterable, as a list in which each has its `last_message`, or None: one query."""
    rooms = list(rooms)
    messages = Message.objects.filter(room__in=rooms, seq=F("room__last_seq")).select_related("user")
    messages = {message.room_id: message for message in messages}
    for room in rooms:
        room.last_message = messages.get(room.pk)
    return rooms


class Place(NamedTuple):
    """A user in a room. last_seq, edits: those of the Room. may_enter: as can_join(), for sockets."""

    room_id: int
    last_seq: int
    edits: int
    may_enter: bool


def look_up(pairs, by="pk"):
    """
    Return a dict of Places by pair, without those of rooms that do not exist: a query for all rooms, one where any of
    them is closed, and one where somebody is banned from any.

    pairs: of a room's primary key, or its slug with by="slug", and a user's primary key.
    """
    rooms = {name: room for name, *room in read_rooms(by, list({name for name, _ in pairs}))}
    # Who may enter a room that is closed, or from which somebody is banned, is decided below.
    places = {pair: Place(*rooms[pair[0]][:3], bool(rooms[pair[0]][3])) for pair in pairs if pair[0] in rooms}
    members = find_pairs(Membership, [(place, user) for (_, user), place in places.items() if not place.may_enter])
    banned = find_pairs(Ban, [(place, user) for (name, user), place in places.items() if rooms[name][4]])
    for (name, user_id), place in places.items():
        pair = (place.room_id, user_id)
        if pair in members or pair in banned:
            places[name, user_id] = place._replace(may_enter=pair not in banned)
    return places


def read_rooms(by, names):
    """
    Return rows of the rooms that have one of `names`, a list, in the field `by`: the name, the primary key, last_seq,
    edits, is_open and whether anybody is banned.
    """
    if not names:
        return []
    # For some numbers of names only, so that few statements are kept.
    count = 1 << max(0, len(names) - 1).bit_length()
    sql, parameters = compile_rooms(by, count)
    with connection.cursor() as cursor:
        cursor.execute(sql, [*parameters, *names, *names[-1:] * (count - len(names))])
        return cursor.fetchall()


@cache
def compile_rooms(by, count):
    """
    Return the SQL of read_rooms() and its parameters before the names: to make it takes ten times as long as to run it,
    and all who connect wait for it.
    """
    rooms = Room.objects.filter(**{f"{by}__in": range(count)}).order_by()
    rooms = rooms.annotate(has_bans=Exists(Ban.objects.filter(room=OuterRef("pk"))))
    rooms = rooms.values_list(by, "pk", "last_seq", "edits", "is_open", "has_bans")
    sql, parameters = rooms.query.sql_with_params()
    return sql, parameters[:-count]


def find_pairs(model, pairs):
    """Return the pairs of the primary keys of room and user of which `model` has a row. pairs: of Place and user."""
    if not pairs:
        return set()
    rooms, users = {place.room_id for place, _ in pairs}, {user_id for _, user_id in pairs}
    return set(model.objects.filter(room__in=rooms, user__in=users).values_list("room", "user"))


def find_places(pairs):
    """As look_up(), by the slugs of rooms."""
    return look_up(pairs, by="slug")


def post_message(room_id, user, id, text):
    """
    Store a message and return it, and whether it is new: the same id from the same user is stored once.

    id: UUID. text: str. Raises IdTaken when the id is somebody else's, or in another room; ObjectDoesNotExist when the
    room or the user is gone.
    """
    try:
        return store_message(room_id, user, id, text), True
    except IntegrityError:
        message = Message.objects.filter(pk=id).select_related("user").first()
    if message is None:
        # The account may have been deleted just now.
        user = get_user_model().objects.get(pk=user.pk)
        # Not the id but the number is taken: the room's number is behind, as after loading an old dump.
        catch_up(room_id)
        return store_message(room_id, user, id, text), True
    if (message.room_id, message.user_id) != (room_id, user.pk):
        raise IdTaken
    return message, False


@transaction.atomic
def store_message(room_id, user, id, text):
    # This locks the room's row until the commit, so that numbers become visible in their order, and times with them.
    seq = Room.objects.select_for_update(no_key=True).values_list("last_seq", flat=True).get(pk=room_id) + 1
    now = timezone.now()
    Room.objects.filter(pk=room_id).update(last_seq=seq, last_at=now)
    message = Message.objects.create(id=id, room_id=room_id, seq=seq, user=user, text=text, sent_at=now)
    # One's own message is not unread: it is read if all before it is, else it is left out of the count.
    number = models.PositiveBigIntegerField()
    read_seq = Case(When(read_seq=seq - 1, then=seq), default=F("read_seq"), output_field=number)
    own = Case(When(read_seq=seq - 1, then=0), default=F("own") + 1, output_field=number)
    Reading.objects.filter(room=room_id, user=user).update(read_seq=read_seq, own=own)
    return message


@transaction.atomic
def take_back(room_id, user, seq):
    """
    Take back the text of a message, whose number stays. Return how many edits the room has now.

    Return None if there is nothing to take back, or `user` is neither the writer nor the owner of the room.
    """
    message = Message.objects.filter(room=room_id, seq=seq).exclude(text="").select_related("room").first()
    if message is None or user.pk not in (message.user_id, message.room.owner_id):
        return None
    Message.objects.filter(pk=message.pk).update(text="")
    return count_edit(message)


@transaction.atomic
def count_edit(message):
    """Count that `message` has another text now. Return how many edits its room has seen."""
    room = Room.objects.filter(pk=message.room_id)
    room.update(edits=F("edits") + 1)
    edits, last_seq = room.values_list("edits", "last_seq").get()
    if message.seq == last_seq:
        # The lists of all who have the room show it. Locked in the order of mark_read().
        readings = Reading.objects.select_for_update().filter(room=message.room_id).order_by("pk")
        Reading.objects.filter(pk__in=readings).update(changed_at=timezone.now())
    return edits


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
    came = pairs - stored.keys()
    try:
        return stored | store_presence(process, came, now)
    except IntegrityError:
        return stored | store_presence(process, still_there(came), now)


def store_presence(process, pairs, now):
    rows = [Presence(room_id=room, user_id=user, process=process, seen_at=now) for room, user in pairs]
    fields = {"unique_fields": ["room", "user", "process"], "update_fields": ["seen_at"]}
    rows = Presence.objects.bulk_create(rows, update_conflicts=True, **fields)
    return {(row.room_id, row.user_id): row.pk for row in rows}


def still_there(pairs):
    """Return those of `pairs`, a set of the primary keys of room and user, of which neither was deleted just now."""
    rooms, users = {room for room, _ in pairs}, {user for _, user in pairs}
    rooms = set(Room.objects.filter(pk__in=rooms).values_list("pk", flat=True))
    users = set(get_user_model().objects.filter(pk__in=users).values_list("pk", flat=True))
    return {(room, user) for room, user in pairs if room in rooms and user in users}


def get_names_present(room_ids):
    """Return the sorted names of who is here in each of these rooms, a dict of lists."""
    alive = Presence.objects.filter(room__in=room_ids, seen_at__gte=timezone.now() - PRESENCE_LIFETIME)
    names = {room_id: set() for room_id in room_ids}
    for room_id, name in alive.values_list("room", f"user__{get_user_model().USERNAME_FIELD}"):
        names[room_id].add(name)
    return {room_id: sorted(names) for room_id, names in names.items()}
