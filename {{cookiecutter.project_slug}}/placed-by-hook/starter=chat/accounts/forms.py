from django.conf import settings
from django.contrib.auth.forms import UserCreationForm
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator

from .models import User
from .names import fold, look_alikes, validate_not_reserved


class SignUpForm(UserCreationForm):
    """Name and password. The model has the rules for names; reserved ones can be given in the admin and by commands."""

    class Meta(UserCreationForm.Meta):
        model = User

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        username = self.fields["username"]
        username.validators += [validate_not_reserved, MaxLengthValidator(settings.ACCOUNTS_MAX_NAME_LENGTH)]
        username.widget.attrs["maxlength"] = settings.ACCOUNTS_MAX_NAME_LENGTH

    def clean_username(self):
        name = super().clean_username()
        if name and User.objects.filter(username__in=look_alikes(fold(name))).exists():
            raise ValidationError("This name looks like that of somebody else. Choose another one.")
        return name
