"""A session, a form with CSRF protection, an upload, a stream, an error."""

import hashlib

from django import forms
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.views.decorators.csrf import csrf_exempt

PAGE = '<form method="post">{% csrf_token %}{{ form }}</form>{% if name %}<p>Hello {{ name }}</p>{% endif %}'


class Greeting(forms.Form):
    name = forms.CharField()


def count(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


def greet(request):
    form = Greeting(request.POST or None)
    context = {"form": form, "name": form.cleaned_data["name"] if form.is_valid() else None}
    return HttpResponse(engines["django"].from_string(PAGE).render(context, request))


@csrf_exempt
def digest(request):
    return HttpResponse(hashlib.sha256(request.FILES["file"].read()).hexdigest())


def stream(request):
    return StreamingHttpResponse((f"line {number}\n" for number in range(5000)), content_type="text/plain")


def fail(request):
    raise ValueError("a secret of the application")
