from django.contrib import admin
from django.urls import path

from django_site import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("visits", views.count),
    path("form", views.greet),
    path("upload", views.digest),
    path("stream", views.stream),
    path("fail", views.fail),
]
