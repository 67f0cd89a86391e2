import threading

from django import forms
from django.conf import settings
from django.contrib.auth.forms import PasswordResetForm, UserCreationForm
from django.core.validators import MaxLengthValidator
from django.utils.translation import gettext_lazy as _

from .models import User
from .names import fold, look_alikes, validate_not_reserved

# Accounts of one mail address that are sent a link, each in a mail of its own.
MAX_ACCOUNTS = 5
# Browsers fill it in (WCAG 1.3.5).
WIDGETS = {"email": forms.EmailInput(attrs={"autocomplete": "email"})}


class SignUpForm(UserCreationForm):
    """Name and password. The model has the rules for names; reserved ones can be given in the admin and by commands."""

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ["username", "email"] if settings.ACCOUNTS_PASSWORD_RESET else ["username"]
        widgets = WIDGETS

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if "email" in self.fields:
            self.fields["email"].help_text = _("Only for a new password, if you forget it. You may leave it out.")
        username = self.fields["username"]
        username.validators += [validate_not_reserved, MaxLengthValidator(settings.ACCOUNTS_MAX_NAME_LENGTH)]
        username.widget.attrs["maxlength"] = settings.ACCOUNTS_MAX_NAME_LENGTH

    def clean_username(self):
        name = super().clean_username()
        if name and User.objects.filter(username__in=look_alikes(fold(name))).exists():
            raise forms.ValidationError(_("This name looks like that of somebody else. Choose another one."))
        return name


class EmailForm(forms.ModelForm):
    """The mail address of who is logged in. Whoever has it can set a new password: so it takes the old one."""

    old_password = forms.CharField(
        label=_("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    class Meta:
        model = User
        fields = ["email"]
        widgets = WIDGETS

    def clean_old_password(self):
        if not self.instance.check_password(self.cleaned_data["old_password"]):
            raise forms.ValidationError(_("This is not your password."))


class ResetForm(PasswordResetForm):
    def get_users(self, email):
        """As Django's, without the newer ones of many: addresses are not proven, so that anybody may have given one."""
        return sorted(super().get_users(email), key=lambda user: user.pk)[:MAX_ACCOUNTS]

    def send_mail(self, *args, **kwargs):
        """Send the mail in a thread: how long an answer takes must not tell whether there is an account."""
        send = super().send_mail
        threading.Thread(target=send, args=args, kwargs=kwargs, name="accounts.mail").start()
