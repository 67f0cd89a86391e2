from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView, RedirectURLMixin
from django.http import HttpResponseRedirect
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import CreateView, UpdateView

from .forms import EmailForm, SignUpForm


class LogInView(LoginView):
    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def get_redirect_url(self):
        """As Django's, but not this page itself: Django fails at it when the visitor is logged in already."""
        url = super().get_redirect_url()
        return "" if url == self.request.path else url


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class SignUpView(RedirectURLMixin, CreateView):
    """Make an account and log in with it. As with Django's LoginView, `next` says where to go then, on this site."""

    form_class = SignUpForm
    template_name = "accounts/signup.html"
    next_page = settings.LOGIN_REDIRECT_URL

    def dispatch(self, request, *args, **kwargs):
        if request.user.is_authenticated:
            return redirect(self.next_page)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs):
        return super().get_context_data(next=self.get_redirect_url(), **kwargs)

    def form_valid(self, form):
        login(self.request, form.save())
        return HttpResponseRedirect(self.get_success_url())


@method_decorator([sensitive_post_parameters(), never_cache], name="dispatch")
class EmailView(LoginRequiredMixin, UpdateView):
    """Change the mail address of the visitor."""

    form_class = EmailForm
    template_name = "accounts/email.html"
    success_url = settings.LOGIN_REDIRECT_URL

    def get_object(self, queryset=None):
        return self.request.user
