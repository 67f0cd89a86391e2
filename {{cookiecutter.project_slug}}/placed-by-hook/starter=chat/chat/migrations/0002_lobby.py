from django.db import migrations


def make_lobby(apps, schema_editor):
    apps.get_model("chat", "Room").objects.get_or_create(slug="lobby", defaults={"name": "Lobby"})


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial")]

    operations = [migrations.RunPython(make_lobby, migrations.RunPython.noop)]
