"""The examples of djangochannelsrestframework's README: a list, an observed instance, a custom action."""

from django.contrib.auth import get_user_model
from django.urls import path
from djangochannelsrestframework import permissions
from djangochannelsrestframework.decorators import action
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
from djangochannelsrestframework.mixins import ListModelMixin, PatchModelMixin
from djangochannelsrestframework.observer.generics import ObserverModelInstanceMixin
from rest_framework import serializers


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = get_user_model()
        fields = ("id", "username", "email")


class LiveConsumer(ListModelMixin, PatchModelMixin, ObserverModelInstanceMixin, GenericAsyncAPIConsumer):
    queryset = get_user_model().objects.all()
    serializer_class = UserSerializer
    permission_classes = (permissions.IsAuthenticated,)

    @action()
    def publish(self, pk=None, **kwargs):
        user = self.get_object(pk=pk)
        return {"published": user.username}, 200


websocket_urlpatterns = [path("ws/live/", LiveConsumer.as_asgi())]
