from django.contrib.auth.forms import UserCreationForm

from .models import User


class SignUpForm(UserCreationForm):
    """Name and password. Django's form refuses a name that differs from another in case only."""

    class Meta(UserCreationForm.Meta):
        model = User
