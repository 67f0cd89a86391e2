from django.conf import settings


def site(request):
    """The name of the site, for every template."""
    return {"SITE_NAME": settings.SITE_NAME}
