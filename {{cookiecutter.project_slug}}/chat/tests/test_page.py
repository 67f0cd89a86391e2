from django.conf import settings


def test_page_knows_the_socket(client):
    response = client.get("/")

    assert response.status_code == 200
    assert response.context["site_name"] == settings.SITE_NAME
    assert b'"/ws/socket-server/"' in response.content


def test_page_allows_only_its_own_scripts(client):
    policy = client.get("/").headers["Content-Security-Policy"]

    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
