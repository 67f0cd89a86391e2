import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce, Now

import chat.models


def fill(apps, schema_editor):
    """Whoever is a member, or has written, has read all that there is today."""
    Membership, Message, Reading, Room = (
        apps.get_model("chat", name) for name in ("Membership", "Message", "Reading", "Room")
    )
    last = Message.objects.filter(room=OuterRef("pk"), seq=OuterRef("last_seq")).values("sent_at")
    Room.objects.update(last_at=Coalesce(Subquery(last), "last_at"))
    pairs = set(Membership.objects.values_list("room", "user"))
    pairs |= set(Message.objects.filter(user__isnull=False).order_by().values_list("room", "user").distinct())
    last_seqs = dict(Room.objects.values_list("pk", "last_seq"))
    readings = (Reading(room_id=room, user_id=user, read_seq=last_seqs[room]) for room, user in sorted(pairs))
    Reading.objects.bulk_create(readings, batch_size=1000)


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0003_room_owner"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="room",
            name="last_at",
            # With defaults of the database: while a version is deployed, the last release makes rooms, too.
            field=chat.models.TimeField(
                db_default=Now(), db_index=True, default=django.utils.timezone.now, editable=False
            ),
        ),
        migrations.AddField(
            model_name="room",
            name="edits",
            field=chat.models.NumberField(db_default=0, default=0, editable=False),
        ),
        migrations.CreateModel(
            name="Ban",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("room", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="chat.room")),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("room", "user"), name="chat_ban_once")],
            },
        ),
        migrations.CreateModel(
            name="Block",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "blocked",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="blocked_by",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="blocks",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("user", "blocked"), name="chat_block_once")],
            },
        ),
        migrations.CreateModel(
            name="Reading",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("read_seq", models.PositiveBigIntegerField(default=0)),
                ("own", models.PositiveBigIntegerField(default=0)),
                ("changed_at", models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                (
                    "room",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="readings", to="chat.room"
                    ),
                ),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("room", "user"), name="chat_reading_once")],
            },
        ),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=True),
    ]
