from django.conf import settings
from django.contrib.auth.forms import UserCreationForm
from django.core.validators import MaxLengthValidator

from .models import User
from .names import validate_not_reserved


class SignUpForm(UserCreationForm):
    """Name and password. The model has the rules for names; reserved ones can be given in the admin and by commands."""

    class Meta(UserCreationForm.Meta):
        model = User

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        username = self.fields["username"]
        username.validators += [validate_not_reserved, MaxLengthValidator(settings.ACCOUNTS_MAX_NAME_LENGTH)]
        username.widget.attrs["maxlength"] = settings.ACCOUNTS_MAX_NAME_LENGTH
