"""How messages are numbered and stored, and who may enter a room."""

import uuid

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.db import connection
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.frames import StoredMessage
from chat.models import (
    PRESENCE_LIFETIME,
    Ban,
    IdTaken,
    Message,
    Presence,
    Reading,
    Room,
    can_join,
    get_names_present,
    get_room,
    list_rooms,
    look_up,
    messages_after,
    messages_before,
    post_message,
    record_presence,
)
from chat.unread import find_changes


def post(room, user, text="hello", id=None):
    return post_message(room.pk, user, id or uuid.uuid4(), text)


def test_messages_are_numbered_in_each_room(room, closed_room, ann):
    assert [post(room, ann)[0].seq for _ in range(3)] == [1, 2, 3]
    assert post(closed_room, ann)[0].seq == 1
    room.refresh_from_db()
    assert room.last_seq == 3


def test_the_same_id_is_stored_once(room, ann):
    id = uuid.uuid4()
    first, is_new = post(room, ann, "first", id)
    assert is_new

    again, is_new = post(room, ann, "again", id)

    assert not is_new
    assert (again.seq, again.text) == (first.seq, "first")
    # The number that the second attempt took is free again.
    assert post(room, ann)[0].seq == 2


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("is_member", [True, False])
@pytest.mark.parametrize("is_banned", [True, False])
def test_pages_sockets_and_lists_let_in_the_same_people(room, ben, is_open, is_member, is_banned):
    """However the rows came there: in the admin somebody may be banned who stays a member."""
    Room.objects.filter(pk=room.pk).update(is_open=is_open)
    room.members.set([ben] * is_member)
    Reading.objects.create(room=room, user=ben)
    if is_banned:
        Ban.objects.create(room=room, user=ben)
    may_enter = (is_open or is_member) and not is_banned

    assert can_join(ben, room) == may_enter
    assert look_up([(room.pk, ben.pk)])[room.pk, ben.pk].may_enter == may_enter
    assert Reading.objects.permitted().filter(user=ben).exists() == may_enter


def test_nothing_is_unread_below_a_number_that_has_gone_back(room, ben):
    """As after loading an old dump."""
    Reading.objects.create(room=room, user=ben, read_seq=5)

    assert list_rooms(ben).get(pk=room.pk).unread == 0
    assert find_changes(timezone.now() - PRESENCE_LIFETIME, {ben.pk})[room.pk, ben.pk].unread == 0


def test_an_id_of_somebody_else_is_refused(room, closed_room, ann, ben):
    id = uuid.uuid4()
    post(room, ann, id=id)

    for other_room, user in ((room, ben), (closed_room, ann)):
        with pytest.raises(IdTaken):
            post(other_room, user, id=id)
    assert Message.objects.count() == 1


def test_saving_a_room_leaves_its_number_alone(room, ann):
    """Also one that was read before the messages came, as by the admin."""
    stale = Room.objects.get(pk=room.pk)
    for _ in range(5):
        post(room, ann)

    stale.name = "Renamed"
    stale.save()
    Room.objects.bulk_update([stale], ["name"])
    Room.objects.update_or_create(pk=stale.pk, defaults={"name": "Again", "last_seq": 2})

    room = Room.objects.get(pk=room.pk)
    # The next message would mend it.
    assert (room.last_seq, room.name) == (5, "Again")
    assert post(room, ann)[0].seq == 6


def test_a_number_that_is_behind_is_mended(room, ann):
    for _ in range(3):
        post(room, ann)
    Room.objects.update(last_seq=1)

    assert post(room, ann)[0].seq == 4
    assert post(room, ann)[0].seq == 5


def test_a_message_has_the_time_at_which_its_turn_has_come(room, ann, monkeypatch):
    """Where writers wait for the row of their room, as on PostgreSQL, a time from before would be that of another."""
    now, asked = timezone.now, []
    with CaptureQueriesContext(connection) as queries:
        monkeypatch.setattr(timezone, "now", lambda: asked.append(queries.captured_queries[-1]["sql"]) or now())
        post(room, ann)

    assert asked and all("chat_room" in sql for sql in asked)


def test_no_message_in_a_room_that_is_gone(room, ann):
    Room.objects.all().delete()

    with pytest.raises(Room.DoesNotExist):
        post(room, ann)


def test_the_numbers_have_no_gap_when_an_account_goes(room, ann, ben):
    for user in (ann, ben, ann):
        post(room, user)

    ann.delete()

    messages = messages_after(room.pk, 0, 10)
    assert [message.seq for message in messages] == [1, 2, 3]
    assert [StoredMessage.of(message).user for message in messages] == ["", "ben", ""]


def test_pages(room, ann):
    for _ in range(5):
        post(room, ann)

    for page, seqs in (
        (messages_after(room.pk, 2, 2), [3, 4]),
        (messages_after(room.pk, 5, 2), []),
        (messages_before(room.pk, 4, 2), [2, 3]),
        (messages_before(room.pk, 1, 2), []),
    ):
        assert [message.seq for message in page] == seqs


def test_a_page_is_one_query(room, ann):
    for _ in range(3):
        post(room, ann)

    with CaptureQueriesContext(connection) as queries:
        assert [StoredMessage.of(message).user for message in messages_after(room.pk, 0, 10)] == ["ann"] * 3

    assert len(queries) == 1


def test_who_may_enter(room, closed_room, ann, ben):
    closed_room.members.add(ben)

    assert can_join(ann, room)
    assert not can_join(ann, closed_room)
    assert can_join(ben, closed_room)
    assert not can_join(AnonymousUser(), room)
    assert list(Room.objects.joinable(ann)) == [room]
    with pytest.raises(PermissionDenied):
        get_room(ann, "closed")


def test_a_name_with_a_newline_makes_no_line_of_its_own_in_a_log(closed_room, ann):
    closed_room.name = "x\n2026-01-01 INFO forged"
    closed_room.save()

    with pytest.raises(PermissionDenied, match=r"^You are not a member of x\\n2026-01-01 INFO forged\.$"):
        get_room(ann, "closed")


def test_sockets_may_be_where_pages_may(room, closed_room, ann, ben):
    closed_room.members.add(ben)
    pairs = [(place.pk, user.pk) for place in (room, closed_room) for user in (ann, ben)]

    places = look_up([*pairs, (0, ann.pk)])

    assert places.keys() == {*pairs}
    for (room_id, user_id), place in places.items():
        user = {ann.pk: ann, ben.pk: ben}[user_id]
        assert place.may_enter == can_join(user, Room.objects.get(pk=room_id))


def test_the_statement_that_finds_places_is_made_once(room, ann, monkeypatch):
    places = look_up([(room.pk, ann.pk)])

    # To make it takes ten times as long as to run it, and all who connect wait for it.
    with monkeypatch.context() as patch:
        patch.setattr(SQLCompiler, "as_sql", None)
        assert look_up([(room.pk, ann.pk)]) == places
    assert look_up([]) == {}


def test_the_demo_room(capsys, db):
    for _ in range(2):
        call_command("demo_room", messages=7)

    assert "7 messages in /rooms/demo/" in capsys.readouterr().out
    assert Room.objects.get(slug="demo").last_seq == 14


def test_nobody_is_here_in_a_process_that_is_dead(room, ann, ben):
    """Also before another one has deleted what it left."""
    now = timezone.now()
    for user, seen_at in ((ann, now), (ben, now - PRESENCE_LIFETIME)):
        Presence.objects.create(room=room, user=user, process=uuid.uuid4(), seen_at=seen_at)

    assert get_names_present([room.pk]) == {room.pk: ["ann"]}
    record_presence(uuid.uuid4(), {}, set(), beats=True)
    assert [presence.user for presence in Presence.objects.all()] == [ann]


def test_who_is_here_is_stored_also_when_somebody_is_deleted(room, ann, ben):
    """Before the process is told. Nobody else would be shown as here meanwhile."""
    get_user_model().objects.filter(pk=ann.pk)._raw_delete("default")
    here = {(room.pk, ann.pk), (room.pk, ben.pk), (room.pk + 1, ben.pk)}

    stored = record_presence(uuid.uuid4(), {}, here, beats=True)

    assert stored.keys() == {(room.pk, ben.pk)}
    assert get_names_present([room.pk]) == {room.pk: ["ben"]}


def test_a_process_that_was_taken_for_dead_by_half(room, ann, ben):
    process, here = uuid.uuid4(), {(room.pk, ann.pk), (room.pk, ben.pk)}
    stored = record_presence(process, {}, here, beats=True)
    Presence.objects.filter(user=ann).delete()

    stored = record_presence(process, stored, here, beats=True)

    assert get_names_present([room.pk]) == {room.pk: ["ann", "ben"]}
    # While all are there, nothing is stored anew.
    with CaptureQueriesContext(connection) as queries:
        record_presence(process, stored, here, beats=True)
    assert not any("INSERT" in query["sql"] for query in queries)
    record_presence(process, stored, set(), beats=False)
    assert not Presence.objects.exists()
